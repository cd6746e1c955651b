"""The simulated log: ingest finds exactly what was planted, and every promised difficulty is there."""

from collections import Counter, defaultdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from jobs.ingest import to_events
from jobs.input_counts import count_outcomes, count_rows
from jobs.raw_rows import read_rows
from jobs.rejections import REASONS, TOO_MANY, judge
from jobs.simulate import BROKEN_ANYWHERE, LogSpec, main, simulate
from jobs.source import load_source
from lake.days import days_between
from lake.errors import SettingsInvalid
from lake.settings import settings

# Every way to be broken has to turn up in a small log.
SPEC = LogSpec(events=12_000, days=3, crawlers=1, late=0.03, very_late=0.01, broken=0.03, seed=7)
SMALL = {"events": 3_000, "days": 2, "crawlers": 1}


class Ingested:
    """A simulation in `folder`, as ingest reads it: `events` (rows) and `counts` of outcomes."""

    def __init__(self, spark, folder: Path, spec: LogSpec):
        simulate(spark, spec, str(folder / "landing"), str(folder / "truth"))
        source = load_source("canonical")
        files = [str(file) for file in sorted(folder.glob("landing/dt=*/part-*"))]
        judged = judge(read_rows(spark, source, files), source, settings()).persist()
        self.folder = folder
        self.counts = count_outcomes(count_rows(judged), days_between(spec.start, spec.last))
        self.events = sorted(to_events(judged, source).collect(), key=lambda row: (row.event_time, row.event_id))
        judged.unpersist()

    def truth(self, table: str) -> list[dict]:
        """Return a table that says what was planted."""
        return ds.dataset(self.folder / "truth" / table).to_table().to_pylist()


@pytest.fixture(scope="module")
def simulated(spark, tmp_path_factory):
    return Ingested(spark, tmp_path_factory.mktemp("simulated"), SPEC)


@pytest.fixture(scope="module")
def people(simulated):
    """The events of each ordinary user, in order."""
    by_user = defaultdict(list)
    for row in first_landed(simulated.events):
        if row.user_id.startswith("u"):
            by_user[row.user_id].append(row)
    return by_user


def first_landed(events):
    """Return each event once, as it first landed, in order of time."""
    first = {}
    for row in sorted(events, key=lambda row: row.landed):
        first.setdefault(row.event_id, row)
    return sorted(first.values(), key=lambda row: (row.event_time, row.event_id))


def planted(truth: list[dict], *kinds: str) -> Counter:
    """Return {(day, kind): rows} of the counts that were written."""
    return Counter({(row["dt"], row["kind"]): row["rows"] for row in truth if row["kind"] in kinds})


@pytest.mark.spark
def test_ingest_rejects_what_was_planted_for_the_reason_it_was_planted_for(simulated):
    rejected = {
        (date.fromisoformat(day), reason): n
        for day, counts in simulated.counts["by_day"].items()
        for reason, n in counts["rejected"].items()
    }
    assert rejected == planted(simulated.truth("counts"), *REASONS)
    assert {reason for _, reason in rejected} == set(REASONS) - {TOO_MANY, "too_late"}


@pytest.mark.spark
def test_ingest_finds_the_planted_events_and_copies(simulated):
    truth = simulated.truth("counts")
    events = first_landed(simulated.events)
    by_day = Counter(row.landed for row in events)
    copies = sum(row.copies for row in simulated.events) - len(events)
    assert by_day == {day: n for (day, _), n in planted(truth, "good").items()}
    assert copies == planted(truth, "duplicate", "redelivered").total()
    assert max(row.copies for row in simulated.events) > 1
    assert len(simulated.events) - len(events) > 10, "some events land again on a later day"


@pytest.mark.spark
def test_no_row_is_unaccounted_for(simulated):
    assert simulated.counts["input"] == sum(row["rows"] for row in simulated.truth("counts"))


@pytest.mark.spark
def test_the_number_of_events_is_about_what_was_asked(simulated):
    assert len(first_landed(simulated.events)) == pytest.approx(SPEC.events, rel=0.1)


@pytest.mark.spark
def test_events_lie_in_the_range_and_land_on_their_date_or_later(simulated):
    assert all(SPEC.start <= row.dt <= row.landed <= SPEC.last for row in simulated.events)
    assert {row.dt for row in simulated.events} == set(days_between(SPEC.start, SPEC.last))


@pytest.mark.spark
def test_some_events_are_late_and_the_truth_says_how_many(simulated):
    late = Counter(row.landed for row in first_landed(simulated.events) if row.dt < row.landed)
    assert late == {row["dt"]: row["late"] for row in simulated.truth("counts") if row["late"]}
    assert late.total() > SPEC.events * 0.02


@pytest.mark.spark
def test_one_user_has_the_large_share(simulated):
    users = Counter(row.user_id for row in first_landed(simulated.events))
    assert users["whale"] == pytest.approx(SPEC.whale * SPEC.events, rel=0.1)


@pytest.mark.spark
def test_a_crawler_never_pauses(simulated):
    times = [row.event_time for row in first_landed(simulated.events) if row.user_id == "crawler-000"]
    assert times[-1] - times[0] > timedelta(days=SPEC.days) - timedelta(minutes=10)
    assert max(b - a for a, b in pairwise(times)) <= timedelta(minutes=10)


@pytest.mark.spark
def test_people_pause_between_bursts_and_go_on_over_midnight(people):
    gap = timedelta(minutes=30)
    pairs = [pair for events in people.values() for pair in pairwise(events)]
    long_pauses = [1 for a, b in pairs if b.event_time - a.event_time > gap]
    over_midnight = [1 for a, b in pairs if a.dt < b.dt and b.event_time - a.event_time < gap]
    ties = [1 for a, b in pairs if a.event_time == b.event_time]
    assert len(long_pauses) > len(people)
    assert len(over_midnight) > 5
    assert len(ties) > 5


@pytest.mark.spark
def test_a_purchase_follows_a_cart_which_follows_a_view_of_the_item(people):
    first = {}
    for user, events in people.items():
        for row in events:
            first.setdefault((user, row.item_id, row.behavior), row.event_time)
    bought = [(user, item) for user, item, behavior in first if behavior == "purchase"]
    assert len(bought) > 100
    for which in bought:
        assert first[*which, "view"] <= first[*which, "cart"] <= first[*which, "purchase"]


@pytest.mark.spark
def test_a_search_has_a_query_and_nothing_else(simulated):
    searches = [row for row in simulated.events if row.behavior == "search"]
    others = [row for row in simulated.events if row.behavior != "search"]
    assert {(bool(row.query), row.item_id, row.category_id, row.price) for row in searches} == {
        (True, None, None, None)
    }
    assert all(row.item_id and row.category_id and row.price > 0 and row.query is None for row in others)


@pytest.mark.spark
def test_people_look_at_what_interests_them_and_interests_move(simulated, people):
    interest = {(row["user_id"], row["dt"]): row["category_id"] for row in simulated.truth("states")}
    assert len(interest) == SPEC.people * SPEC.days
    # A person's day starts when they wake: until then, what they see still follows the day before.
    followed = [
        row.category_id == interest[user, row.dt] for user, events in people.items() for row in events if row.item_id
    ]
    assert 0.6 < sum(followed) / len(followed) < 0.9
    first, second = SPEC.start, SPEC.start + timedelta(days=1)
    moved = [interest[user, first] != interest[user, second] for user, day in interest if day == first]
    assert 0.05 < sum(moved) / len(moved) < 0.3


@pytest.mark.spark
def test_every_day_is_marked_complete(simulated):
    marked = [file.parent.name for file in sorted(simulated.folder.glob("landing/*/_SUCCESS"))]
    assert marked == ["dt=2025-01-01", "dt=2025-01-02", "dt=2025-01-03"]


@pytest.mark.spark
def test_the_same_seed_gives_the_same_rows_on_any_number_of_cores(spark, tmp_path, monkeypatch):
    # A task makes so few events here that these logs take several, as those of millions do.
    monkeypatch.setattr("jobs.simulate.EVENTS_A_TASK", 500)
    before = spark.conf.get("spark.sql.leafNodeDefaultParallelism", None)
    for cores in ("1", "5"):
        spark.conf.set("spark.sql.leafNodeDefaultParallelism", cores)
        simulate(spark, LogSpec(**SMALL), str(tmp_path / cores))
    if before:
        spark.conf.set("spark.sql.leafNodeDefaultParallelism", before)
    else:
        spark.conf.unset("spark.sql.leafNodeDefaultParallelism")
    simulate(spark, LogSpec(**SMALL, seed=1), str(tmp_path / "other seed"))

    one, five, other = (landed_lines(tmp_path / name) for name in ("1", "5", "other seed"))
    assert one == five
    assert one != other


def landed_lines(landing: Path) -> dict[str, list[bytes]]:
    """Return every line that landed on each day, sorted."""
    return {
        folder.name: sorted(line for file in folder.glob("part-*") for line in file.read_bytes().splitlines())
        for folder in landing.glob("dt=*")
    }


@pytest.mark.spark
def test_parquet_has_typed_columns_and_is_ingested_alike(spark, tmp_path):
    parquet = Ingested(spark, tmp_path, LogSpec(**SMALL, broken=0.05, file_format="parquet"))

    types = {f.name: str(f.type) for f in ds.dataset(tmp_path / "landing", partitioning="hive").schema}
    truth = parquet.truth("counts")
    assert types["event_time"].startswith("timestamp")
    assert types["price"].startswith("decimal")
    assert parquet.counts["input"] == sum(row["rows"] for row in truth)
    assert parquet.counts["rejected"] == Counter({reason: planted(truth, reason).total() for reason in BROKEN_ANYWHERE})


@pytest.mark.spark
def test_the_command_writes_gzip_where_it_is_told(spark, tmp_path):
    size = ["--events", "1_000", "--days", "1", "--crawlers", "1"]
    main([*size, "--gzip", "--from", "2024-02-29", "--landing", str(tmp_path)])

    (file,) = (tmp_path / "dt=2024-02-29").glob("part-*")
    assert file.read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.spark
def test_real_files_are_never_added_to(spark, tmp_path):
    (tmp_path / "dt=2025-01-02").mkdir()
    with pytest.raises(SettingsInvalid, match="holds dt=2025-01-02 already"):
        simulate(spark, LogSpec(), str(tmp_path))
    assert [folder.name for folder in tmp_path.iterdir()] == ["dt=2025-01-02"]


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        pytest.param({"events": 500}, "leave none of 500 events for people", id="crawlers take more than there is"),
        pytest.param({"items": 3}, "items an even number", id="odd items"),
        pytest.param({"file_format": "csv"}, "json or parquet", id="unknown format"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_says_why(wish, complaint):
    with pytest.raises(SettingsInvalid, match=complaint):
        LogSpec(**wish)
