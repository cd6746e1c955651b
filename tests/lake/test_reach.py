"""Which session partitions a landing changes, and which of them a run restates, by example.

That no other partition changes, on any log, is in tests/jobs/test_session_rule.py.
"""

from datetime import UTC, date, datetime, timedelta

from lake.reach import changed_by, partitions_to_stage
from lake.table import DataFile
from tests.lake.stagings import files_of

GAP = timedelta(minutes=30)


def moment(time: str) -> datetime:
    """Return a time of January 2025 like "10 23:50"."""
    return datetime.strptime(f"2025-01-{time}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def january(day: int) -> date:
    return date(2025, 1, day)


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


def test_of_a_file_without_times_nothing_is_taken_for_granted():
    # Another Delta tool that wrote it anew need not tell the log any.
    file = DataFile("", 1, 0, {"dt": january(10)}, {})
    assert sorted(changed_by([file], GAP)) == [january(day) for day in (9, 10, 11, 12)]


def test_which_partitions_a_run_restates_and_which_it_leaves_to_a_backfill():
    # A run of the 10th that puts late events of up to two days before it into sessions: from the 8th on.
    # Each case: what has changed, as above; the days on which nothing stands; those of which no session is published;
    # then what is staged, and what is left.
    nowhere: set[int] = set()
    cases = {
        "the day of the run, though nothing landed on it": ({}, {10}, nowhere, [10], []),
        "each changed day": ({9: 10, 10: 10, 11: 10}, nowhere, nowhere, [9, 10, 11], []),
        "no day on which neither an event nor a session stands": ({10: 10, 11: 10}, {11}, nowhere, [10], []),
        "a late event as old as is allowed": ({8: 8, 10: 10}, nowhere, nowhere, [8, 10], []),
        "one that is a day older is left": ({7: 7, 10: 10}, nowhere, nowhere, [10], [7]),
        "unless its day was never published": ({7: 7, 10: 10}, nowhere, {7}, [7, 10], []),
        "the date of the event counts, not that of the partition": ({7: 8, 10: 10}, nowhere, nowhere, [7, 10], []),
        "what is staged draws in the day before it, and that the one before": (
            {5: 5, 6: 6, 7: 7, 8: 8}, nowhere, nowhere, [5, 6, 7, 8, 10], [],
        ),
        "and the day after it": ({6: 8, 7: 7, 10: 10}, nowhere, nowhere, [6, 7, 10], []),
        "but none beyond a day that has not changed": ({6: 6, 8: 8, 10: 10}, nowhere, nowhere, [8, 10], [6]),
        "nor what is left anything": ({4: 4, 5: 5, 10: 10}, nowhere, nowhere, [10], [4, 5]),
    }  # fmt: skip
    every = set(range(1, 32))
    found = {
        name: partitions_to_stage(
            {january(day): january(newest) for day, newest in changed.items()},
            [january(10)],
            set(map(january, every - empty)),
            set(map(january, every - unpublished)),
            late_days=2,
        )
        for name, (changed, empty, unpublished, _, _) in cases.items()
    }
    assert {name: ([d.day for d in now], [d.day for d in left]) for name, (now, left) in found.items()} == {
        name: (now, left) for name, (_, _, _, now, left) in cases.items()
    }


def test_a_run_of_several_days_stages_all_of_them_and_counts_lateness_from_the_first():
    changed = {january(7): january(7), january(8): january(8)}
    published = set(map(january, range(1, 32)))
    now, left = partitions_to_stage(changed, [*map(january, (10, 11, 12))], set(changed), published, late_days=2)
    # The 8th is as late as is allowed before the 10th, and draws in the 7th.
    assert ([day.day for day in now], left) == ([7, 8, 10, 11, 12], [])
    now, left = partitions_to_stage(changed, [january(12), january(11)], set(changed), published, late_days=2)
    assert ([day.day for day in now], [day.day for day in left]) == ([11, 12], [7, 8])
