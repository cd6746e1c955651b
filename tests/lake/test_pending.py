"""Days that do not know of a change: found as by looking at each of them."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lake.backfill.pending import Pending

JAN_1 = date(2025, 1, 1)


def day(number: int) -> date:
    return JAN_1 + timedelta(days=number)


def test_a_day_is_taken_at_both_ends_and_never_by_the_version_that_it_was_computed_from():
    pending = Pending({day(n): version for n, version in enumerate((5, 7, 5, 6, 5))})
    assert pending.take(day(0), day(2), 5) == [], "they know version 5"
    assert pending.take(day(0), day(2), 6) == [day(0), day(2)]
    assert pending.take(day(0), day(2), 6) == [], "once"
    assert pending.take(day(2), day(4), 7) == [day(3), day(4)]
    assert pending.take(day(-9), day(9), 8) == [day(1)]
    assert Pending({}).take(day(0), day(9), 8) == []


# Some days in a row, and changes: their first day, how many more they reach, and the version.
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(-1, 12), st.integers(0, 6), st.integers(1, 6)), min_size=3, max_size=12),
)
def test_each_day_is_taken_by_the_first_change_that_it_does_not_know(versions, changes):
    left = {day(n): version for n, version in enumerate(versions)}
    pending = Pending(left)
    for first, more, version in changes:
        begin, end = day(first), day(first + more)
        expected = [known for known in sorted(left) if begin <= known <= end and left[known] < version]
        assert pending.take(begin, end, version) == expected
        for taken in expected:
            del left[taken]
