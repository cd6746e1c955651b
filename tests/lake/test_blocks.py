"""Blocks of landing days cover a span exactly, and none crosses a day at which something changes."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lake.blocks import block_of, cover, cuts_of
from lake.rules import BLOCK_DAYS

days = st.dates(date(2024, 1, 1), date(2025, 12, 31))


@given(days, st.integers(0, 400), st.sampled_from([BLOCK_DAYS, (2, 4), ()]), st.lists(days, max_size=4))
def test_each_day_is_in_one_block_and_no_block_crosses_a_cut(first, length, sizes, cuts):
    last = first + timedelta(days=length)
    blocks = cover(first, last, sizes, cuts)
    assert [day for block in blocks for day in block.days] == [first + timedelta(days=n) for n in range(length + 1)]
    for block in blocks:
        assert len(block.days) in {1, *sizes}
        assert block == block_of(block.first, len(block.days)), "aligned, so that every date asks for the same blocks"
        assert not [cut for cut in cuts if block.first < cut <= block.last]


@given(days)
def test_a_year_is_a_few_dozen_blocks_whatever_the_day(day):
    blocks = cover(day - timedelta(days=364), day, BLOCK_DAYS, cuts_of([day], 30, 365))
    # Up to 7 days and 7 blocks of 8 days on each side of the blocks of 64, and the same around the two cuts within.
    assert len(blocks) <= 50


def test_a_state_changes_on_the_first_day_of_each_of_its_spans_and_after_t():
    assert cuts_of([date(2025, 3, 31)], 30, 365) == {
        date(2025, 4, 1),
        date(2025, 3, 25),  # the seventh day up to T
        date(2025, 3, 2),  # the thirtieth
        date(2024, 4, 1),  # the 365th
    }
