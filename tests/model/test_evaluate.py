"""A run is measured on its test dates alone: what is learnt and chosen for that comes from the dates before."""

import functools
import json
import re
import shutil
import weakref
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from lake import storage
from lake.errors import HeadsDiffer, ModelMissing
from lake.publish import publish
from lake.table import Table
from model import evaluate, monitor, promote
from model.judging.baselines import Baseline, RecencyFrequency
from model.judging.boosted import BoostedTrees
from model.judging.gate import Decision
from model.training.plan import TrainingPlan
from model.versions.stack import Stack
from tests.lake.stagings import stage_files
from tests.model.resampled import middle, resampled
from tests.model.standin_artifact import KEY, Prediction, StandIn, Words, registry, save
from tests.model.tiny_examples import example, examples, key_of, shop

RESAMPLES, SEED = 40, 5
CATEGORIES = list("abcdefghijklmnopqrst")
# The champion learnt fewer categories, in another order.
OLD_CATEGORIES = CATEGORIES[-2::-1]
TRAIN, GAP, VALID, TEST = (
    [date(2025, 1, 1), date(2025, 1, 8)],
    [date(2025, 1, 15)],
    [date(2025, 1, 22)],
    [date(2025, 2, 5), date(2025, 2, 12)],
)
AS_OF = date(2025, 2, 19)


# --- a shop in which each part of the dates tells another story ----------------------------------------


def row(
    user: str, day: date, then: str, frequency: int, says: str = "a", old_says: str = "a", items: str = ""
) -> dict[str, Any]:
    """Return an example of a user with events in a category that never comes next.

    `then` is the next category, none for a user who churns. `says` and `old_says` are what the candidate and the
    champion expect: their numbers stand in columns that no baseline looks at for categories.
    """
    more = {
        "frequency": frequency,
        "purchases": CATEGORIES.index(says),
        "week_frequency": CATEGORIES.index(old_says),
        "next_items": [KEY[name] for name in items.split()],
    }
    return example(user, ["s"], [then] if then else [], day=str(day), items=[KEY["i1"], KEY["i3"]], **more)


def part(day: date, nexts: str, frequencies: list[int], gone: list[int]) -> list[dict[str, Any]]:
    """Return rows of users with these next categories and frequencies, then of users who churn."""
    users = [*zip(nexts, frequencies, strict=True), *(("", frequency) for frequency in gone)]
    return [row(f"u{at:02}", day, then, frequency) for at, (then, frequency) in enumerate(users)]


def training() -> list[dict[str, Any]]:
    """Return rows in which a to e come next most often, though not in the first five; 11 of 30 users churn."""
    return [
        *part(TRAIN[0], "fghijabc", [5, 6, 7, 8, 9, 4, 6, 7], [1, 2, 3, 5]),
        *part(TRAIN[1], "aaabbccddee", [4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8], [1, 2, 3, 1, 2, 5, 6]),
    ]


def validation() -> list[dict[str, Any]]:
    """Return rows in which k comes next most often; three users churn, just those with up to 3 events."""
    return part(VALID[0], "kkkkklmno", [4, 5, 6, 7, 8, 9, 4, 5, 6], [1, 2, 3])


def rows_of_test() -> list[dict[str, Any]]:
    """Return rows of twelve users who come back, and of four who churn, one of whom nobody would expect to.

    The candidate is wrong on f and r, the champion right on the first a, f and g alone.
    """
    first, second = TEST
    return [
        row("ann", first, "a", 7, "a", "a", items="i1"),
        row("bob", first, "a", 7, "a", "c"),
        row("cem", first, "f", 2, "c", "f"),
        row("dan", first, "g", 3, "g", "g", items="i2"),
        row("eve", first, "h", 3, "h", "a", items="i3 i1"),
        row("fay", first, "", 1),
        row("gus", first, "", 1),
        row("ann", second, "k", 8, "k", "b"),
        row("bob", second, "l", 8, "l", "c"),
        row("cem", second, "m", 8, "m", "c"),
        row("dan", second, "n", 8, "n", "c"),
        row("eve", second, "q", 8, "q", "c"),
        row("hal", second, "r", 9, "c", "c"),
        row("ida", second, "t", 9, "t", "c"),
        row("jon", second, "", 1),
        row("kai", second, "", 5),
    ]


def elsewhere() -> list[dict[str, Any]]:
    """Return rows of dates that belong to no part: whoever reads them finds z, which nobody offers, and churn."""
    return [row(f"x{at}", day, "z" if at % 2 else "", 9) for day in (*GAP, AS_OF) for at in range(8)]


def done() -> list[dict[str, Any]]:
    """Return events: what users of the test had taken before their first date, and other things after it."""
    taken = [("ann", "i1", 20), ("dan", "i2", 20), ("eve", "i1", 21), ("eve", "i3", 22), ("u00", "i2", 3)]
    days = [(user, item, date(2025, 1, day)) for user, item, day in (*taken, ("z", "i1", 1))]
    days += [(user, "i2", day) for user in ("ann", "eve") for day in (date(2025, 2, 6), date(2025, 2, 13))]
    return [
        {
            "event_id": f"{number:02}", "user_id": user, "item_id": item, "dt": day, "landed": day,
            "event_time": datetime.combine(day, time(9)),
        }
        for number, (user, item, day) in enumerate(days)
    ]  # fmt: skip


class Told(StandIn):
    """Expects the category whose number the row holds, in a column that the card names; items i1, then i2."""

    seen: ClassVar[list[tuple[str, date]]] = []

    def __init__(self, card: dict[str, Any], items: list[str], categories: list[str]):
        super().__init__(card, items, categories)
        self.categories = Words(categories, {name: key_of(name) for name in categories})

    def predict(self, frame: pd.DataFrame) -> Prediction:
        self.seen += [(self.card["reads"], day.date()) for day in pd.to_datetime(frame["dt"])]
        said = super().predict(frame)
        said.categories = np.zeros((len(frame), len(self.category_ids)), np.float32)
        for at, number in enumerate(frame[self.card["reads"]]):
            said.categories[at, self.category_ids.index(CATEGORIES[number])] = 1
        said.items = np.zeros((len(frame), 20), np.int64)
        said.items[:, :2] = KEY["i1"], KEY["i2"]
        return said


def load(folder: str) -> Told:
    return Told(**json.loads((Path(folder) / "card.json").read_text()))


def trained(folder: Path, reads: str, categories: list[str] = CATEGORIES, name: str = "finetuned") -> str:
    """Leave a model that was trained, as model.finetune does."""
    phase = {"seconds": 1.0, "steps": 2, "rows": 3}
    epoch = {evaluate.LOSS: 1.0, "valid_recall_at_5": 0.5}
    more = {"cost": {"finetuned": phase}, "history": {"finetuned": [epoch]}, "kept": "finetuned", "code": "abc"}
    return save(folder, ("i1", "i2"), tuple(categories), name=name, reads=reads, **more)


# --- one run, measured once ----------------------------------------------------------------------------


@dataclass
class Measured:
    """What came out of a run, and what was read for it."""

    plan: TrainingPlan
    decision: Decision
    champion: int
    version: int
    read: list[tuple[int, list[date], int | None]] = field(default_factory=list)
    fitted: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    predicted: set[tuple[str, date]] = field(default_factory=set)

    def kept(self, name: str) -> pd.DataFrame:
        return pd.DataFrame(storage.read_json(f"{self.plan.folder}/evaluation/{name}.json")[name])

    def metric(self, task: str, metric: str, method: str = "model") -> float:
        table = self.kept("metrics")
        table = table[(table["slice"] == "all") & (table["task"] == task) & (table["metric"] == metric)]
        return float(table.set_index("method").loc[method, "value"])


def spied(patch: pytest.MonkeyPatch, found: Measured) -> None:
    """Write down what is read and what each baseline is fitted on; all of it happens as ever."""
    read, fit = evaluate.read_frame, Baseline.fit

    def read_frame(table: Table, days: Any, columns: Any = None, most_users: int | None = None) -> pd.DataFrame:
        found.read.append((table.version, list(days), most_users))
        return read(table, days, columns, most_users)

    def days_of(frame: pd.DataFrame) -> list[tuple[str, int]]:
        return [(str(day)[:10], len(rows)) for day, rows in frame.groupby("dt")]

    def fitted(self: Baseline, train: pd.DataFrame, valid: pd.DataFrame, categories: list[str]) -> Baseline:
        found.fitted[self.name] = [*days_of(train), *days_of(valid)]
        return fit(self, train, valid, categories)

    patch.setattr(evaluate, "read_frame", read_frame)
    patch.setattr(Baseline, "fit", fitted)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, mlflow_store):
    """Measure a run whose examples were published again after it was planned, beside champions of three dates."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("evaluate")
    patch.setenv("MEANDER_LAKE", str(folder / "lake"))
    patch.setenv("MEANDER_MIN_GROUP", "1")  # this shop has a few users
    patch.setattr(Told, "seen", [])
    shutil.copy(mlflow_store, folder / "mlflow.db")

    rows = [*training(), *validation(), *rows_of_test(), *elsewhere()]
    rows = [{**one, "dt": one["dt"].date()} for one in rows]
    stage_files("examples", "first", rows, sorted({one["dt"] for one in rows}), 1)
    publish("examples", "first")
    pinned = Table("examples").version
    stage_files("events", "first", done(), sorted({one["landed"] for one in done()}), 1)
    publish("events", "first")
    of_events = Table("events").version
    others = [{**one, "item_id": "i3"} for one in done()]
    stage_files("events", "later", others, sorted({one["landed"] for one in others}), 2)
    publish("events", "later")
    later = [{**one, "purchases": 0} for one in rows if one["dt"] in TEST]
    stage_files("examples", "later", later, TEST, 2)
    publish("examples", "later")

    champions = []
    for name, since in (("past", date(2025, 1, 1)), ("present", date(2025, 2, 12)), ("future", date(2025, 3, 1))):
        reads = "week_frequency" if name == "present" else "purchases"
        address = trained(folder / name, reads, OLD_CATEGORIES if name == "present" else CATEGORIES)
        with registry().start_run(name, "evaluate") as tracked:
            champions.append(registry().register(address, {"horizon_days": 7}, tracked))
        registry().promote(champions[-1], since)

    plan = TrainingPlan(
        "r", AS_OF, {"examples": pinned, "events": of_events}, [], TRAIN, VALID, TEST, 7, 30, 5, 50, None, SEED
    )
    plan.save()
    trained(Path(plan.folder, "scratch"), "week_frequency", name="scratch")
    with pytest.raises(ModelMissing, match=r"run 'r' has no model at .*finetuned; run model.finetune first"):
        evaluate.main(["--run-id", "r"], load)
    trained(Path(plan.folder, "finetuned"), "purchases")

    found = Measured(plan, None, champions[1], 0)
    with pytest.MonkeyPatch.context() as spying:
        spied(spying, found)
        # This shop has seven users with a next category, and its answers other than that are a stand-in's.
        spying.setattr(evaluate, "RULE", replace(evaluate.RULE, heads=(), fewest_users=5))
        found.decision = evaluate.main(["--run-id", "r", "--resamples", str(RESAMPLES)], load)
    found.version, found.predicted = registry().version_of("r"), set(Told.seen)
    yield found
    patch.undo()


def test_each_part_is_read_from_the_pinned_table_by_the_dates_of_the_plan(measured):
    pinned = measured.plan.tables["examples"]
    assert Table("examples").version > pinned
    # Baselines learn from 400,000 rows, of two dates here; a user has a row at each.
    assert measured.read == [(pinned, VALID, 20_000), (pinned, TEST, 20_000), (pinned, TRAIN, 200_000)]
    assert measured.predicted == {(name, day) for name in ("purchases", "week_frequency") for day in (*VALID, *TEST)}


def test_every_baseline_learns_from_all_rows_of_training_and_is_tuned_on_those_of_validation(measured):
    rows = [("2025-01-01", 12), ("2025-01-08", 18), ("2025-01-22", 12)]
    names = (
        "most popular", "last category", "current interest", "whole history", "decayed history", "Markov chain",
        "session kNN", "co-visited items", "tuned blend", "base rate", "logistic RFM", "boosted trees",
        "tuned blend of items", "boosted trees of items",
    )  # fmt: skip
    assert measured.fitted == dict.fromkeys(names, rows)
    # By the first five rows f to j would be popular (3 hits), by those of validation k to o (4), by the test f, g, ...
    assert measured.metric("next_category", "recall@5", "most popular") == pytest.approx(2 / 12)
    rate = 11 / 30
    assert measured.metric("churned", "brier", "base rate") == pytest.approx((4 * (1 - rate) ** 2 + 12 * rate**2) / 16)


def test_the_rows_that_are_measured_are_those_of_the_test(measured):
    metrics = measured.kept("metrics")
    sizes = metrics[metrics["slice"] == "all"].drop_duplicates("task").set_index("task")[["n", "users"]]
    assert sizes.loc["next_category"].tolist() == [12, 7]
    assert sizes.loc["churned"].tolist() == [16, 11]
    assert measured.metric("next_category", "recall@5") == pytest.approx(10 / 12)
    # i1 is offered first, i2 second. Of three users with items, two buy those; the third begins with i3.
    assert measured.metric("first_item", "mrr") == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert measured.metric("next_items", "mrr") == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_baselines_of_items_know_all_that_users_had_taken_by_the_date_of_a_row(measured):
    # All three users begin with what they took last; by the events that were published later it would be i3 for all.
    assert measured.metric("first_item", "mrr", "whole history") == 1
    assert measured.metric("next_items", "recall@20", "whole history") == 1
    rows = evaluate.Rows.read(measured.plan, 100, 100)
    # Of nobody else, and of nothing after the last test date: z is in no row, and u00 is in one of validation.
    assert {"ann", "dan", "eve", "u00"} < set(rows.history.users)
    assert "z" not in rows.history.users
    assert rows.history.events == 7
    without = evaluate.Rows.read(replace(measured.plan, tables={"examples": measured.plan.tables["examples"]}), 9, 9)
    assert without.history is None


def test_what_counts_as_predicted_is_chosen_on_validation(measured):
    # There users with up to 3 events churn, and no others, so a probability of 1/4 is enough. In the test three of the
    # four who churn reach it, and three who do not; only a threshold of 1/2, by the test itself, would tell them apart.
    found = {name: measured.metric("churned", name) for name in ("precision", "recall", "f1", "accuracy")}
    assert found == pytest.approx({"precision": 3 / 6, "recall": 3 / 4, "f1": 2 * 3 / (6 + 4), "accuracy": 12 / 16})

    train, valid, test = (examples(*rows) for rows in (training(), validation(), rows_of_test()))
    regression = RecencyFrequency().fit(train, valid, CATEGORIES)
    best = {}
    for name, frame in (("valid", valid), ("test", test)):
        said, truth = regression.binary(frame)["churned"], frame["churned"]
        level = max(sorted(set(said)), key=lambda level, said=said, truth=truth: f1_score(truth, said >= level))
        best[name] = f1_score(test["churned"], regression.binary(test)["churned"] >= level)
    assert best["test"] != pytest.approx(best["valid"]), "else this shows nothing"
    assert measured.metric("churned", "f1", "logistic RFM") == pytest.approx(best["valid"])


def test_the_champion_is_that_of_the_date_and_speaks_in_its_own_order_of_categories(measured):
    # The one since March, which came later, would be right as often as the candidate.
    assert measured.metric("next_category", "recall@5", "champion") == pytest.approx(3 / 12)
    assert measured.metric("next_category", "recall@5", "from scratch") == pytest.approx(3 / 12)


def test_the_bounds_of_the_gate_are_those_of_a_paired_bootstrap_over_users(measured):
    rows = sorted(rows_of_test(), key=lambda one: (one["dt"], one["user_id"]))

    def gain(one: dict[str, Any]) -> float:
        truth = one["next_category"] and CATEGORIES.index(one["next_category"])
        return np.nan if truth is None else float(one["purchases"] == truth) - float(one["week_frequency"] == truth)

    gains = np.array([gain(one) for one in rows])
    samples = resampled([one["user_id"] for one in rows], lambda drawn: np.nanmean(gains[drawn]), RESAMPLES, SEED)
    table = measured.kept("differences")
    table = table[(table["task"] == "next_category") & (table["metric"] == "recall@5") & (table["slice"] == "all")]
    found = table.set_index("against").loc["champion", ["value", "low", "high"]].tolist()
    assert found == pytest.approx([7 / 12, *middle(samples)])
    assert set(table["method"]) == {"model"}
    against = measured.decision.checks.set_index("against").loc["the champion"]
    assert against.iloc[0][["gain", "low", "high"]].tolist() == pytest.approx(found)


def test_all_but_other_networks_of_the_run_have_to_be_beaten(measured):
    asked = set(measured.decision.checks["against"])
    of_others = ("base rate", "logistic RFM", "co-visited items", "tuned blend of items", "boosted trees of items")
    assert asked == {"the champion", "the same network from scratch"} | {
        f"baseline {name}" for name in measured.fitted if name not in of_others
    }
    assert measured.decision.promote
    kept = storage.read_json(f"{measured.plan.folder}/evaluation/decision.json")
    assert (kept["promote"], kept["reasons"]) == (True, measured.decision.reasons)
    page = Path(measured.plan.folder, "evaluation", "report.html").read_text()
    assert "Promoted to champion" in page


def test_the_candidate_is_registered_and_what_was_found_is_what_it_promises(measured):
    assert registry().candidate() == measured.version
    card = json.loads(Path(registry().artifact_folder(measured.version), "card.json").read_text())["card"]
    assert (card["name"], card["reads"]) == ("finetuned", "purchases")
    run = registry().client.get_model_version("meander", str(measured.version)).run_id
    kept = registry().client.get_run(run).data
    assert kept.metrics["next_category/recall_at_5/all"] == pytest.approx(10 / 12)
    assert kept.tags["table.examples"] == str(measured.plan.tables["examples"])
    # Of the two events of each sequence one is of i1, which is known, and one of i3, which is not.
    assert kept.metrics["items_unknown"] == pytest.approx(1 / 2)
    # What the monitor compares with, weeks later.
    value, low = monitor.evaluation_of(measured.version, registry())["recall@5"]
    assert value == pytest.approx(10 / 12)
    assert low < 10 / 12


def test_without_a_full_training_the_adapters_are_the_candidate(measured):
    plan = replace(measured.plan, run_id="adapters")
    trained(Path(plan.folder, "lora"), "purchases", name="lora")
    found = evaluate.models(plan, registry(), load)
    assert (list(found), found["model"].card["name"]) == (["model", "champion"], "lora")


def test_a_champion_that_answers_another_question_is_left_out_and_told(measured, caplog):
    longer = replace(measured.plan, horizon_days=28)
    assert "champion" not in evaluate.models(longer, registry(), load)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "model.evaluate"]
    assert warning.startswith(
        f"the champion, version {measured.champion}, learnt with MEANDER_HORIZON_DAYS=7, and this training has 28: "
    )


def test_a_champion_from_before_weights_could_be_chosen_learnt_with_those_of_then(measured, caplog):
    heavier = replace(measured.plan, behavior_weights="view=1,search=1,favorite=2,cart=3,purchase=9")
    assert "champion" not in evaluate.models(heavier, registry(), load)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "model.evaluate"]
    assert warning.startswith(
        f"the champion, version {measured.champion}, learnt with MEANDER_BEHAVIOR_WEIGHTS=view=1,search=1,favorite=2,"
        "cart=3,purchase=4, and this training has view=1,search=1,favorite=2,cart=3,purchase=9: "
    )


def test_a_champion_with_other_heads_is_left_out_and_told(measured, caplog):
    def load_checked(folder):
        if folder == registry().artifact_folder(measured.champion):
            raise HeadsDiffer("it has other heads")
        return load(folder)

    assert list(evaluate.models(measured.plan, registry(), load_checked)) == ["model", "from scratch"]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "model.evaluate"]
    assert warning == (
        f"the champion, version {measured.champion}, is left out, and only the baselines have to be beaten: "
        "it has other heads [docs/runbook.md#heads-differ]"
    )


def test_what_a_training_took_is_told_by_phase_with_its_best_epoch(measured):
    model, plan = evaluate.models(measured.plan, registry(), load)["model"], replace(measured.plan, run_id="costs")
    storage.write_json(f"{plan.folder}/pretrained/card.json", {"cost": {"seconds": 60.0, "steps": 9, "rows": 120}})
    epochs = [{evaluate.LOSS: loss, "valid_recall_at_5": recall} for loss, recall in ((2, 0.1), (1, 0.2), (3, 0.3))]
    model.card["cost"] |= {"heads": {"seconds": 10.0, "steps": 1_200, "rows": 3_000}}
    model.card["history"] |= {"heads": epochs}
    # The phase of the binary answers says nothing of the next category.
    model.card["cost"] = {"answers": {"seconds": 2.0, "steps": 4, "rows": 8}} | model.card["cost"]
    model.card["history"] |= {"answers": [{"valid_loss": 1.0}]}
    found = evaluate.costs_of({"model": model, "champion": model}, plan)
    assert found.to_numpy().tolist() == [
        ["pretraining", "", "60", "9", "2", "", "", ""],
        ["model", "heads", "10", "1,200", "300", "1.0000", "0.2000", ""],
        ["model", "finetuned", "1", "2", "3", "1.0000", "0.5000", "yes"],
        ["model", "answers", "2", "4", "4", "", "", ""],
    ]
    model.card["answers_kept"] = True
    assert evaluate.costs_of({"model": model}, plan)["kept"].tolist() == ["", "", "yes", "yes"]


def test_what_other_models_say_is_held_no_longer_than_it_takes_to_score_it(measured, monkeypatch):
    held, alive, by = [], [], evaluate.Said.by

    def noted(artifact: Any, rows: Any) -> Any:
        alive.append(sum(one() is not None for one in held))
        said = by(artifact, rows)
        held.append(weakref.ref(said))
        return said

    monkeypatch.setattr(evaluate.Said, "by", staticmethod(noted))
    monkeypatch.setattr(evaluate, "cheap_baselines", lambda *_: [])
    monkeypatch.setattr(evaluate, "item_methods", lambda *_: [])
    artifacts = evaluate.models(measured.plan, registry(), load)
    rows = evaluate.Rows.read(measured.plan, 100, 100)
    methods, _ = evaluate.answers(artifacts, rows, SEED, 1)
    assert [method.name for method in methods[:3]] == ["model", "from scratch", "champion"]
    # The candidate's alone, since its stack is made from it.
    assert alive == [0, 1, 1]


def test_the_candidate_becomes_champion_from_the_date_of_its_training_on(measured):
    assert registry().champion_at(AS_OF) == measured.champion
    promote.main(["--run-id", "r"])
    before, later = AS_OF - timedelta(days=1), date(2025, 3, 1)
    assert [registry().champion_at(day) for day in (before, AS_OF)] == [measured.champion, measured.version]
    assert registry().champion_at(later) not in (measured.champion, measured.version)
    # Evaluated once more, the run meets the champion that it has met before, not itself.
    assert evaluate.comparable_champion(measured.plan, registry()) == measured.champion


# --- a candidate that gains by trees ---------------------------------------------------------------------

SHOP = [f"c{n:02d}" for n in range(12)]
SHOP_DAYS = {
    "train": [date(2024, 1, 6), date(2024, 1, 13)],
    "valid": [date(2024, 2, 10)],
    "test": [date(2024, 3, 9)],
}  # fmt: skip


class Blunt(StandIn):
    """Knows nothing of a user: all categories are alike, and each answer is even."""

    def predict(self, frame: pd.DataFrame) -> Prediction:
        said = super().predict(frame)
        said.categories = np.full((len(frame), len(self.category_ids)), 1 / len(self.category_ids), np.float32)
        said.items = np.zeros((len(frame), 20), np.int64)
        said.answers = {name: np.full(len(frame), 0.5, np.float32) for name in said.answers}
        return said


def load_blunt(folder: str) -> Blunt:
    return Blunt(**json.loads((Path(folder) / "card.json").read_text()))


@pytest.fixture(scope="module")
def of_habits(measured):
    """Return what plans a run, in a shop of habits, and leaves a candidate with some card. Its trees grow quickly."""
    days = [str(day) for part in SHOP_DAYS.values() for day in part]
    rows = [
        {**one, "dt": one["dt"].date(), "migrated": None if pd.isna(one["migrated"]) else bool(one["migrated"])}
        for one in shop(300, days, seed=4).to_dict("records")
    ]
    stage_files("examples", "shop", rows, sorted({one["dt"] for one in rows}), 3)
    publish("examples", "shop")
    version = Table("examples").version
    patch = pytest.MonkeyPatch()
    patch.setattr(evaluate, "BoostedTrees", functools.partial(BoostedTrees, rounds=30, threads=1))

    def plan(run_id: str, **card: Any) -> TrainingPlan:
        planned = replace(
            measured.plan, run_id=run_id, as_of=date(2024, 4, 1), tables={"examples": version}, **SHOP_DAYS
        )
        planned.save()
        phase = {"cost": {}, "history": {}, "kept": "finetuned", "code": "abc"}
        save(Path(planned.folder, "finetuned"), ("i1",), tuple(SHOP), name="finetuned", **phase, **card)
        return planned

    yield plan
    patch.undo()


def test_a_candidate_that_gains_by_trees_is_judged_and_registered_as_a_stack(of_habits):
    plan = of_habits("stacked")
    evaluate.main(["--run-id", "stacked", "--resamples", "20"], load_blunt)
    metrics = pd.DataFrame(storage.read_json(f"{plan.folder}/evaluation/metrics.json")["metrics"])
    metrics = metrics[metrics["slice"] == "all"].set_index(["task", "metric", "method"])["value"].sort_index()
    for task, metric in (("next_category", "recall@1"), ("churned", "roc_auc")):
        found = metrics[task, metric]
        assert found["model"] > found["network alone"] + 0.1
    differences = pd.DataFrame(storage.read_json(f"{plan.folder}/evaluation/differences.json")["differences"])
    assert set(differences["method"]) == {"model", "network alone"}
    decision = storage.read_json(f"{plan.folder}/evaluation/decision.json")
    assert "baseline network alone" not in {check["against"] for check in decision["checks"]}

    version = registry().version_of("stacked")
    folder = registry().artifact_folder(version)
    card = json.loads(Path(folder, "card.json").read_text())["card"]
    assert set(card["stack"]["answers"]) >= {"churned"}
    assert card["stack"]["category"]["trees"] > 0.5
    assert card["stack"]["gains"][0].startswith("next_category: with trees; log loss 2.48")
    # What is registered says what was measured.
    candidate = load_blunt(folder)
    candidate.stack = Stack.load(folder, card, SHOP)
    rows = shop(60, [str(SHOP_DAYS["test"][0])], seed=9)
    assert candidate.stack.applied(candidate.predict(rows), rows).answers["churned"].std() > 0.1
    # Segments begin, and sets reach, where the answers of both have them.
    assert card["segment_thresholds"]["at_risk"] != 0.5
    assert 0 < card["set_reach"] < 1
    page = Path(plan.folder, "evaluation", "report.html").read_text()
    assert "stack, next_category" in page
    assert "log loss 2.48" in page
    # Evaluated again, it is the same version; and without a stack, nothing of the earlier one is left.
    evaluate.main(["--run-id", "stacked", "--resamples", "20"], load_blunt)
    assert registry().version_of("stacked") == version
    assert Path(plan.folder, "candidate", "trees", "trees.json").exists()
    seen = []

    def fit_stack(trees: Any, categories: Any, answers: Any, valid: pd.DataFrame, seed: int) -> tuple[None, list[Any]]:
        seen.append((set(valid["dt"]), len(valid), len(categories), len(answers["churned"]), seed))
        return None, []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "fit_stack", fit_stack)
        evaluate.main(["--run-id", "stacked", "--resamples", "20"], load_blunt)
    assert not Path(plan.folder, "candidate", "trees", "trees.json").exists()
    # Where fewer users than a group needs have told, neither card nor page has their numbers.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_MIN_GROUP", "301")
        evaluate.main(["--run-id", "stacked", "--resamples", "20"], load_blunt)
    card = json.loads(Path(plan.folder, "candidate", "card.json").read_text())["card"]
    assert re.fullmatch(
        r"next_category: with trees; \d+ users are too few to show numbers of", card["stack"]["gains"][0]
    )
    page = Path(plan.folder, "evaluation", "report.html").read_text()
    assert "log loss 2.48" not in page
    # It was offered the rows of validation, and nothing of the test.
    assert seen == [(set(SHOP_DAYS["valid"]), 300, 300, 300, SEED)]


def test_a_network_with_differential_privacy_gets_no_trees(of_habits):
    plan = of_habits("private", epsilon=2.0, delta=1e-5, privacy={})
    evaluate.main(["--run-id", "private", "--resamples", "20"], load_blunt)
    folder = registry().artifact_folder(registry().version_of("private"))
    assert "stack" not in json.loads(Path(folder, "card.json").read_text())["card"]
    assert not Path(folder, "trees").exists()
    assert "network alone" not in Path(plan.folder, "evaluation", "metrics.json").read_text()
