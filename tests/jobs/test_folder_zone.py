"""Folders of a shop's own day and zone: readers see what they would of the same log in folders of UTC days.

A day of New York ends after midnight UTC, so that its folder has events of the date after; one of Shanghai begins on
the date before. Each log has a day on which New York changes its clocks.
"""

import json
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
import yaml
from pyspark.sql import functions as F

from expectations import audit
from expectations.sessions import extend as of_sessions
from jobs import ingest, interests, sessionize
from jobs.rejections import end_of_landing_day
from jobs.source import load_source
from lake.days import days_between
from lake.publish import publish
from lake.settings import settings
from lake.staging import read_staged
from tests.jobs.tables import publish_staged, published_rows, staged_rows

pytestmark = pytest.mark.spark

NEW_YORK, SHANGHAI = "America/New_York", "Asia/Shanghai"


def folders_of(monkeypatch, lake, zone):
    """Point the settings at another lake and landing, whose source has folders of the days of a zone."""
    place = lake / zone.replace("/", "-")
    content = yaml.safe_load((resources.files("jobs") / "sources" / "canonical.yaml").read_text())
    source = place / "canonical.yaml"
    source.parent.mkdir(parents=True)
    source.write_text(yaml.safe_dump({**content, "folder_zone": zone}))
    for name, value in {"LAKE": place / "lake", "LANDING": place / "landing", "SOURCE": source}.items():
        monkeypatch.setenv(f"MEANDER_{name}", str(value))


def delivered(lake, zone, folders):
    """Write the rows of each folder, of a zone."""
    for day, rows in folders.items():
        file = lake / zone.replace("/", "-") / "landing" / f"dt={day}" / "part-0.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def row_of(user, moment, item, behavior="view"):
    return {
        "user_id": user,
        "event_time": moment.isoformat(),
        "behavior": behavior,
        "item_id": item,
        "category_id": "c",
    }


def a_log(first, days):
    """Make rows of some UTC days: who is awake at midnight, UTC or their own, is there again and again."""
    draw, rows = random.Random(5), []
    begin = datetime.combine(first, datetime.min.time(), UTC)
    for user in ("u1", "u2", "u3", "u4"):
        moment = begin + timedelta(minutes=draw.randrange(90))
        while moment < begin + timedelta(days=days):
            rows.append(row_of(user, moment, f"i{draw.randrange(3)}", draw.choice(["view", "purchase"])))
            # Pauses of the gap and around it; one in eight is a sleep.
            pause = timedelta(hours=draw.randrange(5, 20)) if draw.random() < 0.125 else timedelta(minutes=28)
            moment += pause + timedelta(seconds=draw.randrange(180))
    # The edges of UTC days, and of days of New York before and after its clocks are changed.
    for n in range(1, days):
        rows += [row_of("edge", begin + timedelta(days=n, hours=hour, seconds=-1), "i9") for hour in (0, 4, 5)]
        rows += [row_of("edge", begin + timedelta(days=n, hours=hour), "i9") for hour in (0, 4, 5)]
    return rows


def in_folders(rows, zone, days):
    """Sort rows into the folders of a zone's days; some come again in the folder after."""
    folders = defaultdict(list, {day: [] for day in days})
    for n, row in enumerate(rows):
        day = datetime.fromisoformat(row["event_time"]).astimezone(ZoneInfo(zone)).date()
        folders[day].append(row)
        if n % 11 == 0 and day + timedelta(days=1) in days:
            folders[day + timedelta(days=1)].append(row)
    return dict(folders)


def load(first, last):
    """Take the daily steps up to sessions, without audits."""
    run_id = f"{first} to {last}"
    args = ["--from", str(first), "--to", str(last), "--run-id", run_id]
    for staged in ingest.main(args):
        publish_staged(staged)
    publish_staged(sessionize.main(args))


def seen(first, last, *flags):
    """Return what readers see of events and sessions, and the states of some days."""
    events = {
        tuple(row[name] for name in ("event_id", "event_time", "user_id", "item_id", "behavior", "dt"))
        for row in published_rows("events")
    }
    sessions = sorted(map(repr, published_rows("sessions")))
    args = ["--from", str(first), "--to", str(last), "--run-id", "states", *flags]
    return events, sessions, sorted(map(repr, staged_rows(interests.main(args))))


@pytest.mark.parametrize(
    ("zone", "begins", "flags"),
    [
        pytest.param(NEW_YORK, date(2024, 3, 9), (), id="New York, in spring"),
        pytest.param(NEW_YORK, date(2024, 11, 2), (), id="New York, in autumn"),
        # At the end of a UTC day, the evening of Shanghai's next day has not landed: states lack it until they are
        # restated, as they lack all that is late.
        pytest.param(SHANGHAI, date(2024, 3, 9), ("--include-late",), id="Shanghai"),
    ],
)
def test_folders_of_another_zone_give_the_tables_of_folders_of_utc_days(spark, lake, monkeypatch, zone, begins, flags):
    rows = a_log(begins, 3)
    days = days_between(begins - timedelta(days=1), begins + timedelta(days=3))
    found = {}
    for name in ("UTC", zone):
        folders_of(monkeypatch, lake, name)
        delivered(lake, name, in_folders(rows, name, days))
        if name == "UTC":
            load(days[0], days[-1])
        else:
            # The folder after comes first, the one before it, two at once.
            for first, last in ((days[2], days[2]), (days[0], days[1]), (days[4], days[4]), (days[3], days[3])):
                load(first, last)
        found[name] = seen(begins, begins + timedelta(days=2), *flags)
        assert published_rows("quarantine") == []
    assert len(found["UTC"][0]) == len({json.dumps(row) for row in rows})
    assert min(map(len, found["UTC"])) > 0
    for what, here, there in zip(("events", "sessions", "interests"), found["UTC"], found[zone], strict=True):
        assert here == there, what


def test_a_run_of_the_newest_folder_publishes_what_folders_of_utc_days_would_let_it(spark, lake, monkeypatch):
    """Of the date after, which has only begun, no session is published, and no state knows it."""
    begins = date(2024, 3, 9)
    days = days_between(begins - timedelta(days=1), begins + timedelta(days=1))
    found = {}
    for name in ("UTC", NEW_YORK):
        folders_of(monkeypatch, lake, name)
        delivered(lake, name, in_folders(a_log(begins, 3), name, days))
        load(days[0], days[-1])
        found[name] = seen(begins, days[-1])
        # The audit counts the events of the newest date, also where the date after has begun: all are in sessions.
        staged = read_staged("sessions", f"{days[0]} to {days[-1]}")
        rows = [{"day": day, "rows": 1} for day in staged.owns]
        figures = of_sessions(spark, staged.read(spark), staged, pd.DataFrame(rows), settings()).set_index("day")
        dated = len({row[0] for row in found[name][0] if row[-1] == days[-1]})
        assert list(figures.loc[days[-1], ["events_upstream", "events_in_sessions"]]) == [dated, dated]
    assert found["UTC"][1:] == found[NEW_YORK][1:]
    assert max(row[-1] for row in found["UTC"][0]) == days[-1]
    assert max(row[-1] for row in found[NEW_YORK][0]) == days[-1] + timedelta(days=1)


def test_a_landing_day_ends_when_it_ends_in_the_zone_of_its_folders(spark):
    ends = {
        ("UTC", "2024-03-05"): "2024-03-06 00:00",
        (NEW_YORK, "2024-03-09"): "2024-03-10 05:00",
        (NEW_YORK, "2024-03-10"): "2024-03-11 04:00",  # of 23 hours
        (NEW_YORK, "2024-11-02"): "2024-11-03 04:00",
        (NEW_YORK, "2024-11-03"): "2024-11-04 05:00",  # of 25 hours
        (SHANGHAI, "2024-03-05"): "2024-03-05 16:00",
        # Clocks are put forward at midnight, so that there is none, and put back to it, so that there are two.
        ("America/Havana", "2024-03-09"): "2024-03-10 05:00",
        ("America/Havana", "2024-11-02"): "2024-11-03 04:00",
    }
    for (zone, day), end in ends.items():
        source = load_source("canonical").model_copy(update={"folder_zone": zone})
        row = spark.range(1).select(F.lit(day).cast("date").alias("landed"))
        found = row.select(F.date_format(end_of_landing_day(source), "yyyy-MM-dd HH:mm")).collect()[0][0]
        assert found == end, (zone, day)


def test_an_event_is_too_late_for_its_folder_from_the_end_of_its_day_on_and_the_audit_agrees(
    spark, lake, monkeypatch, capsys
):
    day = date(2024, 3, 9)
    moments = {
        NEW_YORK: ("2024-03-10T04:59:59.999999+00:00", "2024-03-10T05:00:00+00:00"),
        SHANGHAI: ("2024-03-09T15:59:59.999999+00:00", "2024-03-09T16:00:00+00:00"),
    }
    for zone, (last, after) in moments.items():
        folders_of(monkeypatch, lake, zone)
        first = [row_of("u1", datetime.fromisoformat(f"{day}T12:00:00+00:00"), f"i{n}") for n in range(60)]
        delivered(
            lake, zone, {day: [*first, *(row_of("u2", datetime.fromisoformat(each), "i") for each in (last, after))]}
        )
        events, _ = ingest.main(["--day", str(day), "--run-id", "r"])
        assert events.counts["rejected"] == {"time_after_landing": 1}
        assert events.counts["folder_zones"] == {str(day): [zone]}
        of_events, _ = audit.main(["--table", "events", "--table", "quarantine", "--run-id", "r"])
        assert of_events.verdict != "failed"
        assert publish("events", "r")["refused"] == []
        assert {row["user_id"] for row in published_rows("events")} == {"u1", "u2"}


def test_a_shop_that_delivers_the_log_of_yesterday_is_warned_of_once(spark, lake, land, monkeypatch):
    """And once more on the day on which a folder has the log of its own date."""
    found = {}
    for n in range(1, 7):
        day = date(2024, 3, n)
        happened = day if n == 5 else day - timedelta(days=1)
        moments = [datetime.combine(happened, datetime.min.time(), UTC) + timedelta(minutes=m) for m in range(20)]
        land(day, [row_of("u1", moment, f"i{n}") for moment in moments])
        ingest.main(["--day", str(day), "--run-id", f"{day}"])
        verdicts = audit.main(["--table", "events", "--table", "quarantine", "--run-id", f"{day}"])
        found[n] = verdicts[0].verdict
        publish("quarantine", f"{day}")
        publish("events", f"{day}")
    assert found == {
        **dict.fromkeys(range(1, 7), "passed"),
        **dict.fromkeys((1, 5), "warned"),
    }
