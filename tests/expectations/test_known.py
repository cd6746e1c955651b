"""The audit of `interests` without the history: what it says of good and broken tables, beside a reading of all events.

The spans are as short as in tests/jobs/test_summaries.py: W of two days, a history of nine, blocks of two and four.
"""

import json
import random
import shutil
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations import interests as suite
from expectations.audit import measure
from expectations.known import Known, different_blocks, in_sample
from jobs import interests
from lake import storage
from lake.places import summaries_folder
from lake.settings import settings
from lake.summaries import Landings
from lake.table import Table
from tests.expectations.from_events import upstream
from tests.jobs import naive
from tests.jobs.tables import publish_rows, staged_rows
from tests.lake.stagings import stage_files

pytestmark = pytest.mark.spark

DAYS = [date(2025, 1, 1) + timedelta(days=n) for n in range(11)]
SPANS = {"LOOKBACK_DAYS": 2, "HISTORY_DAYS": 9, "HALF_LIFE_DAYS": 2, "SEQUENCE_LENGTH": 3}
AS_OF = DAYS[4:10]
T, NEXT = DAYS[9], DAYS[10]
EQUAL = (("active_upstream", "rows"), ("events_upstream", "frequency_total"), ("days_upstream", "days_total"))


@pytest.fixture(scope="module", autouse=True)
def spans(shared_lake):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interests, "BLOCK_DAYS", (2, 4))
        patch.setattr(suite, "BLOCK_DAYS", (2, 4))
        for name, value in SPANS.items():
            patch.setenv(f"MEANDER_{name}", str(value))
        yield


@pytest.fixture(scope="module")
def log(spans):
    """Publish the events of some days, a third of them late, some a day early, some of each delivered twice."""
    draw, rows = random.Random(31), []
    for number, day in enumerate(DAYS):
        for n in range(12):
            happened = day - timedelta(days=draw.choice([0, 0, 0, 0, 1, 3]))
            when = datetime.combine(happened, datetime.min.time(), UTC) + timedelta(seconds=draw.randrange(86_400))
            behavior, price = draw.choice(list(naive.WEIGHTS)), Decimal(draw.randrange(400)) / 4
            more = {"category": draw.choice(["a", "b", None]), "landed": day, "price": price}
            rows.append(naive.event(f"{number:02} {n:02}", f"u{draw.randrange(5)}", when, behavior, **more))
        again = [row for row in rows if row["landed"] == day - timedelta(days=1)][:2]
        rows += [{**row, "landed": day} for row in again]
        # Two are of the date after, of which one is delivered again on it.
        if number < 8:
            begun = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
            early = [naive.event(f"{number:02} early {n}", f"u{n}", begun, "cart", landed=day) for n in (0, 1)]
            rows += [*early, {**early[0], "landed": day + timedelta(days=1)}]
    publish_rows("events", rows, *DAYS)
    return rows


@pytest.fixture(scope="module")
def made(spark, log):
    """Return the states of a range, as the job makes them."""
    return interests.main(["--from", str(AS_OF[0]), "--to", str(AS_OF[-1]), "--run-id", "good"])


@pytest.fixture
def may_change_summaries(made, tmp_path):
    """Restore the summaries after a test that changes them: the other tests have the same ones."""
    folders = {kind: Path(summaries_folder(kind)) for kind in ("on_time", "late")}
    for kind, folder in folders.items():
        shutil.copytree(folder, tmp_path / kind)
    yield
    for kind, folder in folders.items():
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / kind, folder)


def figures_of(spark, staged):
    """Return what the audit measures, and in the columns `all_*` what a reading of all events says."""
    rows = staged.read(spark)
    figures = suite.extend(spark, rows, staged, measure(suite.SUITE, rows, staged, settings())[0], settings())
    events, late = Table("events", staged.inputs["events"]), staged.counts["include_late"]
    known = upstream(spark, events, staged.owns, settings(), include_late=late)
    for place, name in enumerate(("all_users", "all_events", "all_days")):
        figures[name] = [known[day][place] for day in figures["day"]]
    return figures.set_index("day")


def refused(figures):
    """Return the days that the audit refuses by what was known, and those that a reading of all events refuses."""
    now = (figures["summaries_differ"] > 0) | (figures["sample_differs"] > 0)
    for column, other in EQUAL:
        now |= figures[column] != figures[other]
    everything = figures["all_users"] != figures["rows"]
    everything |= figures["all_events"] != figures["frequency_total"]
    everything |= figures["all_days"] != figures["days_total"]
    return [list(figures.index[which]) for which in (now, everything)]


def same(figures):
    """Tell whether the audit knows what a reading of all events says."""
    pairs = zip(EQUAL, ("all_users", "all_events", "all_days"), strict=True)
    return all(list(figures[column]) == list(figures[other]) for (column, _), other in pairs)


def staged_again(made, name, rows):
    """Stage other rows of a run."""
    return stage_files("interests", name, rows, made.owns, 1, counts=made.counts, inputs=made.inputs)


def test_good_states_have_the_figures_of_a_reading_of_all_events(spark, made):
    figures = figures_of(spark, made)
    assert refused(figures) == [[], []]
    assert same(figures)
    assert min(figures["all_users"]) > 2, "the states of some users are compared"


def test_states_are_refused_on_the_days_on_which_a_reading_of_all_events_refuses_them(spark, made):
    """One day each: a user is missing, has one more event, one day less, or is another one; two are mixed up."""
    rows = {(row["dt"], row["user_id"]): row for row in staged_rows(made)}
    missing, more, fewer, other, mixed, good = AS_OF
    users = {day: sorted(user for of, user in rows if of == day) for day in AS_OF}
    del rows[missing, users[missing][0]]
    rows[more, users[more][0]]["frequency"] += 1
    rows[fewer, users[fewer][1]]["history_days_active"] -= 1
    rows[other, users[other][0]]["user_id"] = "nobody"
    # The sum is right, so that only the sample of users has it: here they all are in it.
    rows[mixed, users[mixed][0]]["frequency"] += 1
    rows[mixed, users[mixed][1]]["frequency"] -= 1
    figures = figures_of(spark, staged_again(made, "broken", list(rows.values())))
    assert refused(figures) == [[missing, more, fewer, other, mixed], [missing, more, fewer]]
    assert list(figures["sample_differs"]) == [1, 1, 0, 2, 2, 0]
    assert list(figures["summaries_differ"]) == [0] * 6
    assert good == AS_OF[-1]


def test_a_restatement_has_the_figures_of_a_reading_of_all_events(spark, made):
    restated = interests.main(["--day", str(DAYS[7]), "--run-id", "restated", "--include-late"])
    figures = figures_of(spark, restated)
    assert refused(figures) == [[], []]
    assert same(figures)


def test_a_day_is_audited_without_the_events_of_its_history(spark, made, monkeypatch):
    figures_of(spark, made)  # which has read the days before
    staged = interests.main(["--day", str(NEXT), "--run-id", "next"])
    opened, plain = [], Table.read_files

    def noted(table, session, files):
        opened.extend(files := list(files))
        return plain(table, session, files)

    monkeypatch.setattr(Table, "read_files", noted)
    rows = staged.read(spark)
    figures = suite.extend(spark, rows, staged, measure(suite.SUITE, rows, staged, settings())[0], settings())
    assert {file.partition["dt"] for file in opened} == {T, NEXT}, "the lookback, for the sample"
    assert [file.partition for file in opened if file.partition["dt"] == file.partition["landed"] == T] != []
    whole = [file for file in opened if file.partition == {"dt": NEXT, "landed": NEXT}]
    assert len(whole) == 2, "what landed is summed up, and is in the lookback"
    assert list(figures["summaries_differ"]) == [0]


@pytest.mark.usefixtures("may_change_summaries")
def test_where_summaries_are_gone_events_are_read(spark, made):
    for kind in ("on_time", "late"):
        folder = summaries_folder(kind)
        for name in sorted(name for name in storage.list_files(folder) if name.endswith(".json"))[::2]:
            storage.remove(storage.join(folder, name))
    figures = figures_of(spark, made)
    assert refused(figures) == [[], []]
    assert same(figures)


def changed(kind, first, change):
    """Change the rows of the summaries that begin on a day, in their files, and return how many were there."""
    folder, rows = Path(summaries_folder(kind)), 0
    for name in folder.glob(f"{first}_*.json"):
        for file in json.loads(name.read_text())["files"]:
            table = pq.ParquetFile(folder / file).read()
            before = table.to_pylist()
            rows += len(before)
            pq.write_table(pa.Table.from_pylist(change(before), table.schema), folder / file)
            # Of Hadoop, which would find the file damaged.
            (folder / file).with_name(f".{(folder / file).name}.crc").unlink(missing_ok=True)
    return rows


@pytest.mark.usefixtures("may_change_summaries")
def test_summaries_that_do_not_say_what_has_landed_are_refused_as_the_states_made_from_them(spark, made):
    """Whose blocks are, at T: 2, 3, 4, 5 to 8, 9 to 10 January; all but 4 January are broken, each in its way."""
    day = ["--day", str(T)]
    interests.main([*day, "--run-id", "makes the larger blocks"])
    ghost = {"user_id": "ghost"}
    breaks = {
        DAYS[1]: lambda rows: rows[1:],
        DAYS[2]: lambda rows: [{**rows[0], **ghost}, *rows[1:]],
        DAYS[4]: lambda rows: [{**row, "days": row["days"][1:]} for row in rows],
        DAYS[8]: lambda rows: [{**rows[0], "spend": Decimal(1)}, *rows[1:]],
    }
    for first, change in breaks.items():
        assert changed("on_time", first, change)
    # Of the events that have landed late, one of the lookback: control totals are of those that landed on their date.
    assert changed("late", DAYS[8], lambda rows: [row for row in rows if row["dt"] != DAYS[8]])
    staged = interests.main([*day, "--run-id", "from broken summaries"])
    figures = figures_of(spark, staged)
    assert refused(figures) == [[T], [T]]
    assert figures.loc[T, "sample_differs"] > 0
    events = Table("events")
    known = Known(spark, events, Landings(events), [T], settings(), (2, 4), include_late=False)
    assert [block.first for block in different_blocks(known)] == list(breaks)
    assert figures.loc[T, "summaries_differ"] == len(breaks)


def test_the_sample_is_of_the_same_users_on_each_day_and_of_all_where_there_are_few(spark):
    users = spark.range(40_000).selectExpr("concat('u', id) as user_id").cache()
    of = {number: users.where(in_sample(number)).collect() for number in (1_999, 9_000, 40_000)}
    found = {number: {row["user_id"] for row in rows} for number, rows in of.items()}
    assert len(found[1_999]) == 40_000
    assert 4_500 < len(found[9_000]) < 5_500, "one in eight"
    assert 1_000 < len(found[40_000]) < 1_500, "one in 32"
    assert found[40_000] < found[9_000]
    users.unpersist()
