"""How fast habits change is told by what came next."""

import numpy as np
import pytest

from model.data.habits import FADING, SPEEDS, likeliest_habits, spread

# A user with 12, 4 and 2 events in three categories, and one with 3 in a single one.
TOP = {
    "longterm_category_keys": np.array([[22, 21, 7], [5, 0, 0]]),
    "longterm_counts": np.array([[12, 4, 2], [3, 0, 0]]),
    "longterm_shares": np.array([[0.36, 0.16, 0.04], [1.0, 0.0, 0.0]]),
    "longterm_current_counts": np.array([[1, 3, 0], [1, 0, 0]]),
    "longterm_week_counts": np.array([[0, 2, 0], [0, 0, 0]]),
}


def test_interest_at_a_speed_is_a_part_of_all_of_it():
    # 12, 4 and 2 of 18 events; the shares as they are, since others have no place here; 1 and 3 of 4; none of the week.
    np.testing.assert_allclose(spread(TOP["longterm_counts"])[0], [12 / 18, 4 / 18, 2 / 18])
    np.testing.assert_array_equal(spread(TOP["longterm_shares"]), TOP["longterm_shares"])
    np.testing.assert_allclose(spread(TOP["longterm_current_counts"]), [[1 / 4, 3 / 4, 0], [1, 0, 0]])
    np.testing.assert_array_equal(spread(TOP["longterm_week_counts"]), [[0, 1, 0], [0, 0, 0]])


def rows(speed: str, own: int, others: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return users whose one category is told by one speed alone: so many take it again, and the others another."""
    many = own + others
    top = {name: np.zeros((many, 2), np.int64) for name in TOP}
    top["longterm_category_keys"][:, 0] = 9
    top[speed][:, 0] = 1
    came = np.where(np.arange(many) < own, 9, 8)
    return top, came, np.full(many, 0.5)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_the_weight_of_a_speed_is_the_one_that_makes_what_came_likeliest(at):
    # Three of four take again what has all of this speed; all users choose it, and the other, every second time. With h
    # for the speed and 1 - h for all users, 3 log(h + (1 - h) / 2) + log((1 - h) / 2) is greatest at h = 1/2: as much
    # for the one as for the other. The fading history, which says nothing, has 0.05 / 1.05 of all, and a tenth of half
    # of the rest.
    expected = [0.0, 0.1, 0.0, 0.0]
    expected[at] = 1.0
    assert likeliest_habits(*rows(SPEEDS[at], 300, 100)) == pytest.approx(expected, abs=0.002)
    # Nine of ten: 9 (1 - h) = 1 + h, h = 4/5, four times as much; and 0.05 is a quarter of the fifth.
    expected[1], expected[at] = 0.25, 4.0
    assert likeliest_habits(*rows(SPEEDS[at], 90, 10)) == pytest.approx(expected, abs=0.002)
    # One of two: h = 0, and 0.05 as it is.
    expected[1], expected[at] = 0.05, 0.0
    assert likeliest_habits(*rows(SPEEDS[at], 50, 50)) == pytest.approx(expected, abs=0.02)


def test_the_fading_history_counts_as_if_a_twentieth_more_of_the_rows_came_of_it():
    # 3/4 log((1 + h) / 2) + 1/4 log((1 - h) / 2) + 1/20 log h is greatest where 1.05 h^2 - 0.5 h - 0.05 = 0.
    h = (0.5 + np.sqrt(0.46)) / 2.1
    expected = [0, h / (1 - h), 0, 0]
    assert likeliest_habits(*rows("longterm_shares", 300, 100)) == pytest.approx(expected, abs=0.002)


def test_what_a_user_had_long_ago_can_come_again_though_nothing_like_it_did():
    # All come back to what the lookback has, and nobody to the rest of their history.
    top, came, usual = rows("longterm_current_counts", 300, 100)
    top["longterm_week_counts"] = top["longterm_current_counts"]
    top["longterm_shares"] = np.tile([0.0, 1.0], (400, 1))
    found = likeliest_habits(top, came, usual)
    assert found[0] == 0
    assert found[1] == pytest.approx(0.1, abs=0.002)


def test_of_speeds_that_say_the_same_it_is_the_fading_one():
    top, came, usual = rows("longterm_counts", 300, 100)
    for name in SPEEDS:
        top[name] = top["longterm_counts"]
    assert likeliest_habits(top, came, usual) == pytest.approx([0, 1.278, 0, 0], abs=0.002)


def test_users_who_always_come_back_leave_something_for_what_is_new():
    assert sum(likeliest_habits(*rows("longterm_counts", 20, 0))) == pytest.approx(100, abs=0.1)


def test_rows_in_which_nothing_came_next_tell_nothing():
    top, came, usual = rows("longterm_current_counts", 300, 100)
    more = {name: np.concatenate([values, values]) for name, values in top.items()}
    silent = np.zeros_like(came)
    both = likeliest_habits(more, np.concatenate([came, silent]), np.concatenate([usual, usual]))
    assert both == likeliest_habits(top, came, usual)
    assert likeliest_habits(top, silent, usual) == FADING
