"""One user explained: what they did, what the model says, why they are in their segment, in words of the shop."""

import shutil
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql.pandas.types import to_arrow_schema

from lake.errors import ModelMissing, SettingsInvalid, TableMissing
from lake.labels import NAMES
from lake.publish import publish
from lake.schemas import INTERESTS
from model.explain import CategorySet, Event, Side, explain, explanation, in_words
from model.versions.stack import Stack
from tests.lake.stagings import stage_files
from tests.model.standin_artifact import KEY, load, registry, save
from tests.model.states import DAY, END, T, state


@pytest.fixture
def explained(tmp_path):
    """Explain one state by a stand-in."""

    def build(lookback_days=None, card=(), **changes):
        row = pa.Table.from_pylist([state("u", **changes)], to_arrow_schema(INTERESTS)).to_batches()[0]
        return explanation(load(save(tmp_path / "artifact", **dict(card))), 3, row, lookback_days)

    return build


def test_an_explanation_in_words(explained):
    assert (
        in_words(explained())
        == """\
user u at the end of 2017-07-01, by version 3 of the model

Last 2 of 2 events, and how much of its attention each got:
  1 h before     purchase  i1  a  67 %
  2 days before  view      i3  b  33 %
  1 of them have an item that the model does not know
Interest of the last 30 days: a 80 %, b 20 %
Interest of the whole history: a 75 %, b 25 %

Expected of the next 28 days:
  category: a 80 %, b 20 %
  item:     i3 46 %, i1 31 %, i2 23 %
  moves on to another main category 20 %, buys 67 %, does nothing at all 33 %
  risk: recent events are more surprising than those of 50 % of users
Segment stable: leaving (33 %) and moving on (20 %) stay below the thresholds of 40 % and 50 %."""
    )


def test_what_the_model_learnt_with_is_what_counts_and_other_interests_are_told(explained, monkeypatch):
    monkeypatch.setenv("MEANDER_LOOKBACK_DAYS", "99")
    monkeypatch.setenv("MEANDER_MIN_EVENTS", "99")
    short = explained(lookback_days=14, tenure_seconds=20 * DAY)
    assert short.reason == "first seen 20 days before, within the lookback of 30 days"
    assert "Interest of the last 14 days: a 80 %, b 20 %\n" in in_words(short)
    assert in_words(short).endswith(
        "\nTake this with care: the model learnt from interests of 30 days, and this one is of 14 "
        "(MEANDER_LOOKBACK_DAYS)."
    )
    assert "with care" not in in_words(explained(lookback_days=30))
    other = {"lookback_days": 10, "min_events": 11}.items()
    assert explained(card=other, history_events=11).prediction["segment"] == "stable"
    assert explained(card=other, history_events=10).reason == "10 events in the whole history, fewer than 11"


def test_of_a_long_sequence_the_model_sees_the_end(explained):
    names = [None, "i1", "i2", None]
    keys = ("item_keys", "category_keys")
    times = {"event_seconds": [END - n * DAY for n in (5, 4, 3, 2)], "gap_seconds": [0, DAY, DAY, DAY]}
    sequence = {name: [0, KEY["i1"], KEY["i2"], 0] for name in keys}
    found = explained(**sequence, item_ids=names, behaviors=[1, 3, 4, 2], **times)
    assert found.events == [
        Event("search", "", "", 2 * DAY, 3 / 6),
        Event("favorite", "i2", "(other)", 3 * DAY, 2 / 6),
        Event("cart", "i1", "(other)", 4 * DAY, 1 / 6),
        Event("view", "", "", 5 * DAY, None),
    ]
    assert "4 days before  cart      i1  (other)  17 %\n" in in_words(found)
    assert "5 days before  view      -   -        further back than it looks\n" in in_words(found)
    assert "favorite" not in in_words(found, shown=1)


@pytest.mark.parametrize(
    ("changes", "segment", "why"),
    [
        ({"tenure_seconds": 12 * DAY}, "new", "first seen 12 days before, within the lookback of 30 days"),
        ({"history_events": 4}, "new", "4 events in the whole history, fewer than 5"),
        ({"frequency": 1}, "at_risk", "the probability of leaving, 50 %, reaches the model's threshold of 40 %"),
        (
            {"current_shares": [0.4, 0.45]},
            "migrating",
            "the probability of moving on, 55 %, reaches the model's threshold of 50 %, most likely to b",
        ),
        (
            {"current_categories": ["a"], "current_shares": [0.1]},
            "migrating",
            "the probability of moving on, 90 %, reaches the model's threshold of 50 %, most likely to b",
        ),
    ],
)
def test_every_segment_has_its_reason(explained, changes, segment, why):
    found = explained(**changes)
    assert (found.prediction["segment"], found.reason) == (segment, why)


def test_too_few_events_for_a_risk_are_said_so(explained):
    one = {name: [1] for name in ("category_keys", "behaviors", "event_seconds", "gap_seconds")}
    one |= {"item_keys": [KEY["i1"]], "item_ids": ["i1"]}
    assert "risk: too few events to say how surprising they are" in in_words(explained(**one))


class Trees:
    """Say of each offered category what its column is worth, and the same of each user."""

    def of_offered(self, _, offered):
        return 0.1 + 0.5 * offered

    def binary(self, frame):
        return {name: np.full(len(frame), 0.25) for name in NAMES}


def test_of_a_stack_it_is_told_what_network_and_trees_say(tmp_path):
    model = load(save(tmp_path / "artifact"))
    weights = {"network": 0.0, "trees": 1.0, "bias": 0.0}
    model.stack = Stack(Trees(), {"network": 1.0, "trees": 1.0}, {"migrated": weights})
    # What is published is what both say together.
    model.predict_alone = model.predict
    model.predict = lambda rows: model.stack.applied(model.predict_alone(rows), rows)
    row = pa.Table.from_pylist([state("u")], to_arrow_schema(INTERESTS)).to_batches()[0]
    found = explanation(model, 3, row)
    # The network has a 0.8 and b 0.2, the trees 0.1 and 0.6: together 0.08 and 0.12.
    assert found.sides == [
        Side("b", pytest.approx(0.2), pytest.approx(0.6), pytest.approx(0.6)),
        Side("a", pytest.approx(0.8), pytest.approx(0.1), pytest.approx(0.4)),
        Side("moves on to another main category", pytest.approx(0.2), 0.25, pytest.approx(0.25)),
    ]
    assert found.prediction["category_ids"] == ["b", "a"]
    words = in_words(found)
    assert "  category: b 60 %, a 40 %\n" in words
    assert (
        "The model is a stack, of a network and of boosted trees:\n"
        "  b: network 20 %, trees 60 %, together 60 %\n"
        "  a: network 80 %, trees 10 %, together 40 %\n"
        "  moves on to another main category: network 20 %, trees 25 %, together 25 %\n"
        "Segment "
    ) in words


def test_the_set_of_categories_is_told_of_versions_that_have_one(explained):
    both = explained(card={"set_reach": 0.81, "set_coverage": 0.9})
    assert both.set == CategorySet(0.9, ["a", "b"])
    assert "  category: a 80 %, b 20 %\n            2 categories hold the next one with 90 %: a, b\n" in in_words(both)
    assert "            2 categories hold the next one with 90 %: a, ...\n" in in_words(both, shown=1)
    one = in_words(explained(card={"set_reach": 0.7, "set_coverage": 0.9}))
    assert "            1 category holds the next one with 90 %: a\n" in one
    assert explained().set is None


# ---- from the lake ----


@pytest.fixture
def shop(lake, mlflow_store):
    """A lake with the states of three users at T, in two files, and two versions of a model, the newer one champion."""
    shutil.copy(mlflow_store, lake / "mlflow.db")
    for run_id, horizon in (("old", 28), ("new", 7)):
        folder = save(lake / run_id, horizon_days=horizon)
        with registry().start_run(run_id, "evaluate") as tracked:
            registry().promote(registry().register(folder, {}, tracked), T)
    tomorrow = T + timedelta(days=1)
    rows = [state("ann"), state("bob", frequency=1), state("ann", dt=tomorrow, frequency=1)]
    stage_files("interests", "r", rows, [T, tomorrow], 1)
    publish("interests", "r")
    return lake


def test_a_user_is_found_in_the_lake_and_explained_by_the_champion_of_the_day(shop):
    found = explain("ann", T, registry(), load=load)
    assert (found.user, found.day, found.version, found.horizon_days) == ("ann", T, 2, 7)
    assert found.prediction["segment"] == "stable"
    assert explain("ann", T + timedelta(days=1), registry(), load=load).prediction["segment"] == "at_risk"
    assert explain("bob", T, registry(), 1, load=load).horizon_days == 28


def test_what_was_published_is_explained_by_the_version_that_made_it(shop):
    stage_files("predictions", "p", [{"user_id": "bob", "model_version": 1, "dt": T}], [T], 1)
    publish("predictions", "p")
    assert explain("ann", T, registry(), load=load).version == 1
    assert explain("ann", T, registry(), 2, load=load).version == 2
    assert explain("ann", T + timedelta(days=1), registry(), load=load).version == 2


def test_the_lookback_of_a_state_is_that_of_its_publish(shop):
    assert explain("ann", T, registry(), load=load).lookback_days == 30, "where nobody noted it, that of the model"
    counts = {"as_of": [str(T)], "include_late": False, "lookback_days": 14}
    stage_files("interests", "again", [state("ann")], [T], 2, counts=counts)
    publish("interests", "again")
    found = explain("ann", T, registry(), load=load)
    assert (found.lookback_days, found.learnt_lookback_days) == (14, 30)


def test_of_a_log_without_purchases_it_is_not_told_who_buys(shop):
    assert explain("ann", T, registry(), load=load).never == frozenset(), "without examples, nobody knows"
    labels = {"migrated": None, "purchased": False, "churned": True}
    stage_files("examples", "e", [{"user_id": "ann", "dt": T, **labels}, {"user_id": "bob", "dt": T, **labels}], [T], 1)
    publish("examples", "e")
    found = explain("ann", T, registry(), load=load)
    assert found.never == {"purchased"}, "whether anybody has moved on is not known"
    told = in_words(replace(found, sides=[Side("buys", 0.1, 0.2, 0.3), Side("a", 0.4, 0.5, 0.6)]))
    assert "  moves on to another main category 20 %, does nothing at all 33 %\n" in told
    assert "buys" not in told
    assert "  a: network 40 %" in told
    stage_files("examples", "f", [{"user_id": "ann", "dt": T, **labels, "purchased": True}], [T], 2)
    publish("examples", "f")
    assert explain("ann", T, registry(), load=load).never == frozenset()


def test_who_or_what_is_not_there_is_named(shop):
    with pytest.raises(SettingsInvalid, match=r"user 'eve' has no state at 2017-07-01: none of their events in"):
        explain("eve", T, registry(), load=load)
    with pytest.raises(TableMissing, match=r"the interests at 2017-06-01 are not published yet"):
        explain("ann", date(2017, 6, 1), registry(), load=load)
    with pytest.raises(ModelMissing, match=r"there is no version 9 of meander"):
        explain("ann", T, registry(), 9, load=load)
