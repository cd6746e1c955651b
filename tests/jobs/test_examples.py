"""What the labels of a date are: small cases by hand, and against a naive reading of the rules, on a lake."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pytest

from jobs import examples
from lake.errors import HorizonIncomplete, TableMissing
from lake.schemas import EXAMPLES, INTERESTS
from lake.settings import settings
from tests.jobs import naive
from tests.jobs.naive import event, key
from tests.jobs.tables import publish_log, publish_rows, staged_rows

pytestmark = pytest.mark.spark

T = date(2025, 3, 10)
END = datetime(2025, 3, 11, tzinfo=UTC)  # the end of T
H = 3
# W is five days, H three; two events with a category on either side suffice for a judgement.
# Weights of behaviors that are none of those that a shop begins with.
WEIGHTS = "view=3,search=2,favorite=5,cart=1,purchase=2"
SPANS = {
    "LOOKBACK_DAYS": 5,
    "HISTORY_DAYS": 30,
    "SEQUENCE_LENGTH": 4,
    "HORIZON_DAYS": H,
    "MIN_EVENTS": 2,
    "BEHAVIOR_WEIGHTS": WEIGHTS,
}
MICROSECOND = timedelta(microseconds=1)
LABELS = [field.name for field in EXAMPLES if field.name not in INTERESTS.fieldNames()]


def days(*after_t):
    """Return dates by their distance from T."""
    return [T + timedelta(days=n) for n in after_t]


def random_log(seed):
    """Make a log of users who like few categories, change taste or not, and have events at every boundary."""
    draw = random.Random(seed)
    edges = [timedelta(days=n) for n in range(-8, 2 + H + 3)]
    offsets = [edge + shift for edge in edges for shift in (-MICROSECOND, timedelta(0), timedelta(hours=7))]
    log = []
    for user in range(60):
        tastes = [draw.choices("abcd", k=draw.randint(1, 3)) for _ in range(2)]
        for n in range(draw.randint(1, 50)):
            when = END + draw.choice(offsets)
            row = event(
                f"{user:02}-{n:02}",
                f"u{user:02}",
                when,
                draw.choice(list(naive.WEIGHTS)),
                draw.choice(["i1", "i2", "i3", "i4", None]),
                draw.choice([*draw.choice([tastes[when >= END]] * 9 + ["abcd"]), None]),
            )
            # Some arrive late, and some arrive twice.
            row["landed"] += timedelta(days=draw.choice([0, 0, 0, 0, 1, 3]))
            log.append(row)
            if draw.random() < 0.1:
                log.append({**row, "landed": row["landed"] + timedelta(days=draw.choice([1, 2]))})
    draw.shuffle(log)
    return log


# --- planted leaks, and small cases by hand: a user each -------------------------------------------------

CLOSE = END + timedelta(days=H)
HOUR = timedelta(hours=1)
BEFORE, BEYOND = END - MICROSECOND, CLOSE

CASES = {
    "around T": [("before", BEFORE, {"category": "a"}), ("after", END, {"category": "b"})],
    "at the close": [
        ("seen", END - HOUR, {}),
        ("bought", CLOSE - MICROSECOND, {"behavior": "purchase", "category": "b"}),
    ],
    "at the close and beyond": [
        ("seen", END - HOUR, {}),
        ("bought", CLOSE - MICROSECOND, {"behavior": "purchase", "category": "b"}),
        ("beyond", BEYOND, {"behavior": "purchase", "category": "c"}),
    ],
    "beyond alone": [("seen", END - HOUR, {}), ("beyond", BEYOND, {"behavior": "purchase"})],
    "late": [
        ("seen", END - HOUR, {}),
        ("in time", END, {"landed": T + timedelta(days=H)}),
        ("too late", END, {"landed": T + timedelta(days=H + 1)}),
    ],
    "landed after T": [("seen", END - 2 * HOUR, {}), ("then", BEFORE, {"landed": T + timedelta(days=1)})],
    "gone": [("seen", END - HOUR, {})],
    "newcomer": [("first", END, {})],
    "faithful": [(f"{n}", END + (n - 3) * HOUR, {}) for n in range(6)],
    # Three a and two b, then two a and three b: any two handfuls of events differ as much.
    "by chance": [
        *((f"1{n}", END - (n + 1) * HOUR, {"category": c}) for n, c in enumerate("aaabb")),
        *((f"2{n}", END + n * HOUR, {"category": c}) for n, c in enumerate("aabbb")),
    ],
    "same dominant": [
        *((f"1{n:02}", END - (n + 1) * HOUR, {"category": "a"}) for n in range(20)),
        *((f"2{n:02}", END + n * HOUR, {"category": c}) for n, c in enumerate("aaabbccddee")),
    ],
    "apart": [
        *((f"1{n}", END - (n + 1) * HOUR, {"category": "a"}) for n in range(5)),
        *((f"2{n}", END + n * HOUR, {"category": "b"}) for n in range(5)),
    ],
    "collector": [
        ("seen", END - HOUR, {}),
        *((f"i{n}", END + timedelta(minutes=n), {}) for n in range(101)),
    ],
}


def log_of_cases():
    return [
        event(f"{user} {item}", user, when, item=item, **more)
        for user, events in CASES.items()
        for item, when, more in events
    ]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The cases and a random log on a lake of their own, with the states of some dates, and examples of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(tmp_path_factory.mktemp("lake")))
        for name, value in SPANS.items():
            patch.setenv(f"MEANDER_{name}", str(value))
        log = [*log_of_cases(), *random_log(1)]
        publish_log(log, *days(-6, 2 + H))
        # On odd dates too, which a sparse range must leave alone.
        with_states = days(-4, -3, -2, -1, 0, 1, 2)
        publish_rows("interests", naive.states(log, with_states, settings()), *with_states)
        publish_rows("examples", [], *days(-4, 2))
        yield log


@pytest.fixture(scope="module")
def missing(spark, log):
    """What a run over a sparse range staged for the dates that had no examples yet, and for the last one."""
    return examples.main(["--from", "2025-03-04", "--to", "2025-03-12", "--every", "2", "--missing", "--run-id", "r"])


@pytest.fixture(scope="module")
def restated(spark, log):
    """What a restatement of two dates staged, of which one had examples."""
    days = ["--from", "2025-03-06", "--to", "2025-03-10", "--every", "4"]
    return examples.main([*days, "--include-late", "--run-id", "restated"])


def by_user(staged):
    """Return the examples of T by user."""
    return {row["user_id"]: SimpleNamespace(**row) for row in staged_rows(staged) if row["dt"] == T}


@pytest.fixture(scope="module")
def known(missing):
    """The examples at T, by user."""
    return by_user(missing)


def test_the_last_moment_of_t_is_no_label_and_the_first_after_it_is(known):
    row = known["around T"]
    assert (row.next_item_keys, row.next_categories, row.next_events) == ([key("after")], ["b"], 1)
    assert row.next_category_key == key("b")
    assert row.first_label_time == row.last_label_time == END


def test_the_last_moment_of_the_horizon_is_a_label_and_what_follows_is_nothing(known):
    without, planted = known["at the close"], known["at the close and beyond"]
    assert (without.next_events, without.purchased, without.churned) == (1, True, False)
    assert without.last_label_time == CLOSE - MICROSECOND
    assert vars(planted) == {**vars(without), "user_id": "at the close and beyond"}
    nothing = known["beyond alone"]
    assert (nothing.next_events, nothing.purchased, nothing.churned) == (0, False, True)


def test_a_label_event_counts_if_it_landed_within_the_horizon_or_late_events_are_included(known, restated):
    assert [found["late"].next_events for found in (known, by_user(restated))] == [1, 2]


def test_an_event_of_t_that_lands_after_t_is_neither_feature_nor_label(known):
    row = known["landed after T"]
    assert (row.history_events, row.next_events, row.churned) == (1, 0, True)


def test_who_does_nothing_has_churned_and_nothing_is_known_of_the_next_interest(known):
    assert {name: vars(known["gone"])[name] for name in LABELS} == {
        "horizon_days": H,
        "next_categories": [],
        "next_counts": [],
        "next_shares": [],
        "next_category": None,
        "next_category_key": 0,
        "next_item_keys": [],
        "next_events": 0,
        "migrated": None,
        "js_distance": None,
        "g_p_value": None,
        "purchased": False,
        "churned": True,
        "first_label_time": None,
        "last_label_time": None,
    }


def test_who_was_not_active_before_t_is_no_example(known):
    assert set(CASES) - set(known) == {"newcomer"}


def test_interest_that_stays_in_one_category_has_not_moved_at_all(known):
    row = known["faithful"]
    assert (row.migrated, row.js_distance, row.g_p_value) == (False, 0.0, 1.0)


def test_another_dominant_category_alone_is_no_migration(known):
    row = known["by chance"]
    assert (row.dominant_category, row.next_category, row.migrated) == ("a", "b", False)
    assert 0.5 < row.g_p_value < 0.6


def test_nor_is_another_distribution_with_the_same_dominant_category(known):
    row = known["same dominant"]
    assert (row.dominant_category, row.next_category, row.migrated) == ("a", "a", False)
    assert row.g_p_value < 0.001


def test_interests_without_a_common_category_are_as_far_apart_as_can_be(known):
    assert (known["apart"].migrated, known["apart"].js_distance) == (True, 1.0)


def test_at_most_a_hundred_items_are_kept_and_the_first_ones(known):
    row = known["collector"]
    assert row.next_item_keys == [key(f"i{n}") for n in range(100)]
    assert row.next_events == 101


# --- the command, on a lake ----------------------------------------------------------------------------


def expected(log, as_of, *, include_late=False):
    """Return the examples of some dates as the rules say, on the states that were published."""
    config = settings()
    return [
        {**then, **naive.labels(log, then, config, include_late=include_late)}
        for then in naive.states(log, as_of, config)
    ]


def test_a_sparse_range_has_the_labels_of_a_naive_reading_under_the_states_as_they_were_published(log, missing):
    rows = staged_rows(missing)
    assert naive.differences(rows, expected(log, days(-2, 0, 2))) == {}
    judged = Counter(row["migrated"] for row in rows)
    assert min(judged[True], judged[False], judged[None]) > 5, "the log has some of each kind"


def test_a_restatement_has_the_labels_of_everything_that_landed_since(log, restated):
    assert naive.differences(staged_rows(restated), expected(log, days(-4, 0), include_late=True)) == {}


def test_only_dates_that_have_states_and_no_examples_are_missing_and_the_last_one_is_made_in_any_case(
    missing, restated
):
    # Of the dates asked for, six days before T has no state, and four days before T an example.
    assert missing.owns == days(-2, 0, 2)
    assert restated.owns == days(-4, 0), "without --missing all of them"


def test_a_staging_says_what_it_was_made_from(missing, restated):
    for staged, as_of, late in ((missing, days(-2, 0, 2), False), (restated, days(-4, 0), True)):
        assert staged.counts == {
            "as_of": [str(day) for day in as_of],
            "include_late": late,
            "horizon_days": H,
            "min_events": 2,
            "behavior_weights": WEIGHTS,
        }
        assert set(staged.inputs) == {"events", "interests"}
        assert staged.basis == sum(staged.inputs.values()), "a publish is refused when either table is newer"


def march(day):
    return f"2025-03-{day:02}"


def stage(run_id, *arguments):
    return examples.main([*arguments, "--run-id", run_id])


def publish_days(table, *numbers):
    """Publish these days of March without a row, but for one a day of events: what landed last is read from them."""
    owned = [date(2025, 3, n) for n in numbers]
    rows = [{"event_id": f"{day}", "user_id": "u", "dt": day, "landed": day} for day in owned]
    publish_rows(table, rows if table == "events" else [], *owned)


def test_a_date_whose_horizon_is_not_complete_is_refused(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "2")
    publish_days("events", *range(1, 9))
    said = (
        r"examples at T=2025-03-07 need the H=2 days after it, up to 2025-03-09, but events that landed on 2025-03-09"
    )
    for late in ([], ["--include-late"]):
        with pytest.raises(HorizonIncomplete, match=said):
            stage("too early", "--from", march(6), "--to", march(7), *late)
    # Once a later landing day is there, a log that landed late is complete, and one that lands day by day is not.
    publish_days("events", 12)
    with pytest.raises(HorizonIncomplete, match=r"landed on 2025-03-09 are not published"):
        stage("too early", "--day", march(7))
    with pytest.raises(TableMissing, match=r"interests has no published version"):
        stage("restated", "--day", march(7), "--include-late")


def test_a_date_without_states_is_refused(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "2")
    publish_days("events", *range(1, 9))
    publish_days("interests", 2, 4, 6)
    with pytest.raises(TableMissing, match=r"interests at 2025-03-03, 2025-03-05 are not published yet; run jobs.int"):
        stage("no states", "--from", march(2), "--to", march(6))
