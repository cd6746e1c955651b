"""Which session partitions a landing changes, by example.

That no other partition changes, on any log, is in tests/jobs/test_session_rule.py.
"""

from datetime import UTC, datetime, timedelta

from lake.reach import changed_by
from tests.lake.stagings import files_of

GAP = timedelta(minutes=30)


def moment(time: str) -> datetime:
    """Return a time of January 2025 like "10 23:50"."""
    return datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def test_which_days_a_landing_changes():
    # Each landing, and the partitions that it changes: {day: the newest day of an event behind the change}.
    cases = {
        "nothing landed, nothing changes": ([], {}),
        "an event changes its day, and the next by a session or a cut": (["10 12:00"], {10: 10, 11: 10}),
        "within the gap after midnight, also the day before": (["10 00:30"], {9: 10, 10: 10, 11: 10}),
        "past the gap after midnight": (["10 00:31"], {10: 10, 11: 10}),
        "within the gap before midnight, also the second day after": (["10 23:30"], {10: 10, 11: 10, 12: 10}),
        "not yet within the gap before midnight": (["10 23:29"], {10: 10, 11: 10}),
        "the earliest event of a day decides": (["10 12:00", "10 00:00"], {9: 10, 10: 10, 11: 10}),
        "the latest event of a day decides": (["10 23:59", "10 12:00"], {10: 10, 11: 10, 12: 10}),
        "the newest event counts": (["10 12:00", "11 12:00"], {10: 10, 11: 11, 12: 11}),
        "a late event changes its own days": (["01 12:00", "20 12:00"], {1: 1, 2: 1, 20: 20, 21: 20}),
    }
    found = {
        name: {day.day: newest.day for day, newest in changed_by(files_of(map(moment, times)), GAP).items()}
        for name, (times, _) in cases.items()
    }
    assert found == {name: expected for name, (_, expected) in cases.items()}
