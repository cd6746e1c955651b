"""Pretraining and fine-tuning read the dates that the plan gives each of them, in a small lake without Spark."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from lake import storage
from lake.labels import NAMES
from lake.publish import publish
from lake.table import Table
from model import finetune, pretrain
from model.data.frames import read_frame
from model.data.vocabulary import Vocabulary
from model.network import network
from model.network.losses import FinetuneTask
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact, Prediction
from tests.lake.stagings import stage_files
from tests.model.hidden_files import hidden
from tests.model.small_network import SMALL
from tests.model.states import state

pytestmark = pytest.mark.tf

WEEKS = [date(2025, 1, 1) + timedelta(days=7 * n) for n in range(9)]
# With a horizon of a week a date fits between the parts as a gap; the plan says more than the code may read.
TRAIN, GAP, VALID, LATER, TEST = WEEKS[:5], WEEKS[5], [WEEKS[6]], WEEKS[7], [WEEKS[8]]
USERS = 40  # on each date


def rows_of(day: date, draws: np.random.Generator) -> list[dict]:
    """Make the users of a date; from date to date they do more, so that each date has numbers of its own."""
    found = []
    for number in range(USERS):
        category, amount = draws.integers(1, 4, 2), int(draws.integers(1, 5)) + WEEKS.index(day)
        labels = {
            "next_category_key": int(draws.choice(category)),
            "next_item_keys": [int(draws.integers(1, 9))],
            **dict.fromkeys(NAMES, False),
            "migrated": [None, True, False][number % 3],
            "purchased": bool(draws.random() < 0.5),
            "churned": bool(draws.random() < 0.3),
        }
        events = {
            "item_keys": draws.integers(1, 9, 2).tolist(),
            "category_keys": category.tolist(),
            "longterm_category_keys": list(dict.fromkeys(category.tolist()))[:2],
        }
        for name in ("longterm_counts", "longterm_days", "longterm_current_counts", "longterm_week_counts"):
            events[name] = [amount + 1, amount][: len(events["longterm_category_keys"])]
        for name, values in {"longterm_shares": [0.75, 0.25], "longterm_age_seconds": [3600, 86_400]}.items():
            events[name] = values[: len(events["longterm_category_keys"])]
        amounts = dict.fromkeys(("frequency", "active_days", "history_events", "week_frequency"), amount)
        found.append(state(f"u{number:02}", **events, **amounts, spend=amount * 2.0, dt=day) | labels)
    return found


@dataclass(frozen=True)
class Trained:
    """What pretraining and fine-tuning have left in a lake, and what the kept network says of the validation rows."""

    plan: TrainingPlan
    pretrained: Artifact
    kept: Artifact
    examples: Table
    valid: pd.DataFrame
    said: Prediction


@pytest.fixture(scope="module")
def trained(tmp_path_factory, mlflow_store) -> Iterator[Trained]:
    """Pretrain and fine-tune one pass, without any file of the dates that are none of their business."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mlflow.db").write_bytes(mlflow_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(folder / "lake"))
        patch.setitem(network.PRESETS, "tiny", SMALL)
        draws, rows = np.random.default_rng(0), []
        for day in WEEKS:
            rows += rows_of(day, draws)
        for table in ("examples", "interests"):
            stage_files(table, table, rows, WEEKS, basis=1)
            publish(table, table)
        examples, interests = Table("examples"), Table("interests")
        versions = {"examples": examples.version, "interests": interests.version}
        plan = TrainingPlan(
            "r", WEEKS[-1] + timedelta(days=7), versions, [*TRAIN, GAP], TRAIN, VALID, TEST, 7, 30, 5, 50, None, 1
        )
        plan.save()
        vocabularies = [
            Vocabulary("item_id", np.arange(1, 7), list("abcdef"), 2, np.arange(60, 0, -10)),
            Vocabulary("category_id", np.arange(1, 4), list("xyz"), 1, np.array([30, 20, 10])),
        ]
        for known in vocabularies:
            known.save(storage.join(plan.folder, "vocabulary"))

        with hidden(interests, [*VALID, LATER, *TEST]), hidden(examples, WEEKS):
            pretrain.main(["--run-id", "r", "--epochs", "1", "--batch", "32"])
        with hidden(interests, WEEKS), hidden(examples, [GAP, LATER, *TEST]):
            finetune.main(["--run-id", "r", "--epochs", "1", "--batch", "32"])
        pretrained, kept = (Artifact.load(storage.join(plan.folder, name)) for name in ("pretrained", "finetuned"))
        valid = read_frame(examples, VALID)
        yield Trained(plan, pretrained, kept, examples, valid, kept.predict(valid))


def test_training_uses_all_rows_of_its_dates_and_no_others(trained):
    # 240 users of six dates make seven batches of 32, 200 of five dates make six.
    assert trained.pretrained.card["cost"]["rows"] == 7 * 32
    assert {phase: cost["rows"] for phase, cost in trained.kept.card["cost"].items()} == {
        "heads": 6 * 32,
        "finetuned": 6 * 32,
    }


def test_what_decides_is_the_loss_of_the_next_category_on_the_validation_dates(trained):
    card = trained.kept.card
    judged = {
        phase: [epoch["valid_next_category_loss"] for epoch in epochs] for phase, epochs in card["history"].items()
    }
    assert card["kept"] == min(judged, key=lambda phase: min(judged[phase]))
    features = trained.kept.features
    now = features.labelled(trained.valid) | {"weight": np.ones(USERS, np.float32)}
    _, _, metrics = FinetuneTask(trained.kept.finetuned).loss(now, training=False)
    total, count = (float(part) for part in metrics["next_category_loss"])
    assert count == USERS
    assert min(judged[card["kept"]]) == pytest.approx(total / count, rel=1e-4)


def test_the_numbers_of_a_card_are_those_of_the_validation_dates(trained):
    card, said = trained.kept.card, trained.said
    assert card["surprise_quantiles"] == pytest.approx(np.quantile(said.surprise, np.arange(101) / 100), abs=2e-6)
    # The fifth of users that is likeliest to leave, and that which is likeliest to move on.
    likely = {name: np.quantile(said.answers[name], 0.8) for name in ("churned", "migrated")}
    expected = {"at_risk": likely["churned"], "migrating": likely["migrated"]}
    assert card["segment_thresholds"] == pytest.approx(expected, abs=2e-6)
    # The vocabulary knows the items 1 to 6 of 1 to 8, and all categories.
    keys = np.concatenate(list(trained.valid["item_keys"]))
    assert card["unseen"] == {"item_id": pytest.approx((keys > 6).mean()), "category_id": 0.0}
    assert [card[name] for name in ("tables", "valid", "test")] == [
        trained.plan.tables, ["2025-02-12"], ["2025-02-26"]
    ]  # fmt: skip


def test_scalars_are_measured_against_the_last_four_training_dates(trained):
    rows = read_frame(trained.examples, TRAIN[-4:])
    scalars = trained.kept.features.state(rows)["scalars"]
    np.testing.assert_allclose(np.asarray(trained.kept.finetuned.scalar_mean), scalars.mean(axis=0), atol=1e-5)
    expected = np.maximum(scalars.std(axis=0), 1e-2)
    np.testing.assert_allclose(np.asarray(trained.kept.finetuned.scalar_scale), expected, atol=1e-5)


def test_the_heads_learn_first_and_then_what_the_next_category_comes_from(trained):
    base = trained.pretrained
    begin = base.features.labelled(trained.valid)

    def taught(phase, start="pretrained", weights=None):
        model = finetune.task_of(base, start, phase, weights, begin)().model
        return model, {variable.path for variable in model.trainable_variables}

    heads, of_heads = taught("heads")
    encoder = {variable.path for variable in heads.encoder.variables}
    assert not of_heads & encoder
    everything = {v.path for v in heads.variables if v.dtype == "float32"} - {
        heads.scalar_mean.path,
        heads.scalar_scale.path,
    }
    assert of_heads == everything - encoder
    # It starts from the pretrained encoder; from scratch from another one.
    for mine, theirs in zip(heads.encoder.get_weights(), base.pretrained.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    scratch, of_scratch = taught("all", "scratch")
    assert len(of_scratch) == len(everything)
    embedded = [model.encoder.embed.fields["item"].get_weights()[0] for model in (heads, scratch)]
    assert np.abs(embedded[0] - embedded[1]).max() > 0.01

    # Then everything from where the heads are, but the binary answers, which have had their passes over these users.
    left = [weights + 1 for weights in heads.get_weights()]
    second, of_second = taught("finetuned", weights=left)
    binary = {v.path for layer in second.binary_layers for v in layer.trainable_variables or layer.variables}
    np.testing.assert_array_equal(second.get_weights()[0], left[0])
    assert not of_second & binary
    assert {v.path for v in second.encoder.trainable_variables} <= of_second
    assert second.encoder.trainable_variables
    # Adapters are all that is taught of the encoder.
    adapted, _ = taught("lora", weights=heads.get_weights())
    assert adapted.encoder.trainable_variables
    assert all("lora" in v.path for v in adapted.encoder.trainable_variables)


def test_phases_stop_by_the_validation_and_take_as_many_steps_from_scratch():
    plan = TrainingPlan("r", WEEKS[-1], {}, [], TRAIN, VALID, TEST, 7, 30, 5, 50, None, seed=3)
    given = argparse.Namespace(batch=None, learning_rate=None, workers=1, jit=False, epochs=None)
    phases = finetune.phases_of("finetuned", "tiny", given, plan, 10_000)
    assert list(phases) == ["heads", "finetuned"]
    for phase in phases.values():
        assert (phase.metric, phase.patience, phase.epochs, phase.seed) == ("next_category_loss", 3, 3, 3)
    assert [phase.learning_rate for phase in phases.values()] == [2e-3, 1e-3]
    assert list(finetune.phases_of("lora", "tiny", given, plan, 10_000)) == ["heads", "lora"]
    scratch = finetune.phases_of("scratch", "tiny", given, plan, 10_000)
    assert {name: (phase.epochs, phase.learning_rate) for name, phase in scratch.items()} == {"all": (6, 2e-3)}
    assert scratch["all"].metric == "next_category_loss"
