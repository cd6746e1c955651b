"""What is known of a user at the end of a date: each number by hand, and what may not be counted."""

import json
from datetime import UTC, date, datetime

import pytest
from pyspark.sql import functions as F

from jobs import ingest, interests
from jobs.arguments import as_of_days
from jobs.interests import known_events
from lake.errors import SettingsInvalid, TableMissing
from lake.publish import publish
from lake.schemas import EVENTS
from lake.settings import Settings
from lake.staging import Run, Verdict, write_verdict

pytestmark = pytest.mark.spark

T = date(2025, 3, 31)
DAY = 86_400
# W is a week, long-term interest halves in ten days and ends after thirty, and three events make a sequence.
CONFIG = Settings(lookback_days=7, history_days=30, half_life_days=10, sequence_length=3)

# XXH64 with seed 42, signed: these are in published tables and in models, so they may never change.
KEY = {
    "i1": 7124899531359187511,
    "i2": 3877070857122093591,
    "i3": -300965836206992956,
    "i4": 2868972031826216457,
    "a": -8582455328737087284,
    "b": -6391946315847899181,
}

LOG = [
    # Four events, of which the first is one too many; the two at 10:05 are told apart by their ids.
    ("reader", "30 09:00", "view", "i1", "a"),
    ("reader", "31 10:00", "view", "i2", "a"),
    ("reader", "31 10:05", "cart", "i4", "a", {"event_id": "tie 2"}),
    ("reader", "31 10:05", "favorite", "i3", "a", {"event_id": "tie 1"}),
    # Weights 1 view, 1 search, 2 favorite, 3 cart, 4 purchase. `a` and `b` tie at 4.
    ("weigher", "30 10:00", "purchase", "i1", "c", {"price": 2.5}),
    ("weigher", "30 10:00", "purchase", "i2", "c", {"price": None}),
    ("weigher", "31 10:00", "cart", "i1", "b", {"price": 9}),  # not paid, so not spent
    ("weigher", "31 11:00", "view", "i1", "b"),
    ("weigher", "31 12:00", "view", "i1", "a"),
    ("weigher", "31 13:00", "search", None, "a"),
    ("weigher", "31 14:00", "favorite", "i1", "a"),
    # Ten days halve a weight: 1 of today, 4 / 2 of ten days ago, 3 / 4 of twenty.
    ("faithful", "31 00:00", "view", "i1", "a"),
    ("faithful", "21 00:00", "purchase", "i1", "b"),
    ("faithful", "11 00:00", "cart", "i1", "b"),
    # The first moments of W and of the history, and the last ones before them.
    ("edges", "25 00:00", "view", "i1", "a"),
    ("edges", "24 23:59", "view", "i1", "b"),
    ("edges", "02 00:00", "view", "i1", "c"),
    ("edges", "01 23:59", "view", "i1", "d"),
    ("gone", "24 23:59", "view", "i1", "a"),
    # What happens after T is not known at T.
    ("future", "31 23:59", "view", "i1", "a"),
    ("future", "32 00:00", "purchase", "i2", "b", {"price": 5}),
    ("newcomer", "32 00:00", "view", "i1", "a"),
    # Nor is what arrives after T, whenever it happened; what arrives on T is.
    ("late", "30 10:00", "view", "i1", "a", {"landed": 31}),
    ("late", "30 11:00", "view", "i2", "b", {"landed": 32}),
    ("too late", "30 11:00", "view", "i2", "b", {"landed": 32}),
    # One event that was delivered on two days, then on a day after T.
    ("twice", "29 10:00", "view", "i1", "a", {"landed": 29, "event_id": "again"}),
    ("twice", "29 10:00", "view", "i1", "a", {"landed": 30, "event_id": "again"}),
    ("twice", "29 10:00", "view", "i1", "a", {"landed": 32, "event_id": "again"}),
    # One day that arrived in two parts, the second on T.
    ("scattered", "30 10:00", "view", "i1", "a", {"landed": 30}),
    ("scattered", "30 11:00", "view", "i2", "a", {"landed": 31}),
    ("scattered", "12 11:00", "view", "i2", "a", {"landed": 12}),
    # A log without categories, and a search without an item.
    ("plain", "31 10:00", "search", None, None),
]


def event(n, user, time, behavior, item, category, more=None):
    """Make a row of `events`: times are "day hour:minute" of March 2025, where the 32nd is 1 April."""
    more = more or {}
    day, clock = time.split()
    when = datetime.combine(march(int(day)), datetime.strptime(clock, "%H:%M").time(), UTC)
    price = None if more.get("price") is None else f"{more['price']:.4f}"
    landed = march(more.get("landed", int(day)))
    event_id = more.get("event_id", f"e{n:02}")
    return (event_id, user, when, behavior, item, category, None, price, "test", 1, when.date(), landed)


def march(day):
    return date.fromordinal(date(2025, 2, 28).toordinal() + day)


@pytest.fixture(scope="module")
def events(spark):
    """`LOG` as known events."""
    text = EVENTS["price"].dataType
    schema = ", ".join(f"{f.name} {'string' if f.dataType == text else f.dataType.simpleString()}" for f in EVENTS)
    rows = spark.createDataFrame([event(n, *row) for n, row in enumerate(LOG)], schema)
    return known_events(rows.withColumn("price", F.col("price").cast(text))).persist()


def states(frame):
    """Return {user: row}, times as text so that no clock of this machine matters."""
    rows = frame.withColumn("last_event_time", F.col("last_event_time").cast("string")).collect()
    found = {row["user_id"]: row for row in rows}
    assert len(found) == len(rows), "one row a user"
    return found


@pytest.fixture(scope="module")
def known(events):
    """The states at T, by user."""
    return states(interests.interests(events, [T], CONFIG))


def test_the_last_events_are_arrays_in_the_order_of_time_then_id(known):
    reader = known["reader"]
    assert reader.item_keys == [KEY["i2"], KEY["i3"], KEY["i4"]]
    assert reader.item_ids == ["i2", "i3", "i4"]
    assert reader.category_keys == [KEY["a"]] * 3
    assert reader.behaviors == [1, 4, 3]
    assert reader.event_seconds == [1743415200, 1743415500, 1743415500]
    assert reader.gap_seconds == [0, 300, 0]


def test_a_sequence_may_be_shorter_than_it_could_be(known):
    late = known["late"]
    assert (late.item_keys, late.behaviors, late.gap_seconds) == ([KEY["i1"]], [1], [0])


def test_what_an_event_does_not_have_is_key_0(known):
    plain = known["plain"]
    assert (plain.item_keys, plain.item_ids, plain.category_keys, plain.behaviors) == ([0], [None], [0], [2])


def test_a_category_weighs_what_was_done_in_it_and_ties_are_in_the_order_of_ids(known):
    weigher = known["weigher"]
    assert weigher.current_categories == ["c", "a", "b"]
    assert weigher.current_counts == [2, 3, 2]
    assert weigher.current_shares == [8 / 16, 4 / 16, 4 / 16]
    assert weigher.dominant_category == "c"


def test_long_term_interest_decays_with_age(known):
    faithful = known["faithful"]
    assert (faithful.current_categories, faithful.current_shares) == (["a"], [1.0])
    assert faithful.longterm_categories == ["b", "a"]
    assert faithful.longterm_shares == [2.75 / 3.75, 1 / 3.75]


def test_each_long_term_category_has_its_counts_days_and_age(known):
    faithful = known["faithful"]
    assert faithful.longterm_categories == ["b", "a"]
    assert faithful.longterm_category_keys == [KEY["b"], KEY["a"]]
    assert faithful.longterm_counts == [2, 1]
    assert faithful.longterm_days == [2, 1]
    assert faithful.longterm_current_counts == [0, 1]
    assert faithful.longterm_week_counts == [0, 1]
    assert faithful.longterm_age_seconds == [11 * DAY, DAY]
    weigher = known["weigher"]
    assert weigher.longterm_categories == ["c", "a", "b"]
    assert weigher.longterm_counts == [2, 3, 2]
    assert weigher.longterm_days == [1, 1, 1]


def test_a_day_counts_once_however_many_landings_brought_its_events(known, events):
    scattered = known["scattered"]
    assert (scattered.history_events, scattered.history_days_active, scattered.active_days) == (3, 2, 1)
    assert (scattered.longterm_categories, scattered.longterm_days) == (["a"], [2])
    (earlier,) = (states(interests.interests(events, [march(30)], CONFIG))[user] for user in ["scattered"])
    assert (earlier.history_events, earlier.history_days_active, earlier.longterm_days) == (2, 2, [2])


def test_a_week_has_seven_days_whatever_the_lookback(events, known):
    month = states(interests.interests(events, [T], CONFIG.model_copy(update={"lookback_days": 10})))
    assert (month["edges"].frequency, month["edges"].week_frequency) == (2, 1)
    assert dict(zip(month["edges"].longterm_categories, month["edges"].longterm_week_counts, strict=True)) == {
        "a": 1,
        "b": 0,
        "c": 0,
    }
    assert month["edges"].longterm_current_counts == [1, 1, 0]
    assert known["edges"].week_frequency == known["edges"].frequency == 1


def test_tenure_is_from_the_first_event_of_the_history(known):
    assert known["edges"].tenure_seconds == 30 * DAY
    assert known["weigher"].tenure_seconds == DAY + 14 * 3600
    assert (known["future"].tenure_seconds, known["future"].longterm_age_seconds) == (60, [60])


def test_the_lookback_has_w_days_and_the_history_as_many_as_it_says(known):
    edges = known["edges"]
    assert (edges.frequency, edges.current_categories) == (1, ["a"])
    assert (edges.history_events, sorted(edges.longterm_categories)) == (3, ["a", "b", "c"])
    weights = [0.5 ** (age / 10) for age in (6, 7, 29)]
    assert edges.longterm_shares == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-6)


def test_a_user_who_did_nothing_in_the_lookback_is_absent(known):
    assert "gone" not in known


def test_nothing_after_t_is_counted(known):
    future = known["future"]
    assert (future.item_keys, future.history_events, future.spend) == ([KEY["i1"]], 1, 0.0)
    assert (future.last_event_time, future.recency_seconds) == ("2025-03-31 23:59:00", 60)
    assert "newcomer" not in known


def test_nothing_that_landed_after_t_is_counted(known):
    assert (known["late"].item_keys, known["late"].current_categories) == ([KEY["i1"]], ["a"])
    assert "too late" not in known


def test_a_restatement_counts_what_came_late_and_still_nothing_after_t(events, known):
    restated = states(interests.interests(events, [T], CONFIG, include_late=True))
    assert restated["late"].item_keys == [KEY["i1"], KEY["i2"]]
    assert restated["too late"].frequency == 1
    assert {user for user in restated if user not in known} == {"too late"}
    assert {user for user in known if restated[user] != known[user]} == {"late"}


def test_an_event_that_was_delivered_often_counts_once(known):
    twice = known["twice"]
    assert (twice.frequency, twice.history_events, twice.item_keys) == (1, 1, [KEY["i1"]])
    assert twice.current_counts == [1]


def test_recency_frequency_and_spend(known):
    weigher = known["weigher"]
    assert (weigher.frequency, weigher.active_days, weigher.history_events) == (7, 2, 7)
    assert (weigher.purchases, weigher.spend) == (2, 2.5)
    assert (weigher.last_event_time, weigher.recency_seconds) == ("2025-03-31 14:00:00", 10 * 3600)


def test_without_categories_there_are_distributions_but_nothing_in_them(known):
    plain = known["plain"]
    assert (plain.current_categories, plain.current_counts, plain.current_shares) == ([], [], [])
    assert (plain.longterm_categories, plain.longterm_shares, plain.longterm_counts) == ([], [], [])
    assert plain.dominant_category is None


def test_many_dates_at_once_are_each_as_by_itself(events, known):
    both = interests.interests(events, [march(24), T], CONFIG).persist()
    assert states(both.where(both.dt == T)) == known
    assert sorted(states(both.where(both.dt == march(24)))) == ["edges", "faithful", "gone"]
    both.unpersist()


def test_as_of_dates_are_counted_back_from_the_last():
    assert as_of_days(Run("r", march(1), march(31)), 10) == [march(1), march(11), march(21), march(31)]
    assert as_of_days(Run("r", march(1), march(3)), 10) == [march(3)]
    with pytest.raises(SettingsInvalid, match=r"--every counts days and must be at least 1; received 0"):
        as_of_days(Run("r", march(1), march(3)), 0)


# --- the command, on a lake ----------------------------------------------------------------------------


def stage(run_id, *arguments):
    """Run the job and return what it staged, and its rows."""
    return interests.main([*arguments, "--run-id", run_id])


def rows(staged, spark):
    return sorted(map(tuple, staged.read(spark).collect()), key=repr)


def test_a_sparse_range_equals_its_days_row_for_row(spark, land, monkeypatch):
    monkeypatch.setenv("MEANDER_LOOKBACK_DAYS", "2")
    for day in range(1, 6):
        first = {"user_id": "u", "event_time": f"2025-03-0{day}T10:00:00Z", "behavior": "view"}
        late = {
            "user_id": f"v{day}",
            "event_time": f"2025-03-0{max(day - 1, 1)}T23:00:00Z",
            "behavior": "cart",
        }
        more = {"item_id": f"i{day}", "category_id": "a", "price": 1}
        land(f"2025-03-0{day}", [{**first, **more}, {**late, **more}, json.dumps({**first, **more})])
    for staged in ingest.main(["--from", "2025-03-01", "--to", "2025-03-05", "--run-id", "load"]):
        write_verdict(Verdict(staged.table, "load", staged.stage_id, "passed", [], "", 0.0))
    publish("events", "load")

    together = stage("range", "--from", "2025-03-02", "--to", "2025-03-05", "--every", "2")
    alone = [stage(f"day {day}", "--day", f"2025-03-0{day}") for day in (3, 5)]
    restated = stage("restated", "--day", "2025-03-03", "--include-late")

    assert together.owns == [date(2025, 3, 3), date(2025, 3, 5)]
    assert together.inputs == {"events": together.basis}, "a publish is refused when events are newer"
    assert rows(together, spark) == sorted((row for staged in alone for row in rows(staged, spark)), key=repr)
    users = {staged.run_id: {row.user_id for row in staged.read(spark).collect()} for staged in (*alone, restated)}
    assert users == {
        "day 3": {"u", "v3"},  # v2's event of the 1st is out of W by now, v4's of the 3rd has not arrived
        "day 5": {"u", "v5"},
        "restated": {"u", "v3", "v4"},
    }
    with pytest.raises(TableMissing, match=r"events that landed on 2025-03-06 are not published yet"):
        stage("too early", "--day", "2025-03-06")
