"""Bulk scoring: each user once, whatever the layout; the version that is pinned; and a day from states to readers."""

import json
import logging
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from lake.errors import ModelMissing, TableMissing
from lake.publish import publish
from lake.staging import Verdict, write_verdict
from lake.table import Table
from model import registry
from model.score import SegmentRule, main, predictions, segments
from tests.model.standin_artifact import KEY, load, save
from tests.model.states import DAY, T, frame, state

RULE = SegmentRule(new_days=30, new_events=5)


@pytest.fixture
def scored(spark, tmp_path):
    """Score states with a stand-in and return the rows by user; a user who is there twice fails."""
    address = save(tmp_path / "artifact")

    def score(rows, partitions=1):
        found = predictions(frame(spark, rows).repartition(partitions), address, 3, RULE, load).collect()
        assert len({row.user_id for row in found}) == len(found)
        return {row.user_id: row for row in found}

    return score


# ---- what a prediction says ----


@pytest.mark.spark
def test_a_prediction_says_what_the_model_says_in_words_of_the_shop(scored):
    row = scored([state("u")])["u"].asDict()
    assert row.pop("category_probabilities") == pytest.approx([0.8, 0.2])
    assert row.pop("item_probabilities") == pytest.approx([6 / 13, 4 / 13, 3 / 13])
    assert row.pop("migration_probability") == pytest.approx(0.2)
    assert row == {
        "user_id": "u",
        "model_version": 3,
        "category_ids": ["a", "b"],
        "current_category": "a",
        "purchase_probability": 2 / 3,
        "churn_probability": 1 / 3,
        # The model does not know i3, but the user had it, and it may come again.
        "item_ids": ["i3", "i1", "i2"],
        "surprise": 0.5,
        "risk_percentile": 50.0,
        "segment": "stable",
        "unseen_events": 1,  # i3
        "dt": T,
    }


@pytest.mark.spark
def test_what_cannot_be_said_is_null_and_what_is_not_there_counts_as_nothing(scored):
    empty = {
        "item_keys": [0],
        "item_ids": [None],
        "category_keys": [0],
        "behaviors": [2],
        "event_seconds": [1],
        "gap_seconds": [0],
    }
    nothing = {name: [] for name in ("current_categories", "current_counts", "current_shares")}
    row = scored([state("u", **empty, **nothing, dominant_category=None)])["u"]
    assert (row.surprise, row.risk_percentile, row.current_category) == (None, None, None)
    assert row.unseen_events == 0, "a search has no item, so it has none that is unknown"
    assert row.item_ids == ["i1", "i2"], "nor one that may come again"


def test_a_user_is_in_the_first_segment_that_applies():
    days, events = np.array([30, 31, 31, 31, 31, 31]) * DAY, np.array([99, 4, 5, 5, 5, 5])
    churned, migrated = np.array([1, 1, 0.6, 0.59, 0.59, 0]), np.array([1, 1, 1, 0.5, 0.49, 0])
    rule = RULE.with_thresholds_of({"segment_thresholds": {"at_risk": 0.6, "migrating": 0.5}})
    found = segments(events, days, churned, migrated, rule).tolist()
    assert found == ["new", "new", "at_risk", "migrating", "stable", "stable"]
    assert RULE.with_thresholds_of({}) == RULE


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
def test_one_partition_many_partitions_and_twice_give_the_same_rows(spark, scored, monkeypatch):
    rows = users(300)
    once = scored(rows)
    assert sorted(once) == [row["user_id"] for row in rows]
    assert {row.segment for row in once.values()} == {"new", "stable", "at_risk", "migrating"}
    assert scored(rows) == once
    assert scored(rows, partitions=7) == once
    default = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    try:
        # Spark's batches and ours are cut elsewhere now, and some partitions are empty.
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "17")
        assert scored(rows[:20], partitions=50) == {user: once[user] for user in sorted(once)[:20]}
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", default)


@pytest.mark.spark
def test_a_model_is_loaded_once_in_each_worker(scored, tmp_path):
    for _ in range(3):
        scored(users(40), partitions=4)
    loads = (tmp_path / "artifact.loads").read_text().splitlines()
    # At most two tasks run at once here, so there are two workers or three; not the twelve of the tasks.
    assert 1 <= len(loads) <= 4


# ---- the command, on a lake ----


@pytest.fixture
def shop(lake, mlflow_store, land, spark):
    """A lake with the interests of two days, made by the jobs, and an empty registry beside it."""
    from jobs import ingest, interests

    shutil.copy(mlflow_store, lake / "mlflow.db")
    for day in (1, 2):
        event = {"event_time": f"2017-07-0{day}T10:00:00Z", "behavior": "view", "item_id": "i1", "category_id": "a"}
        land(f"2017-07-0{day}", [{**event, "user_id": user} for user in ("ann", "bob", f"new on {day}")])
    days = ["--from", "2017-07-01", "--to", "2017-07-02", "--run-id", "load"]
    for job in (ingest, interests):
        staged = job.main(days)
        for one in staged if isinstance(staged, list) else [staged]:
            write_verdict(Verdict(one.table, "load", one.stage_id, "passed", [], "", 0.0))
            publish(one.table, "load")
    return lake


def version(lake, name, **card):
    folder = save(lake / "trained" / name, **card)
    with registry.start_run(name, "evaluate") as tracked:
        return registry.register(folder, card, tracked)


def score(day, run_id, *arguments):
    return main(["--day", str(day), "--run-id", run_id, *arguments], load)


@pytest.mark.spark
def test_a_day_is_scored_audited_and_published(spark, shop, caplog):
    from expectations import audit

    registry.promote(version(shop, "one"), T)
    with caplog.at_level(logging.INFO, "model.score"):
        staged = score(T + timedelta(days=1), "daily")
    # Whatever other loggers say depends on which tests ran before.
    (said,) = [record.getMessage() for record in caplog.records if record.name == "model.score"]
    assert said.startswith("staged predictions of version 1 for 4 users at 2017-07-02; 0.0 % of 6 events")
    assert staged.counts == {"model_version": 1, "as_of": "2017-07-02", "events": 6, "unseen_events": 0}
    assert staged.inputs == {"interests": Table("interests").version}

    audit.main(["--table", "predictions", "--run-id", "daily"])
    published = publish("predictions", "daily")
    assert (published["verdict"], published["rows"]) == ("passed", 4)
    rows = Table("predictions").head(T + timedelta(days=1), 10)
    assert sorted(row["user_id"] for row in rows) == ["ann", "bob", "new on 1", "new on 2"]
    assert {row["model_version"] for row in rows} == {1}
    commit = Table("predictions").commits()[0]
    assert json.loads(commit["counts"])["model_version"] == 1
    assert json.loads(commit["inputs"]) == staged.inputs


@pytest.mark.spark
def test_a_past_day_is_scored_by_the_champion_of_that_day_and_on_request_by_any(shop):
    old, new = version(shop, "old"), version(shop, "new", horizon_days=7)
    registry.promote(old, T)
    registry.promote(new, T + timedelta(days=1))

    def by(day, *arguments):
        return score(day, f"run {day} {arguments}", *arguments).counts["model_version"]

    assert (by(T), by(T + timedelta(days=1)), by(T, "--model-version", str(new))) == (old, new, new)


@pytest.mark.spark
def test_a_later_staging_replaces_an_earlier_one_by_whichever_version(shop):
    old, new = version(shop, "old"), version(shop, "new", horizon_days=7)
    for run_id, number in (("first", new), ("second", old)):
        staged = score(T, run_id, "--model-version", str(number))
        write_verdict(Verdict("predictions", run_id, staged.stage_id, "passed", [], "", 0.0))
    assert publish("predictions", "first")["refused"] == []
    assert publish("predictions", "second")["refused"] == []
    assert {row["model_version"] for row in Table("predictions").head(T, 10)} == {old}


def test_what_is_not_there_is_named_before_spark_starts(lake, mlflow_store, land):
    from tests.lake.stagings import stage_files

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
