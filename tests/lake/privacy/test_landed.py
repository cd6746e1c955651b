"""Rows of forgotten users in the landing count once: of each user by one request, and of that the most of a day."""

from datetime import date

from lake.privacy.forgotten import ForgottenUsers, first_named, list_users, request_of
from lake.privacy.landed import note_landed, read_landed


def test_a_user_is_new_to_the_first_request_that_names_them_also_when_it_is_repeated(lake):
    assert first_named("forget-0", ["ann"]) == frozenset()
    both = ["ann", "bob"]
    first = list_users(both)
    assert list_users(both) == first == request_of(ForgottenUsers.read(), both)
    second = list_users(["bob", "cem"])
    assert first_named(first, both) == {"ann", "bob"}
    assert first_named(second, ["bob", "cem"]) == {"cem"}


def test_a_request_that_finds_what_is_left_has_found_all_that_was_there(lake):
    first, second = date(2025, 1, 1), date(2025, 1, 2)
    note_landed("forget-1", {first: 5})
    note_landed("forget-1", {first: 2, second: 1})
    assert [each.rows for each in read_landed()] == [{first: 5, second: 1}]
