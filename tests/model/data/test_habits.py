"""How fast habits change is told by what came next, and decides with which weight a category comes again."""

import numpy as np
import pytest

from model.data.habits import FADING, comes_again, likeliest_habits

# A user with 12, 4 and 2 events in three categories, and one with 3 in a single one.
TOP = {
    "longterm_category_keys": np.array([[22, 21, 7], [5, 0, 0]]),
    "longterm_counts": np.array([[12, 4, 2], [3, 0, 0]]),
    "longterm_shares": np.array([[0.36, 0.16, 0.04], [1.0, 0.0, 0.0]]),
    "longterm_current_counts": np.array([[1, 3, 0], [1, 0, 0]]),
    "longterm_week_counts": np.array([[0, 2, 0], [0, 0, 0]]),
}


def test_each_speed_adds_its_part_of_the_interest_times_its_weight():
    # 12, 4 and 2 of 18 events; the shares as they are, since others have no place here; 1 and 3 of 4; both of the week.
    of_the_first = [
        2 * 12 / 18 + 3 * 0.36 + 5 * 1 / 4,
        2 * 4 / 18 + 3 * 0.16 + 5 * 3 / 4 + 7 * 1,
        2 * 2 / 18 + 3 * 0.04,
    ]
    found = comes_again(TOP, (2.0, 3.0, 5.0, 7.0))
    np.testing.assert_allclose(found, [of_the_first, [2 + 3 + 5, 0, 0]])


def test_a_model_that_does_not_say_goes_by_the_shares_of_the_table():
    assert (comes_again(TOP, FADING) == TOP["longterm_shares"]).all()


def rows(speed: str, own: int, others: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return users whose one category is told by one speed alone: so many take it again, and the others another."""
    many = own + others
    top = {name: np.zeros((many, 2), np.int64) for name in TOP}
    top["longterm_category_keys"][:, 0] = 9
    top[speed][:, 0] = 1
    came = np.where(np.arange(many) < own, 9, 8)
    return top, came, np.full(many, 0.5)


@pytest.mark.parametrize("at", range(4))
def test_the_weight_of_a_speed_is_the_one_that_makes_what_came_likeliest(at):
    speed = ("longterm_counts", "longterm_shares", "longterm_current_counts", "longterm_week_counts")[at]
    # Three of four take again what has all of this speed; all users choose it, and the other, every second time. With h
    # for the speed and 1 - h for all users, 3 log(h + (1 - h) / 2) + log((1 - h) / 2) is greatest at h = 1/2: as much
    # for the one as for the other.
    expected = [0.0] * 4
    expected[at] = 1.0
    assert likeliest_habits(*rows(speed, 300, 100)) == pytest.approx(expected, abs=0.002)
    # One of two: h = 0. Nine of ten: 9 (1 - h) = 1 + h, h = 4/5, four times as much.
    assert likeliest_habits(*rows(speed, 50, 50)) == pytest.approx([0.0] * 4, abs=0.02)
    expected[at] = 4.0
    assert likeliest_habits(*rows(speed, 90, 10)) == pytest.approx(expected, abs=0.002)


def test_users_who_always_come_back_leave_something_for_what_is_new():
    assert sum(likeliest_habits(*rows("longterm_counts", 20, 0))) == pytest.approx(100, abs=0.1)


def test_rows_in_which_nothing_came_next_tell_nothing():
    top, came, usual = rows("longterm_current_counts", 300, 100)
    more = {name: np.concatenate([values, values]) for name, values in top.items()}
    silent = np.zeros_like(came)
    both = likeliest_habits(more, np.concatenate([came, silent]), np.concatenate([usual, usual]))
    assert both == likeliest_habits(top, came, usual)
    assert likeliest_habits(top, silent, usual) == FADING
