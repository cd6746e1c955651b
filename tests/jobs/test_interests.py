"""What is known of a user at the end of a date: each number by hand, and on a lake against a naive reading."""

import random
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from pyspark.sql import functions as F

from jobs import interests
from jobs.summaries import distinct_events
from lake.errors import TableMissing
from lake.schemas import EVENTS
from lake.settings import Settings, settings
from tests.jobs import naive
from tests.jobs.tables import publish_log, staged_rows

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
    # Three newer events push the first one out of the sequence, but on the 30th one of them is not known yet.
    ("pushed", "29 10:00", "view", "i1", "a"),
    ("pushed", "30 10:00", "view", "i2", "a"),
    ("pushed", "30 11:00", "view", "i3", "a"),
    ("pushed", "30 12:00", "view", "i4", "a", {"landed": 31}),
    # Of two at one time the one with the larger id is the newer one, and stays.
    ("tied", "30 10:00", "view", "i2", "a", {"event_id": "tied 2"}),
    ("tied", "30 10:00", "view", "i1", "a", {"event_id": "tied 1"}),
    ("tied", "30 11:00", "view", "i3", "a"),
    ("tied", "30 12:00", "view", "i4", "a"),
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


def known_events(spark, log):
    """Return the rows of a log like `LOG` as known events."""
    text = EVENTS["price"].dataType
    schema = ", ".join(f"{f.name} {'string' if f.dataType == text else f.dataType.simpleString()}" for f in EVENTS)
    rows = spark.createDataFrame([event(n, *row) for n, row in enumerate(log)], schema)
    return distinct_events(rows.withColumn("price", F.col("price").cast(text)))


@pytest.fixture(scope="module")
def events(spark):
    return known_events(spark, LOG).persist()


@pytest.fixture(scope="module")
def states(events):
    """The states at T and on the day before, by user and day; times as text: this machine may not be in UTC."""
    frame = interests.from_events(events, [march(30), T], CONFIG)
    rows = frame.withColumn("last_event_time", F.col("last_event_time").cast("string")).collect()
    found = {(row["user_id"], row["dt"]): row for row in rows}
    assert len(found) == len(rows), "one row a user and date"
    return found


@pytest.fixture(scope="module")
def known(states):
    """The states at T, by user."""
    return {user: row for (user, day), row in states.items() if day == T}


def test_the_keys_of_the_naive_reading_are_those_that_may_never_change():
    assert {text: naive.key(text) for text in KEY} == KEY


def test_the_last_events_are_arrays_in_the_order_of_time_then_id(known):
    reader = known["reader"]
    assert reader.item_keys == [KEY["i2"], KEY["i3"], KEY["i4"]]
    assert reader.item_ids == ["i2", "i3", "i4"]
    assert reader.category_keys == [KEY["a"]] * 3
    assert reader.behaviors == [1, 4, 3]
    assert reader.event_seconds == [1743415200, 1743415500, 1743415500]
    assert reader.gap_seconds == [0, 300, 0]


def test_an_event_leaves_the_sequence_when_enough_newer_ones_are_known(states):
    assert states["pushed", march(30)].item_ids == ["i1", "i2", "i3"]
    assert states["pushed", T].item_ids == ["i2", "i3", "i4"]
    assert states["tied", T].item_ids == ["i2", "i3", "i4"]


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


def test_what_is_left_of_a_weight_halves_and_is_rounded_half_up():
    left = interests.decays(Settings(half_life_days=10, history_days=101))
    # After ten halves 976,562.5 billionths are left.
    assert (len(left), left[0], left[10], left[20], left[100]) == (101, 10**9, 5 * 10**8, 25 * 10**7, 976_563)


def test_a_sum_may_need_more_than_64_bits(spark):
    rows = spark.createDataFrame([((1 << 62) + 2**31 + 5,)] * 8 + [(0,)], "n bigint")
    assert rows.agg(interests.exact_sum("n").alias("sum")).first()["sum"] == 8 * ((1 << 62) + 2**31 + 5)


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


def test_a_day_counts_once_however_many_landings_brought_its_events(known, states):
    scattered = known["scattered"]
    assert (scattered.history_events, scattered.history_days_active, scattered.active_days) == (3, 2, 1)
    assert (scattered.longterm_categories, scattered.longterm_days) == (["a"], [2])
    earlier = states["scattered", march(30)]
    assert (earlier.history_events, earlier.history_days_active, earlier.longterm_days) == (2, 2, [2])


def test_dates_count_once_over_a_history_of_many_blocks_of_64_days(spark):
    # Days before T, and categories; the last one is before the history.
    ages = [(0, "a"), (65, "a"), (65, "b"), (130, "b"), (199, "a"), (200, "a")]
    log = [("far", f"{31 - age} 10:00", "view", "i1", category) for age, category in ages]
    config = CONFIG.model_copy(update={"lookback_days": 100, "history_days": 200})
    (far,) = interests.from_events(known_events(spark, log), [T], config).collect()
    assert (far.history_days_active, far.active_days, far.history_events) == (4, 2, 5)
    assert (far.longterm_categories, far.longterm_days) == (["a", "b"], [3, 2])


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


# --- the command, on a lake ----------------------------------------------------------------------------

# The lookback is shorter than a week, and the history much longer than both.
RANGE = [march(27), march(29), T]
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)

# (user, date, days after which it landed). What is asked of them is below, by hand.
PLANTED = [
    ("fifty days ago", date(2025, 2, 9), 0),
    ("fifty days ago", T, 0),
    # Of 27 March the history begins on 27 January, of 29 March on the 29th.
    ("oldest", date(2025, 1, 26), 0),
    ("oldest", date(2025, 1, 27), 0),
    ("oldest", date(2025, 1, 28), 0),
    ("oldest", date(2025, 1, 29), 0),
    ("oldest", march(26), 0),
    ("oldest", march(28), 0),
    ("week", march(24), 0),
    ("week", march(25), 0),
    ("week", march(29), 0),
    ("week", T, 0),
    ("late", T, 0),
    ("late", T, 2),
    ("too late", T, 1),
    ("after T", march(32), 0),
]


def midnight(day):
    return datetime.combine(day, time(), UTC)


def log_of_a_shop():
    """Make `PLANTED`, an event that came twice, and users whose events lie at every edge of a state."""
    log = [
        naive.event(f"planted {n:02}", user, midnight(day) + 10 * HOUR, landed=day + timedelta(days=delay))
        for n, (user, day, delay) in enumerate(PLANTED)
    ]
    twice = naive.event("again", "twice", midnight(march(27)))
    log += [twice, {**twice, "landed": march(30)}]
    draw = random.Random(5)
    # Whole powers of two of the half-life are among the ages, so that long-term weights tie.
    ages = [-2, -1, 0, 0, 1, 1, 2, 5, 6, 7, 10, 20, 58, 59, 60]
    for user in range(30):
        for n in range(draw.randint(1, 20)):
            day = draw.choice(RANGE) - timedelta(days=draw.choice(ages))
            when = midnight(day) + draw.choice([0 * HOUR, 7 * HOUR, 7 * HOUR, 24 * HOUR - MICROSECOND])
            row = naive.event(
                f"{user:02} {n:02}",
                f"u{user:02}",
                when,
                draw.choice(list(naive.WEIGHTS)),
                draw.choice(["i1", "i2", "i3", None]),
                draw.choice(["a", "b", "c", None]),
                price=draw.choice([None, Decimal(draw.randint(0, 9_999)) / 100]),
                landed=day + timedelta(days=draw.choice([0, 0, 0, 1, 3])),
            )
            log.append(row)
            if draw.random() < 0.1:
                log.append({**row, "landed": row["landed"] + timedelta(days=draw.choice([1, 2]))})
    return log


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A log on a lake of its own, and spans under which it is looked at."""
    said = {"LOOKBACK_DAYS": 2, "HISTORY_DAYS": 60, "HALF_LIFE_DAYS": 10, "SEQUENCE_LENGTH": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(tmp_path_factory.mktemp("lake")))
        for name, value in said.items():
            patch.setenv(f"MEANDER_{name}", str(value))
        log = log_of_a_shop()
        publish_log(log)
        yield log


@pytest.fixture(scope="module")
def every_other_day(spark, shop):
    """What a run over five dates staged for every other one."""
    return interests.main(["--from", "2025-03-27", "--to", "2025-03-31", "--every", "2", "--run-id", "range"])


@pytest.fixture(scope="module")
def restated(spark, shop):
    """What a restatement of T staged."""
    return interests.main(["--day", "2025-03-31", "--include-late", "--run-id", "restated"])


def values(rows, user, *columns):
    """Return {day of the month: columns} of a user."""
    return {row["dt"].day: tuple(row[name] for name in columns) for row in rows if row["user_id"] == user}


def test_a_sparse_range_has_the_states_of_a_naive_reading_at_its_dates(shop, every_other_day):
    assert every_other_day.owns == RANGE
    rows = staged_rows(every_other_day)
    assert len(rows) > 50
    assert naive.differences(rows, naive.states(shop, RANGE, settings())) == {}


def test_a_run_reads_the_whole_history_and_not_the_lookback_alone(every_other_day):
    rows = staged_rows(every_other_day)
    assert values(rows, "fifty days ago", "frequency", "history_events", "tenure_seconds") == {
        31: (1, 2, 50 * DAY + 14 * 3600)
    }
    # The first date of a range has its oldest day, and a later one has not what is a day too old for it.
    assert values(rows, "oldest", "history_events") == {27: (4,), 29: (3,)}


def test_of_the_longterm_interest_so_many_categories_are_kept_as_the_setting_says(shop, every_other_day, monkeypatch):
    monkeypatch.setenv("MEANDER_LONGTERM_CATEGORIES", "2")
    cut = staged_rows(interests.main(["--day", "2025-03-31", "--run-id", "cut"]))
    all_of_them = [row for row in staged_rows(every_other_day) if row["dt"] == T]
    assert max(len(row["longterm_categories"]) for row in all_of_them) == 3, "some are cut"
    # What is kept has the numbers that it had: a share is one of all categories, whether they are kept or not.
    expected = [
        {name: value[:2] if name.startswith("longterm_") else value for name, value in row.items()}
        for row in map(dict, all_of_them)
    ]

    def by_user(rows):
        return {row["user_id"]: dict(row) for row in rows}

    assert by_user(cut) == by_user(expected)


def test_other_weights_of_behaviors_count_at_once_whatever_was_summed_up_by_others(shop, every_other_day, monkeypatch):
    # The summaries that the runs before have kept are of the weights that a shop begins with.
    monkeypatch.setenv("MEANDER_BEHAVIOR_WEIGHTS", "view=7, purchase=1")
    rows = staged_rows(interests.main(["--day", "2025-03-31", "--run-id", "weights"]))
    assert naive.differences(rows, naive.states(shop, [T], settings())) == {}
    before = {row["user_id"]: row for row in staged_rows(every_other_day) if row["dt"] == T}
    for name in ("current_shares", "longterm_shares"):
        assert any(list(row[name]) != list(before[row["user_id"]][name]) for row in rows), name


def test_a_week_has_seven_days_whatever_the_lookback(every_other_day):
    columns = ("frequency", "week_frequency", "longterm_current_counts", "longterm_week_counts", "history_events")
    assert values(staged_rows(every_other_day), "week", *columns) == {
        29: (1, 3, [1], [3], 3),
        31: (1, 3, [1], [3], 4),
    }


def test_an_event_is_known_from_its_first_arrival_on(every_other_day):
    assert values(staged_rows(every_other_day), "twice", "frequency") == {27: (1,)}


def test_a_restatement_counts_what_came_late_and_still_nothing_after_t(shop, every_other_day, restated):
    assert restated.owns == [T]
    rows = staged_rows(restated)
    assert naive.differences(rows, naive.states(shop, [T], settings(), include_late=True)) == {}
    before = staged_rows(every_other_day)
    assert [values(found, "late", "frequency") for found in (before, rows)] == [{31: (1,)}, {31: (2,)}]
    assert [values(found, "too late", "frequency") for found in (before, rows)] == [{}, {31: (1,)}]
    assert values(rows, "after T", "frequency") == {}


def test_a_staging_says_what_it_was_made_from(every_other_day, restated):
    for staged, days, late in ((every_other_day, RANGE, False), (restated, [T], True)):
        assert staged.inputs == {"events": staged.basis}, "a publish is refused when events are newer"
        assert staged.counts == {
            "as_of": [str(day) for day in days],
            "include_late": late,
            "lookback_days": 2,
            "behavior_weights": "view=1,search=1,favorite=2,cart=3,purchase=4",
        }


def test_a_date_that_has_not_landed_is_refused(spark, shop):
    after = max(row["landed"] for row in shop) + timedelta(days=1)
    with pytest.raises(TableMissing, match=f"events that landed on {after} are not published yet; run jobs.ingest"):
        interests.main(["--day", str(after), "--run-id", "too early"])
