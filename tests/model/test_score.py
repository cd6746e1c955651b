"""Bulk scoring: each user once, whatever the layout; the version that is pinned; and a day from states to readers."""

import json
import logging
import shutil
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql.pandas.types import to_arrow_schema

from lake.errors import HeadsDiffer, ModelMissing, TableMissing
from lake.labels import NAMES, PROBABILITIES
from lake.publish import publish
from lake.schemas import INTERESTS
from lake.table import Table
from model.score import main, predict_rows, predictions
from tests.lake.stagings import audit, stage_files
from tests.model.standin_artifact import CARD, KEY, load, registry, save
from tests.model.states import DAY, T, frame, state


def alone(address, rows):
    """Score states in this process, all at once, and return what is said by user."""
    batch = pa.RecordBatch.from_pylist(rows, to_arrow_schema(INTERESTS))
    return {row["user_id"]: row for row in predict_rows(load(address), 3, batch).to_pylist()}


@pytest.fixture
def scored(spark, tmp_path):
    """Score states with a stand-in by Spark and return what is said by user; a user who is there twice fails."""
    address = save(tmp_path / "artifact")

    def score(rows, partitions=1):
        found = predictions(frame(spark, rows).repartition(partitions), address, 3, load).collect()
        assert len({row.user_id for row in found}) == len(found)
        return {row.user_id: row.asDict() for row in found}

    return score


# ---- what a prediction says ----


def test_a_prediction_says_what_the_model_says_in_words_of_the_shop(tmp_path):
    row = alone(save(tmp_path / "artifact"), [state("u")])["u"]
    assert row.pop("category_probabilities") == pytest.approx([0.8, 0.2])
    assert row.pop("item_probabilities") == pytest.approx([6 / 13, 4 / 13, 3 / 13])
    answers = {"migration_probability": 0.2, "purchase_probability": 2 / 3, "churn_probability": 1 / 3}
    expected = dict.fromkeys(PROBABILITIES, 0.5) | answers
    assert {name: row.pop(name) for name in PROBABILITIES} == pytest.approx(expected)
    assert row == {
        "user_id": "u",
        "model_version": 3,
        "category_ids": ["a", "b"],
        "current_category": "a",
        # The model does not know i3, but the user had it, and it may come again.
        "item_ids": ["i3", "i1", "i2"],
        "surprise": 0.5,
        "risk_percentile": 50.0,
        "segment": "stable",
        "unseen_events": 1,  # i3
        "dt": T,
    }


def test_of_many_categories_the_ten_likeliest_are_named_best_first(tmp_path):
    names, shares = list("abcdefghijkl"), [0.01, 0.02, 0.2, 0.1, 0.05, 0.06, 0.07, 0.08, 0.09, 0.11, 0.12, 0.09]
    row = alone(
        save(tmp_path / "artifact", categories=tuple(names)),
        [state("u", current_categories=names, current_counts=[1] * 12, current_shares=shares)],
    )["u"]
    # i stands before l, which has the same share.
    assert "".join(row["category_ids"]) == "ckjdilhgfe"
    assert row["category_probabilities"] == pytest.approx(sorted(shares, reverse=True)[:10])


def test_what_cannot_be_said_is_null_and_what_is_not_there_counts_as_nothing(tmp_path):
    empty = {
        "item_keys": [0],
        "item_ids": [None],
        "category_keys": [0],
        "behaviors": [2],
        "event_seconds": [1],
        "gap_seconds": [0],
    }
    nothing = {name: [] for name in ("current_categories", "current_counts", "current_shares")}
    row = alone(save(tmp_path / "artifact"), [state("u", **empty, **nothing, dominant_category=None)])["u"]
    assert (row["surprise"], row["risk_percentile"], row["current_category"]) == (None, None, None)
    assert row["unseen_events"] == 0, "a search has no item, so it has none that is unknown"
    assert row["item_ids"] == ["i1", "i2"], "nor one that may come again"


# ---- how it is made ----


def users(n):
    """Make users of whom no two are alike."""
    return [
        state(
            f"u{i:04}",
            frequency=1 + i % 7,
            tenure_seconds=i * DAY,
            item_keys=[KEY["i1"], KEY["i2"], KEY["i3"]][: 1 + i % 3],
            item_ids=["i1", "i2", "i3"][: 1 + i % 3],
            current_categories=["a", "b", "other"][: 1 + i % 3],
            current_shares=[[1.0], [0.7, 0.3], [0.4, 0.3, 0.3]][i % 3],
        )
        for i in range(n)
    ]


@pytest.mark.spark
def test_spark_says_what_one_process_says_however_the_rows_are_cut_and_loads_a_model_once_a_worker(
    spark, scored, tmp_path
):
    rows = users(300)
    once = alone(str(tmp_path / "artifact"), rows)
    assert sorted(once) == [row["user_id"] for row in rows]
    assert {row["segment"] for row in once.values()} == {"new", "stable", "at_risk", "migrating"}
    loads = tmp_path / "artifact.loads"
    loads.unlink()
    assert scored(rows, partitions=4) == once
    default = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    try:
        # Spark's batches are cut elsewhere now.
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "3")
        for _ in range(2):
            assert scored(rows[:20], partitions=4) == {user: once[user] for user in sorted(once)[:20]}
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", default)
    # At most four tasks run at once, on however many cores, so there are four workers at most, not the twelve of tasks.
    assert 1 <= len(loads.read_text().splitlines()) <= 4


# ---- the command, on a lake ----

TOMORROW = T + timedelta(days=1)
# Who is known for more than W = 30 days and by m = 5 events is not new; what comes then are the model's thresholds.
SEGMENTS = {
    # Known for more days than m and by fewer events than W: neither may stand in the other's place.
    "settled": ({"tenure_seconds": 60 * DAY, "history_events": 10}, "stable"),
    "one day more": ({"tenure_seconds": 31 * DAY}, "stable"),
    "thirty days": ({"tenure_seconds": 30 * DAY, "history_events": 99}, "new"),
    "five events": ({"history_events": 5}, "stable"),
    "four events": ({"history_events": 4}, "new"),
    # Of one event in the lookback the stand-in expects churn with 1/2; the threshold is 0.4.
    "leaving": ({"frequency": 1}, "at_risk"),
    # 1 - 0.45 is above the threshold of 0.5.
    "moving on": ({"current_shares": [0.4, 0.45]}, "migrating"),
}


@pytest.fixture
def shop(lake, mlflow_store):
    """A lake with the states of two days, one user on the first, and two versions of a model: first the older one.

    The older version was promoted for T, the newer one for the day after, and a third for the day after that.
    """
    shutil.copy(mlflow_store, lake / "mlflow.db")
    rows = [state("gone", item_keys=[KEY["i1"], KEY["i2"]])]
    rows += [state(user, dt=TOMORROW, **changes) for user, (changes, _) in SEGMENTS.items()]
    stage_files("interests", "load", rows, [T, TOMORROW], 1)
    publish("interests", "load")
    for days, (name, card) in enumerate({"old": {}, "new": {"horizon_days": 7}, "next": {"horizon_days": 9}}.items()):
        folder = save(lake / "trained" / name, **card)
        with registry().start_run(name, "evaluate") as tracked:
            registry().promote(registry().register(folder, {**CARD, **card}, tracked), T + timedelta(days=days))
    return lake


def score(day, run_id, *arguments):
    staged = main(["--day", str(day), "--run-id", run_id, *arguments], load)
    audit(staged)
    return staged


@pytest.mark.spark
def test_a_day_is_scored_by_its_champion_and_published(spark, shop, caplog):
    with caplog.at_level(logging.INFO, "model.score"):
        staged = score(TOMORROW, "daily")
    # Whatever other loggers say depends on which tests ran before. Each user has two events, one of the unknown i3.
    (said,) = [record.getMessage() for record in caplog.records if record.name == "model.score"]
    assert said.startswith("staged predictions of version 2 for 7 users at 2017-07-02; 50.0 % of 14 events")
    assert staged.counts == {"model_version": 2, "as_of": "2017-07-02", "events": 14, "unseen_events": 7}
    assert staged.inputs == {"interests": Table("interests").version}
    assert staged.owns == [TOMORROW]

    assert publish("predictions", "daily")["rows"] == 7
    assert Table("predictions").rows_by("dt") == {TOMORROW: 7}
    rows = Table("predictions").head(TOMORROW, 10)
    assert {row["user_id"]: row["segment"] for row in rows} == {user: name for user, (_, name) in SEGMENTS.items()}
    assert {row["model_version"] for row in rows} == {2}
    commit = Table("predictions").commits()[0]
    assert json.loads(commit["counts"])["model_version"] == 2
    assert json.loads(commit["inputs"]) == staged.inputs


@pytest.mark.spark
def test_segments_go_by_what_the_model_was_made_with_and_other_interests_are_told(shop, monkeypatch, caplog):
    # What is set today is neither what the model learnt with (30 and 5) nor what these interests were made with.
    monkeypatch.setenv("MEANDER_LOOKBACK_DAYS", "99")
    monkeypatch.setenv("MEANDER_MIN_EVENTS", "99")
    rows = [state(user, dt=TOMORROW, **changes) for user, (changes, _) in SEGMENTS.items()]
    counts = {"as_of": [str(TOMORROW)], "include_late": False, "lookback_days": 14}
    stage_files("interests", "again", rows, [TOMORROW], 2, counts=counts)
    publish("interests", "again")
    with caplog.at_level(logging.WARNING, "model.score"):
        score(TOMORROW, "daily")
        (warning,) = [record.getMessage() for record in caplog.records if record.name == "model.score"]
        assert warning.startswith(
            "the interests at 2017-07-02 were made with MEANDER_LOOKBACK_DAYS=14, and version 2 learnt from such of "
        )
        caplog.clear()
        score(T, "the day before, whose interests say nothing")
        assert [record for record in caplog.records if record.name == "model.score"] == []
    publish("predictions", "daily")
    rows = Table("predictions").head(TOMORROW, 10)
    assert {row["user_id"]: row["segment"] for row in rows} == {user: name for user, (_, name) in SEGMENTS.items()}


@pytest.mark.spark
def test_a_later_staging_replaces_an_earlier_one_by_whichever_version(shop):
    assert score(T, "first", "--model-version", "2").counts["model_version"] == 2
    # The champion on T is the older version, though two came after it.
    assert score(T, "second").counts["model_version"] == 1
    assert publish("predictions", "first")["refused"] == []
    assert publish("predictions", "second")["refused"] == []
    assert [(row["user_id"], row["model_version"]) for row in Table("predictions").head(T, 10)] == [("gone", 1)]


@pytest.mark.spark
def test_few_users_are_scored_by_this_process_and_many_by_workers_with_the_same_rows(shop, monkeypatch):
    here = []

    def load_here(address):
        here.append(address)  # of a worker, this stays in the worker
        return load(address)

    found = {}
    for name, rows_per_task, loads in (("few", 7, 1), ("many", 6, 0)):
        monkeypatch.setattr("model.score.ROWS_PER_TASK", rows_per_task)
        here.clear()
        staged = main(["--day", str(TOMORROW), "--run-id", name], load_here)
        assert len(here) == loads
        assert staged.counts == {"model_version": 2, "as_of": "2017-07-02", "events": 14, "unseen_events": 7}
        audit(staged)
        publish("predictions", name)
        rows = Table("predictions").head(TOMORROW, 10)
        found[name] = sorted(rows, key=lambda row: row["user_id"])
    assert len(found["few"]) == 7
    assert found["few"] == found["many"]


def test_what_is_not_there_is_named_before_spark_starts(lake, mlflow_store):
    with pytest.raises(TableMissing, match=r"interests has no published version"):
        score(T, "r")
    stage_files("interests", "one day", [{"user_id": "u", "dt": T}], [T], 1)
    publish("interests", "one day")
    with pytest.raises(TableMissing, match=r"the interests at 2017-07-02 are not published yet; run jobs.interests"):
        score(date(2017, 7, 2), "r")
    shutil.copy(mlflow_store, lake / "mlflow.db")
    with pytest.raises(ModelMissing, match=r"no version of meander was champion on 2017-07-01"):
        score(T, "r")
    with pytest.raises(ModelMissing, match=r"there is no version 5 of meander"):
        score(T, "r", "--model-version", "5")
    assert not list(Path(lake).rglob("predictions"))


def test_a_model_with_other_heads_is_refused_before_spark_starts(lake, mlflow_store):
    stage_files("interests", "one day", [{"user_id": "u", "dt": T}], [T], 1)
    publish("interests", "one day")
    shutil.copy(mlflow_store, lake / "mlflow.db")
    folder = Path(save(lake / "artifact"))
    (folder / "finetuned.weights.h5").touch()
    (folder / "network.json").write_text(json.dumps({"binary": [*NAMES, "subscribed"]}))
    with registry().start_run("r", "evaluate") as tracked:
        registry().promote(registry().register(str(folder), {}, tracked), T)
    with pytest.raises(HeadsDiffer, match=r"has the heads .*, subscribed, and lake/labels.py lists "):
        score(T, "r")
    assert not list(Path(lake).rglob("predictions"))
