"""What the labels of a date are: against a naive reading of the rules, at their boundaries, and on a lake."""

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from pyspark.sql import functions as F
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency

from jobs import examples, ingest, interests
from jobs.interests import WEIGHTS, known_events
from lake.errors import HorizonIncomplete, TableMissing
from lake.publish import publish
from lake.schemas import EVENTS, EXAMPLES, INTERESTS
from lake.settings import Settings
from lake.staging import Verdict, read_staged, write_verdict
from tests.lake.stagings import stage_files

pytestmark = pytest.mark.spark

T = date(2025, 3, 10)
END = datetime(2025, 3, 11, tzinfo=UTC)  # the end of T
H = 3
# W is five days, H three; two events with a category on either side suffice for a judgement.
CONFIG = Settings(lookback_days=5, history_days=30, sequence_length=4, horizon_days=H, min_events=2)
MICROSECOND = timedelta(microseconds=1)
LABELS = [field.name for field in EXAMPLES if field.name not in INTERESTS.fieldNames()]


def event(event_id, user, when, behavior="view", item="i", category="a", landed=None):
    """Make a row of `events`, as a dict."""
    return {
        "event_id": event_id,
        "user_id": user,
        "event_time": when,
        "behavior": behavior,
        "item_id": item,
        "category_id": category,
        "dt": when.date(),
        "landed": landed or when.date(),
    }


def make(spark, log, as_of=(T,), config=CONFIG, *, include_late=False):
    """Return the examples of a log as the job makes them: {(user, T): row}, times as text."""
    schema = ", ".join(
        f"{field.name} {'string' if field.name == 'price' else field.dataType.simpleString()}" for field in EVENTS
    )
    rows = spark.createDataFrame([tuple(row.get(name) for name in EVENTS.fieldNames()) for row in log], schema)
    rows = rows.withColumn("price", F.col("price").cast(EVENTS["price"].dataType)).coalesce(1)

    def read(landed_by, *span):
        inside = rows.where(F.col("dt").between(*span))
        return known_events(inside if include_late else inside.where(F.col("landed") <= F.lit(landed_by)))

    days = list(as_of)
    horizon = timedelta(days=config.horizon_days)
    before = read(days[-1], date(2020, 1, 1), days[-1])
    states = interests.interests(before, days, config, include_late=include_late)
    after = read(days[-1] + horizon, days[0] + timedelta(days=1), days[-1] + horizon)
    made = examples.examples(states, after, days, config, include_late=include_late)
    times = {name: F.col(name).cast("string") for name in ("first_label_time", "last_label_time", "last_event_time")}
    return {(row["user_id"], row["dt"]): row for row in made.withColumns(times).collect()}


# --- the rule, read naively ------------------------------------------------------------------------------


def once(log, landed_by):
    """Return the events known by a date, each once."""
    return list({row["event_id"]: row for row in log if landed_by is None or row["landed"] <= landed_by}.values())


def distribution(events, everyone=()):
    """Return categories by falling weight, then that with everyone, then id; the events in each, and their shares."""
    weights, counts, popular = Counter(), Counter(), Counter()
    for row in everyone:
        popular[row["category_id"]] += WEIGHTS[row["behavior"]]
    for row in events:
        if row["category_id"] is not None:
            weights[row["category_id"]] += WEIGHTS[row["behavior"]]
            counts[row["category_id"]] += 1
    order = sorted(weights, key=lambda category: (-weights[category], -popular[category], category))
    return order, [counts[c] for c in order], [weights[c] / weights.total() for c in order]


def oracle(log, user, day, config, *, include_late=False):
    """Return the labels of a user at T = `day`, read off the design word by word."""
    end = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)
    last = day + timedelta(days=config.horizon_days)
    mine = [row for row in log if row["user_id"] == user]
    now = [
        row
        for row in once(mine, None if include_late else day)
        if end - timedelta(days=config.lookback_days) <= row["event_time"] < end
    ]
    everyone = [
        row
        for row in once(log, None if include_late else last)
        if end <= row["event_time"] < end + timedelta(days=config.horizon_days)
    ]
    later = [row for row in everyone if row["user_id"] == user]
    later.sort(key=lambda row: (row["event_time"], row["event_id"]))
    before, counts_before, _ = distribution(now)
    after, counts, shares = distribution(later, everyone)
    items = list(dict.fromkeys(row["item_id"] for row in later if row["item_id"] is not None))
    migrated = distance = p_value = None
    if min(sum(counts_before), sum(counts)) >= config.min_events:
        union = sorted({*before, *after})
        table = [
            [dict(zip(*side, strict=True)).get(c, 0) for c in union]
            for side in ((before, counts_before), (after, counts))
        ]
        p_value = chi2_contingency(table, correction=False, lambda_="log-likelihood").pvalue
        distance = jensenshannon(*table, base=2)
        migrated = before[0] != after[0] and p_value < 0.05
    return {
        "horizon_days": config.horizon_days,
        "next_categories": after,
        "next_counts": counts,
        "next_shares": pytest.approx(shares),
        "next_category": after[0] if after else None,
        "items": items[:100],
        "next_events": len(later),
        "migrated": migrated,
        "js_distance": None if distance is None else pytest.approx(distance, abs=1e-6),
        "g_p_value": None if p_value is None else pytest.approx(p_value, rel=1e-6, abs=1e-12),
        "purchased": any(row["behavior"] == "purchase" for row in later),
        "churned": not later,
        "first_label_time": text(later[0]["event_time"]) if later else None,
        "last_label_time": text(later[-1]["event_time"]) if later else None,
    }


def text(time):
    """Write a time as Spark does."""
    said = f"{time:%Y-%m-%d %H:%M:%S.%f}".rstrip("0")
    return said.rstrip(".")


def key_of(spark, ids):
    """Return {id: key} as Spark hashes it."""
    rows = spark.createDataFrame([(value,) for value in ids], "id string").select("id", F.xxhash64("id").alias("key"))
    return {row["id"]: row["key"] for row in rows.collect()}


def random_log(seed):
    """Make a log of users who like few categories, change taste or not, and have events at every boundary."""
    draw = random.Random(seed)
    edges = [timedelta(days=n) for n in range(-6, H + 3)]
    offsets = [edge + shift for edge in edges for shift in (-MICROSECOND, timedelta(0), timedelta(hours=7))]
    log = []
    for user in range(60):
        tastes = [draw.choices("abcd", k=draw.randint(1, 3)) for _ in range(2)]
        for n in range(draw.randint(1, 40)):
            when = END + draw.choice(offsets)
            row = event(
                f"{user:02}-{n:02}",
                f"u{user:02}",
                when,
                draw.choice(list(WEIGHTS)),
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


@pytest.mark.parametrize(("seed", "include_late"), [(1, False), (2, True)])
def test_labels_are_those_of_a_naive_reading_of_the_rules(spark, seed, include_late):
    log = random_log(seed)
    days = [T - timedelta(days=1), T, T + timedelta(days=2)]
    found = make(spark, log, days, include_late=include_late)
    keys = {**key_of(spark, ["a", "b", "c", "d", "i1", "i2", "i3", "i4"]), None: 0}
    assert len(found) > 100
    judged = Counter(row.migrated for row in found.values())
    assert min(judged[True], judged[False], judged[None]) > 5, "the log has some of each kind"
    for (user, day), row in found.items():
        wanted = oracle(log, user, day, CONFIG, include_late=include_late)
        wanted["next_item_keys"] = [keys[item] for item in wanted.pop("items")]
        wanted["next_category_key"] = keys[wanted["next_category"]]
        assert {name: row[name] for name in LABELS} == wanted, (user, day)


@pytest.fixture(scope="module")
def one_log(spark):
    """A random log and the examples at three dates of it."""
    log = random_log(3)
    return log, make(spark, log, [T - timedelta(days=2), T, T + timedelta(days=1)])


def test_dates_together_are_each_as_by_itself_whatever_the_order_of_the_events(spark, one_log):
    log, together = one_log
    alone = make(spark, log[::-1])
    assert alone == {key: row for key, row in together.items() if key[1] == T}
    assert 0 < len(alone) < len(together)


def test_no_feature_changes_by_what_happens_after_t(spark, one_log):
    log, together = one_log
    wanted = make(spark, [row for row in log if row["event_time"] < END])
    features = [name for name in INTERESTS.fieldNames() if name != "last_event_time"]
    assert {key: [row[name] for name in features] for key, row in together.items() if key[1] == T} == {
        key: [row[name] for name in features] for key, row in wanted.items()
    }
    assert all(row.churned for row in wanted.values())


# --- planted leaks, and small cases by hand: a user each ------------------------------------------------------

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
def known(spark):
    """The examples of `CASES` at T, by user."""
    return {user: row for (user, _), row in make(spark, log_of_cases()).items()}


@pytest.fixture(scope="module")
def keys(spark):
    """{id: key} of every item and category in `CASES`."""
    return key_of(spark, {value for row in log_of_cases() for value in (row["item_id"], row["category_id"])})


def test_the_last_moment_of_t_is_a_feature_and_the_first_after_it_a_label(known, keys):
    row = known["around T"]
    assert (row.item_keys, row.current_categories, row.history_events) == ([keys["before"]], ["a"], 1)
    assert (row.next_item_keys, row.next_categories, row.next_events) == ([keys["after"]], ["b"], 1)
    assert row.next_category_key == keys["b"]
    assert (row.last_event_time, row.first_label_time) == ("2025-03-10 23:59:59.999999", "2025-03-11 00:00:00")


def test_the_last_moment_of_the_horizon_is_a_label_and_what_follows_is_nothing(known):
    without, planted = known["at the close"], known["at the close and beyond"]
    assert (without.next_events, without.purchased, without.churned) == (1, True, False)
    assert without.last_label_time == "2025-03-13 23:59:59.999999"
    assert planted.asDict() == {**without.asDict(), "user_id": "at the close and beyond"}
    nothing = known["beyond alone"]
    assert (nothing.next_events, nothing.purchased, nothing.churned) == (0, False, True)


def test_a_label_event_counts_if_it_landed_within_the_horizon(spark, known):
    assert known["late"].next_events == 1
    restated = make(spark, log_of_cases(), include_late=True)
    assert restated["late", T].next_events == 2
    assert restated["landed after T", T].history_events == 2
    changed = {user for user, row in known.items() if restated[user, T] != row}
    assert changed == {"late", "landed after T"}


def test_an_event_of_t_that_lands_after_t_is_neither_feature_nor_label(known):
    row = known["landed after T"]
    assert (row.history_events, row.next_events, row.churned) == (1, 0, True)


def test_who_does_nothing_has_churned_and_nothing_is_known_of_the_next_interest(known):
    assert {name: known["gone"][name] for name in LABELS} == {
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


def test_at_most_a_hundred_items_are_kept_and_the_first_ones(known, keys):
    row = known["collector"]
    assert row.next_item_keys == [keys[f"i{n}"] for n in range(100)]
    assert row.next_events == 101


# --- the command, on a lake ----------------------------------------------------------------------------


def march(day):
    return f"2025-03-{day:02}"


def pass_and_publish(table, run_id):
    """Publish as if the audit had passed; it has its own tests."""
    write_verdict(Verdict(table, run_id, read_staged(table, run_id).stage_id, "passed", [], "", 0.0))
    publish(table, run_id)


def stage(run_id, *arguments):
    return examples.main([*arguments, "--run-id", run_id])


def rows(staged, spark):
    return sorted(map(tuple, staged.read(spark).collect()), key=repr)


def test_a_sparse_range_equals_its_days_row_for_row(spark, land, monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "2")
    monkeypatch.setenv("MEANDER_MIN_EVENTS", "1")
    for day in range(1, 7):
        row = {"user_id": "u", "event_time": f"{march(day)}T10:00:00Z", "behavior": "view", "item_id": f"i{day}"}
        other = {**row, "user_id": f"v{day}", "event_time": f"{march(max(day - 1, 1))}T22:00:00Z"}
        land(march(day), [{**row, "category_id": f"c{day % 2}"}, {**other, "category_id": "late"}])
    ingest.main(["--from", march(1), "--to", march(6), "--run-id", "load"])
    pass_and_publish("events", "load")
    interests.main(["--from", march(2), "--to", march(4), "--run-id", "load"])
    pass_and_publish("interests", "load")

    together = stage("range", "--from", march(2), "--to", march(4), "--every", "2")
    alone = [stage(f"day {day}", "--day", march(day)) for day in (2, 4)]
    assert together.owns == [date(2025, 3, day) for day in (2, 4)]
    assert rows(together, spark) == sorted((row for staged in alone for row in rows(staged, spark)), key=repr)
    assert together.counts == {
        "as_of": [march(2), march(4)],
        "include_late": False,
        "horizon_days": 2,
        "min_events": 1,
    }
    assert set(together.inputs) == {"events", "interests"}
    assert together.basis == sum(together.inputs.values()), "a publish is refused when either table is newer"
    labels = {row.dt.day: row for row in together.read(spark).where("user_id = 'u'").collect()}
    assert {day: (row.history_events, row.next_events) for day, row in labels.items()} == {2: (2, 2), 4: (4, 2)}


def publish_days(table, run_id, *days):
    """Publish these days of a table, with a row each in events and none in interests."""
    row = {"event_id": run_id, "user_id": "u"}
    owned = [date(2025, 3, day) for day in days]
    staged = [{**row, "dt": day, "landed": day} for day in owned] if table == "events" else []
    stage_files(table, run_id, staged, owned, 1)
    publish(table, run_id)


def test_a_date_whose_horizon_is_not_complete_is_refused(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "2")
    publish_days("events", "load", *range(1, 9))
    said = (
        r"examples at T=2025-03-07 need the H=2 days after it, up to 2025-03-09, but events that landed on 2025-03-09"
    )
    for late in ([], ["--include-late"]):
        with pytest.raises(HorizonIncomplete, match=said):
            stage("too early", "--from", march(6), "--to", march(7), *late)
    # Once a later landing day is there, a log that landed late is complete, and one that lands day by day is not.
    publish_days("events", "later", 12)
    with pytest.raises(HorizonIncomplete, match=r"landed on 2025-03-09 are not published"):
        stage("too early", "--day", march(7))
    with pytest.raises(TableMissing, match=r"interests has no published version"):
        stage("restated", "--day", march(7), "--include-late")


def test_a_date_without_states_is_refused(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "2")
    publish_days("events", "load", *range(1, 9))
    publish_days("interests", "load", 2, 4, 6)
    with pytest.raises(TableMissing, match=r"interests at 2025-03-03, 2025-03-05 are not published yet; run jobs.int"):
        stage("no states", "--from", march(2), "--to", march(6))
