"""Pretraining and fine-tuning read the dates that the plan gives each of them, in a small lake without Spark."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lake import storage
from lake.errors import SettingsInvalid
from lake.labels import NAMES
from lake.publish import publish
from lake.table import Table
from model import finetune, pretrain
from model.data.frames import read_frame
from model.data.habits import FADING
from model.data.own_labels import own_labels
from model.data.vocabulary import Vocabulary
from model.network import network
from model.network.losses import FinetuneTask
from model.training.accountant import epsilon
from model.training.plan import TrainingPlan
from model.training.private import Privacy
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
            # Both alike: their order and the key above are what all users have made of it.
            "next_categories": ["x", "y"],
            "next_shares": [0.5, 0.5],
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
    rows = {phase: cost["rows"] for phase, cost in trained.kept.card["cost"].items()}
    passes = len(trained.kept.card["history"]["answers"])
    assert rows == {"heads": 6 * 32, "finetuned": 6 * 32, "answers": passes * 6 * 32}
    assert 3 <= passes <= 6


def test_what_decides_is_the_loss_of_the_next_category_on_the_validation_dates(trained):
    card = trained.kept.card
    judged = {
        phase: [epoch["valid_next_category_loss"] for epoch in card["history"][phase]]
        for phase in ("heads", "finetuned")
    }
    assert card["kept"] == min(judged, key=lambda phase: min(judged[phase]))
    of_answers = {
        phase: card["history"][phase][np.argmin(judged[phase])]["valid_answers_loss"] for phase in (card["kept"],)
    }
    last = min(epoch["valid_answers_loss"] for epoch in card["history"]["answers"])
    assert card["answers_kept"] == (last < of_answers[card["kept"]])
    assert [epoch["valid_answers_loss"] for epoch in card["history"]["answers"]] == pytest.approx(
        [epoch["valid_loss"] for epoch in card["history"]["answers"]]
    )
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


def test_habits_are_measured_on_the_last_four_training_dates_and_kept_with_the_network(trained, monkeypatch):
    asked = []

    def noted(table, days, *rest, **how):
        asked.append(list(days))
        return read_frame(table, days, *rest, **how)

    monkeypatch.setattr(finetune, "read_frame", noted)
    found = finetune.first_habits(trained.plan, trained.pretrained.features)
    assert asked == [TRAIN[-4:]]
    # These users take what they have had, one of two as often as the other, so that all they have is worth a hundred
    # times what all choose. Their counts are the same at three speeds. The fading shares always have 100 x 0.05 / 1.05.
    assert sum(found) == pytest.approx(100, abs=0.1)
    assert found[0] == found[2] == found[3]
    assert found[1] > 4.76
    assert trained.kept.config.habits == found
    assert trained.pretrained.config.habits == FADING


def test_a_training_without_habits_goes_on_where_one_from_before_there_were_any_was_broken_off(trained):
    base = trained.pretrained
    assert "habits" not in str(finetune.identity(trained.plan, base, "pretrained"))
    other = replace(base, config=replace(base.config, habits=(1.0, 1.0, 0.0, 0.0)))
    assert finetune.identity(trained.plan, other, "pretrained")["habits"] == (1.0, 1.0, 0.0, 0.0)


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


def test_the_binary_answers_are_taught_last_and_alone(trained):
    base = trained.pretrained
    rows = base.features.labelled(trained.valid)
    weights = trained.kept.finetuned.get_weights()
    task = finetune.task_of(base, "pretrained", "answers", weights, rows)()
    binary = {v.path for layer in task.model.binary_layers for v in layer.variables if v.dtype == "float32"}
    assert {v.path for v in task.model.trainable_variables} == binary
    whole, alone = task.model(rows, training=False), task.model.answers(rows, training=False)
    assert set(alone) == set(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(np.asarray(alone[name]), np.asarray(whole[name]), atol=1e-6)
    # A row of weight 0 and an unknown label count for nothing.
    weight = np.arange(USERS) % 4 != 0
    total, count, metrics = task.loss(rows | {"weight": weight.astype(np.float32)}, training=False)
    losses = {}
    for name in NAMES:
        known = weight & (rows[name] >= 0)
        odds, truth = np.asarray(alone[name], np.float64)[known], rows[name][known]
        losses[name] = (np.logaddexp(0, odds) - truth * odds).sum(), known.sum()
        found = [float(part) for part in metrics[f"{name}_loss"]]
        assert found == pytest.approx(losses[name], rel=1e-4)
    assert float(total) == pytest.approx(sum(loss for loss, _ in losses.values()), rel=1e-4)
    assert float(count) == weight.sum()
    # Where no row knows a label, the loss of all together is that of the others.
    unknown = rows | {NAMES[0]: np.full(USERS, -1.0, np.float32), "weight": weight.astype(np.float32)}
    _, _, metrics = task.loss(unknown, training=False)
    assert float(metrics[f"{NAMES[0]}_loss"][1]) == 0
    others = sum(loss for name, (loss, _) in losses.items() if name != NAMES[0])
    assert [float(part) for part in metrics["answers_loss"]] == pytest.approx([others, weight.sum()], rel=1e-4)


@pytest.mark.parametrize(("told", "kept"), [(0.9, ["heads", "answers"]), (1.1, ["heads"]), (1.0, ["heads"])])
def test_answers_begin_with_the_best_network_and_are_kept_if_they_are_better(monkeypatch, caplog, told, kept):
    caplog.set_level("INFO", "model.finetune")
    began = {}

    def fit(task, strategy, train, valid, config, folder, *_):
        phase = config
        began[phase] = task()
        category = {"heads": 2.0, "finetuned": 2.5, "answers": 0.1}[phase]
        # Of one label no row of validation is known. Of the others the mean of one falls and that of the other rises:
        # how many rows know each is only in the number of both together.
        epochs = [{f"valid_{name}_loss": float("nan") for name in NAMES}]
        epochs[0]["valid_answers_loss"] = told if phase == "answers" else 1.0
        network = SimpleNamespace(get_weights=lambda: [*(began[phase] or []), phase])
        return SimpleNamespace(
            steps=1, best_metric=category, best_epoch=0, history=epochs, task=SimpleNamespace(model=network)
        )

    monkeypatch.setattr(finetune, "fit", fit)
    monkeypatch.setattr(finetune, "report", lambda *_: None)
    monkeypatch.setattr(finetune, "first_answers", lambda *_: {})
    monkeypatch.setattr(finetune, "plain", lambda _, network: network)
    monkeypatch.setattr(finetune, "task_of", lambda *given: lambda: given[3])
    monkeypatch.setattr(finetune, "checkpoints_folder", lambda *_: "")
    run = SimpleNamespace(log_params=lambda _: None)
    config = SimpleNamespace(habits=FADING)
    base, plan = SimpleNamespace(features=None, config=config), SimpleNamespace(run_id="r", tables={})
    phases = {name: name for name in ("heads", "finetuned", "answers")}
    best, _ = finetune.fit_phases(plan, base, "finetuned", "pretrained", phases, None, None, None, run)
    assert began == {"heads": None, "finetuned": ["heads"], "answers": ["heads"]}
    assert (best.phase, best.network.get_weights(), best.answers) == ("heads", kept, len(kept) == 2)
    (line,) = [record.getMessage() for record in caplog.records if "binary answers" in record.getMessage()]
    assert line == (
        f"finetuned: binary answers of phase {kept[-1]!r} kept, validation loss 1.000000 before and {told:.6f} after "
        "their own"
    )


def test_heads_learn_from_states_that_the_frozen_encoder_gives_once(trained):
    base = trained.pretrained
    begin = base.features.labelled(trained.valid)
    rows = finetune.examples(trained.plan, base.features, VALID, base.pretrained.encoder)
    first, second = (list(rows.once(USERS).batches()) for _ in range(2))
    np.testing.assert_equal(second, first)
    now = first[0]
    expected = np.asarray(base.pretrained.encoder.last(now))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(now["last"], expected, atol=1e-6)

    weights = finetune.task_of(base, "pretrained", "heads", None, begin)().model.get_weights()

    def loss(phase, batch):
        return float(finetune.task_of(base, "pretrained", phase, weights, begin)().loss(batch, training=False)[0])

    # In the first phase they are taken as they are, whatever the sequences say; in the second nobody looks at them.
    other = {**now, "last": now["last"] + 1}
    assert loss("heads", now) == pytest.approx(loss("finetuned", now), rel=1e-5)
    assert abs(loss("heads", other) - loss("heads", now)) > 1e-3
    assert loss("finetuned", other) == loss("finetuned", now)
    scratch = finetune.task_of(base, "scratch", "all", None, begin)()
    without = {name: values for name, values in now.items() if name != "last"}
    assert np.isfinite(float(scratch.loss(without, training=False)[0]))


def test_with_noise_the_card_says_epsilon_and_nothing_is_chosen_or_begun_by_the_rows(trained, monkeypatch):
    for name in ("first_answers", "first_habits"):
        monkeypatch.setattr(finetune, name, lambda *_: pytest.fail("it looked at the rows"))
    how = ["--epochs", "1", "--batch", "8", "--adapter", "lora", "--dp-noise", "2", "--dp-clip", "0.5"]
    finetune.main(["--run-id", "r", *how, "--dp-delta", "1e-3"])
    kept = Artifact.load(storage.join(trained.plan.folder, "lora"))
    # Eight of 40 users take part in each of five steps of each phase.
    expected = {"clip_norm": 0.5, "noise": 2.0, "rate": 0.2, "steps": 10, "users": 40, "delta": 1e-3}
    expected["epsilon"] = pytest.approx(epsilon(0.2, 2.0, 10, 1e-3))
    assert kept.card["privacy"] == expected
    assert (kept.card["epsilon"], kept.card["delta"]) == (expected["epsilon"], 1e-3)
    assert kept.card["kept"] == "lora"
    assert kept.config.habits == FADING
    assert not np.asarray(kept.finetuned.scalar_mean).any()
    assert "epsilon" not in trained.kept.card
    with pytest.raises(SettingsInvalid, match="--dp-delta must be above 0 and below 1/40"):
        finetune.main(["--run-id", "r", *how, "--dp-delta", "0.1"])


def test_with_noise_a_tie_is_broken_by_the_user_alone_where_a_training_learns(trained, monkeypatch):
    given, features = [], trained.pretrained.features

    def noted(plan, features, days, *rest, own=False):
        given.append((days, own))
        return examples(plan, features, days, *rest, own=own)

    examples = finetune.examples
    monkeypatch.setattr(finetune, "examples", noted)
    finetune.main(["--run-id", "r", "--epochs", "1", "--batch", "8", "--adapter", "lora", "--dp-noise", "2"])
    finetune.main(["--run-id", "r", "--epochs", "1", "--batch", "32", "--adapter", "lora"])
    assert given == [(TRAIN, True), (VALID, False), (TRAIN, False), (VALID, False)]
    batch = next(iter(examples(trained.plan, features, VALID, own=True).once(USERS).batches()))
    own = features.labelled(own_labels(trained.valid, trained.pretrained.categories))
    assert batch["next_category"].tolist() == own["next_category"].tolist()
    assert own["next_category"].tolist() != features.labelled(trained.valid)["next_category"].tolist()


def test_phases_stop_by_the_validation_and_take_as_many_steps_from_scratch():
    plan = TrainingPlan("r", WEEKS[-1], {}, [], TRAIN, VALID, TEST, 7, 30, 5, 50, None, seed=3)
    given = argparse.Namespace(batch=None, learning_rate=None, workers=1, jit=False, epochs=None)
    phases = finetune.phases_of("finetuned", "tiny", given, plan, 10_000)
    assert list(phases) == ["heads", "finetuned", "answers"]
    answers = phases.pop("answers")
    # Six times as many passes, by their own loss.
    told = (answers.metric, answers.patience, answers.epochs, answers.learning_rate)
    assert told == ("answers_loss", 2, 18, 1e-3)
    for phase in phases.values():
        assert (phase.metric, phase.patience, phase.epochs, phase.seed) == ("next_category_loss", 3, 3, 3)
    assert [phase.learning_rate for phase in phases.values()] == [2e-3, 1e-3]
    assert list(finetune.phases_of("lora", "tiny", given, plan, 10_000)) == ["heads", "lora", "answers"]
    private = finetune.phases_of("lora", "tiny", given, plan, 10_000, Privacy(1.0, 1.0))
    assert list(private) == ["heads", "lora"], "each pass more costs privacy"
    scratch = finetune.phases_of("scratch", "tiny", given, plan, 10_000)
    rates = {name: (phase.epochs, phase.learning_rate) for name, phase in scratch.items()}
    assert rates == {"all": (6, 2e-3), "answers": (18, 1e-3)}
    # A pass is 78 batches of 128 rows. With 156 steps of pretraining two passes more, with 157 three.
    for before, passes in ((156, 8), (157, 9)):
        longer = finetune.phases_of("scratch", "tiny", given, plan, 10_000, pretrained_steps=before)
        assert {name: phase.epochs for name, phase in longer.items()} == {"all": passes, "answers": 18}
        others = finetune.phases_of("finetuned", "tiny", given, plan, 10_000, pretrained_steps=before)
        assert [phase.epochs for phase in others.values()] == [3, 3, 18]
    assert scratch["all"].metric == "next_category_loss"
    private = finetune.phases_of("scratch", "tiny", given, plan, 10_000, Privacy(1.0, 1.0), pretrained_steps=157)
    assert {name: phase.epochs for name, phase in private.items()} == {"all": 6}, "each pass more costs privacy"
    # Asked for two passes, from scratch has both phases' and those of pretraining.
    given.epochs = 2
    told = finetune.phases_of("scratch", "tiny", given, plan, 10_000, pretrained_steps=157)
    assert told["all"].epochs == 2 + 2 + 3
