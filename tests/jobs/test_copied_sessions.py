"""Sessions of users without a change are copied, not cut again; wherever that is not sure, all of a day is cut.

What is published is marked by hand (99 views each), so that a session that was copied is told from one that was cut.
That copying changes no row, whatever is delivered, is in tests/jobs/test_session_rule.py.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from jobs import copied_sessions, sessionize
from jobs.copied_sessions import cut_by
from lake.publish import publish
from lake.table import Table
from tests.jobs.tables import publish_staged, published_rows, staged_rows
from tests.jobs.test_session_rule import Shop, january
from tests.lake.stagings import stage_files
from tests.session_oracle import Landed

pytestmark = pytest.mark.spark

JAN_1, JAN_2 = january(1, 2)
GAP = timedelta(minutes=30)
# (user, time in January, day of January on which it landed), by why the session of Jan 1 has to be cut again.
LOG = [
    # It has not: all that is new is far from Jan 1.
    ("same", "01 12:00", 1),
    ("same", "02 12:00", 2),
    ("gone quiet", "01 12:00", 1),
    # A late event joins the session, and one begins a session of its own.
    ("late", "01 12:00", 1),
    ("late", "01 12:10", 2),
    ("late at another hour", "01 12:00", 1),
    ("late at another hour", "01 18:00", 2),
    # It goes on after midnight, so it is one of Jan 2; or it does not, which nobody knows without looking.
    ("past midnight", "01 23:50", 1),
    ("past midnight", "02 00:10", 2),
    ("just after midnight", "01 12:00", 1),
    ("just after midnight", "02 00:29", 2),
    # What came late is taken back later.
    ("taken back", "01 12:00", 1),
    ("taken back", "01 12:20", 2),
    # It was there before Jan 1 was cut, and has waited for Jan 2.
    ("early", "01 23:55", 1),
    ("early", "02 00:15", 1),
]
COPIED = {"same", "gone quiet"}


def landed(log: list[tuple[str, str, int]]) -> list[Landed]:
    return [
        Landed(user, datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M"), f"e{n}", date(2025, 1, day))
        for n, (user, time, day) in enumerate(log)
    ]


def mark() -> None:
    """Publish what readers see of Jan 1 again, marked, as if a run had cut it so from the events of today."""
    rows = [{**row, "views": 99} for row in published_rows("sessions") if row["dt"] == JAN_1]
    version = Table("events").version
    counts = {"cut_by": cut_by(Table("events"), version, GAP)}
    stage_files("sessions", "mark", rows, [JAN_1], version, counts=counts, inputs={"events": version})
    publish("sessions", "mark")


def run(first: date, last: date, run_id: str) -> None:
    publish_staged(sessionize.main(["--from", str(first), "--to", str(last), "--run-id", run_id]))


@pytest.fixture
def shop(lake, spark, monkeypatch) -> Shop:
    """A lake with Jan 1 published and marked, and with Jan 2 only in `events`. No change is too large."""
    monkeypatch.setattr(copied_sessions, "LARGEST_CHANGE", 1e9)
    shop = Shop(landed(LOG))
    publish("events", shop.stage_events(JAN_1))
    run(JAN_1, JAN_1, "first")
    mark()
    publish("events", shop.stage_events(JAN_2))
    return shop


def marked() -> set[str]:
    return {row["user_id"] for row in published_rows("sessions") if row["views"] == 99}


def users_on(day: date) -> list[str]:
    return sorted(row["user_id"] for row in published_rows("sessions") if row["dt"] == day)


def test_a_day_of_few_late_events_keeps_the_sessions_of_users_without_a_change(shop):
    run(JAN_2, JAN_2, "second")
    assert marked() == COPIED
    assert users_on(JAN_1) == sorted(
        [*COPIED, "late", *2 * ["late at another hour"], "just after midnight", "taken back"]
    )
    assert users_on(JAN_2) == ["early", "just after midnight", "past midnight", "same"]
    shop.require_right()
    # Who has lost an event is cut again.
    mark()
    shop.deliver([row for row in shop.log if row.event_id != "e12"])
    publish("events", shop.stage_events(JAN_2))
    run(JAN_2, JAN_2, "again")
    assert "taken back" not in marked()
    assert marked() >= COPIED
    shop.require_right()


def test_a_day_that_is_run_again_is_cut_as_a_whole_whatever_is_published_of_it(shop):
    run(JAN_1, JAN_1, "again")
    assert marked() == set()
    assert users_on(JAN_1) != []
    run(JAN_2, JAN_2, "second")
    shop.require_right()


def large_change(_: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copied_sessions, "LARGEST_CHANGE", 0.25)


def another_rule(_: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(copied_sessions, "RULE", 0)


def another_gap(_: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MEANDER_SESSION_GAP_MINUTES", "31")


def many_users(_: Shop, patch: pytest.MonkeyPatch) -> None:
    # As many as have an event near Jan 1 in what landed on Jan 2.
    patch.setattr(sessionize, "MOST_USERS", 3)


def a_file_that_is_gone(shop: Shop, _: pytest.MonkeyPatch) -> None:
    """What landed on Jan 2 is delivered again, with one event less, and upkeep has removed the first delivery."""
    run(JAN_2, JAN_2, "before")
    mark()
    files = [file.path for file in Table("events").files_of("landed", [JAN_2])]
    shop.deliver([row for row in shop.log if row.event_id != "e12"])
    publish("events", shop.stage_events(JAN_2))
    for path in files:
        Path(Table("events").path, path).unlink()


def sessions_that_are_gone(_: Shop, __: pytest.MonkeyPatch) -> None:
    for file in Table("sessions").files:
        Path(Table("sessions").path, file.path).unlink()


def events_made_anew(_: Shop, patch: pytest.MonkeyPatch) -> None:
    """A version of the same number, and of other events."""
    with patch.context() as before:
        before.setattr(Table, "identity", lambda _, version: f"another table 173646720000{version}")
        mark()


@pytest.mark.parametrize(
    "why",
    [
        large_change,
        another_rule,
        another_gap,
        many_users,
        a_file_that_is_gone,
        sessions_that_are_gone,
        events_made_anew,
    ],
)
def test_where_it_is_not_sure_or_not_worth_it_a_day_is_cut_as_a_whole(shop, monkeypatch, why: Callable):
    why(shop, monkeypatch)
    run(JAN_2, JAN_2, "second")
    assert marked() == set()
    shop.require_right()


def test_a_day_that_another_run_has_cut_from_newer_events_is_cut_from_those_that_this_one_reads(shop, monkeypatch):
    run(JAN_2, JAN_2, "second")
    old = Table("events")
    shop.deliver([row for row in shop.log if row.user_id != "taken back"])
    publish("events", shop.stage_events(JAN_1))
    run(JAN_1, JAN_1, "newer")
    monkeypatch.setattr(sessionize, "published_events", lambda _: (old, {JAN_1, JAN_2}))
    staged = sessionize.main(["--day", str(JAN_2), "--run-id", "older"])
    found = [row["views"] for row in staged_rows(staged) if (row["dt"], row["user_id"]) == (JAN_1, "taken back")]
    assert found == [2], "as in the events that it has read; of newer ones, what landed on Jan 2 alone"
