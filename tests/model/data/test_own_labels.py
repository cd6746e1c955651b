"""Labels of a training with differential privacy: no other user has a part in them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from model.data.own_labels import own_labels
from model.data.vocabulary import Vocabulary

CATEGORIES = Vocabulary("category_id", np.array([11, 12, 13]), ["a", "b", "c"], 1)


def row(user="u", names=("a", "b"), shares=(0.5, 0.5), now="c", p=0.01, migrated=True, key=None) -> dict:
    """Return a row whose label in the table is its first category, as `jobs.examples` writes it."""
    first = {"a": 11, "b": 12, "c": 13}.get(names[0], 99) if names else 0
    return {
        "user_id": user,
        "next_categories": np.array(names, object),
        "next_shares": np.array(shares),
        "dominant_category": now,
        "g_p_value": p,
        "migrated": migrated,
        "next_category_key": first if key is None else key,
    }


def labels(*rows: dict) -> list[tuple]:
    frame = pd.DataFrame(list(rows)).astype({"migrated": "boolean"})
    found = own_labels(frame, CATEGORIES)
    assert list(found.columns) == list(frame.columns)
    moved = [None if pd.isna(value) else value for value in found["migrated"]]
    return list(zip(found["next_category_key"], moved, strict=True))


def choice(user: str) -> str:
    return {11: "a", 12: "b"}[labels(row(user))[0][0]]


# One user of each kind, whatever the hash is.
FOR_A = next((user for user in map(str, range(100)) if choice(user) == "a"), "nobody")
FOR_B = next((user for user in map(str, range(100)) if choice(user) == "b"), "nobody")


def test_which_of_two_equal_categories_all_users_turn_to_more_changes_nothing():
    # The table has the more popular one first: here once one and once the other.
    users = [f"user-{number}" for number in range(60)]
    one = labels(*(row(user, ("a", "b", "c"), (0.4, 0.4, 0.2)) for user in users))
    other = labels(*(row(user, ("b", "a", "c"), (0.4, 0.4, 0.2)) for user in users))
    assert one == other
    assert {key for key, _ in one} == {11, 12}


def test_the_rows_of_others_change_nothing():
    alone = labels(row(FOR_B))
    assert labels(row(FOR_A), row(FOR_B), row("x", ("c",), (1.0,)))[1:2] == alone


def test_no_category_is_before_others_for_all_users():
    chosen = [choice(f"user-{number}") for number in range(400)]
    assert binomtest(chosen.count("a"), len(chosen)).pvalue > 1e-6


@pytest.mark.parametrize(
    ("given", "label"),
    [
        pytest.param(row(names=("b", "a"), shares=(0.6, 0.4)), (12, True), id="no tie: as in the table"),
        pytest.param(row(names=("z",), shares=(1.0,)), (99, True), id="no tie, not in the vocabulary"),
        pytest.param(row(names=(), shares=(), key=0, migrated=None), (0, None), id="no event"),
        pytest.param(
            row(FOR_B, shares=(0.5, 0.5), now="b", migrated=True), (12, False), id="stays with the chosen one"
        ),
        pytest.param(
            row(FOR_B, shares=(0.5, 0.5), now="a", migrated=False), (12, True), id="leaves for the chosen one"
        ),
        pytest.param(row(FOR_B, now="a", p=0.05, migrated=False), (12, False), id="no more than counting noise"),
        pytest.param(row(FOR_B, migrated=None, p=None), (12, None), id="nobody can know"),
        pytest.param(row(FOR_A, names=("b", "a", "c"), shares=(0.4, 0.4, 0.2)), (11, True), id="not the third"),
        pytest.param(row(names=("y", "z")), (0, True), id="tied, and not in the vocabulary"),
        pytest.param(row() | {"next_shares": None, "next_categories": None}, (11, True), id="a table without lists"),
    ],
)
def test_the_label_of_a_row(given, label):
    assert labels(given) == [label]
