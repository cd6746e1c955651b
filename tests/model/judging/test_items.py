"""The blend and the trees of items name what simple methods know, and trust each as validation bears it out."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from model.judging.baselines import Baseline, CoVisits, MarkovChain, cheap_baselines, with_items
from model.judging.items import ItemBlend, ItemCandidates, ItemTrees, _Recall, by_newest_third, item_methods
from tests.model.item_histories import history
from tests.model.tiny_examples import example, examples

EVER = history(
    x=[("2026-01-01", 11), ("2026-01-20", 12), ("2026-01-20", 12), ("2026-01-30", 11), ("2026-01-30", 11)],
    y=[("2026-01-30", 13)],
)


class Says(Baseline):
    """Gives fixed weights to fixed items."""

    name = "says"
    tasks = ("next_item",)

    def __init__(self, **weights: float):
        self.weights = {int(name.removeprefix("i")): weight for name, weight in weights.items()}

    def item_scores(self, frame):
        keys = np.array(sorted(self.weights))
        return sparse.csr_matrix(np.tile([float(self.weights[key]) for key in keys], (len(frame), 1))), keys


def candidates(*parts: Baseline, ever=EVER, most_each: int = 100) -> ItemCandidates:
    known = ItemCandidates(ever, most_each)
    known.parts = list(parts)
    return known


def row(user: str = "x", day: str = "2026-01-31", came: tuple[int, ...] = ()) -> dict:
    return example(user, ["tea"], ["tea"] if came else [], day=day, next_items=came)


def test_pairs_hold_what_each_method_gives_of_all_that_it_gives_to_its_candidates():
    train = examples(row(came=(14,)))
    known = candidates(Says(i11=3, i12=1, i99=4), Says(i12=1, i14=7), most_each=2).fit(train, train, ["tea"])
    # 99 is neither in a history nor came to anyone, so it is no item; the first method names 99 and 11 first.
    assert known.keys.tolist() == [11, 12, 13, 14]
    frame = examples(row(), row("y", came=(14, 98)))
    pairs = known.pairs(frame)
    assert pairs.rows.tolist() == [0, 0, 0, 1, 1, 1]
    assert known.keys[pairs.columns].tolist() == [11, 12, 14] * 2
    assert pairs.shares[:3].tolist() == [[3 / 8, 0], [0, 1 / 8], [0, 7 / 8]]
    assert known.came(pairs, frame).tolist() == [False] * 5 + [True]


def test_recall_of_pairs_counts_all_that_came_and_looks_at_twenty():
    # Row 0 has 25 candidates, of which the last came; row 1 has one, and two came.
    rows, came = np.array([0] * 25 + [1]), np.array([False] * 24 + [True, True])
    judge = _Recall(rows, came, np.array([1, 2]))
    rising = np.arange(26.0)
    assert judge.of(rising) == pytest.approx((1 + 1 / 2) / 2)
    assert judge.of(-rising + 30) == pytest.approx((0 + 1 / 2) / 2)


def test_the_blend_trusts_the_method_that_knows():
    # One method names what comes, the other 25 items that do not.
    ever = history(x=[("2026-01-01", item) for item in range(30)])
    valid = examples(*(row(came=(1, 2)) for _ in range(3)))
    knows, guesses = Says(i1=2, i2=1), Says(**{f"i{n}": 9 for n in range(3, 28)})
    blend = ItemBlend(candidates(knows, guesses, ever=ever)).fit(valid, valid, ["tea"])
    assert blend.weights.tolist() == pytest.approx([1, 0])
    assert blend.next_item(examples(row()), 3).tolist() == [[1, 2, 0]]
    # Weights as shares of a mixture: 5 came of the one, and of the other all the same; none of both.
    half = examples(row(came=(1, 2)), row(came=(1, 2)), row(came=(4,)))
    blend = ItemBlend(candidates(knows, guesses, ever=ever))
    blend.steps = ()
    assert blend.fit(half, half, ["tea"]).weights.tolist() == pytest.approx([4 / 5, 1 / 5])


def test_the_blend_raises_what_ranks_well_though_it_is_not_likeliest():
    # 1 comes to each row. The first method gives it 0.04, and more to 21 others, so that it is not among twenty; the
    # second puts it first with 0.03.
    ever = history(x=[("2026-01-01", item) for item in range(130)])
    likely = Says(i1=40, **{f"i{n}": 960 / 21 for n in range(2, 23)})
    ranks_well = Says(i1=30, **{f"i{n}": 10 for n in range(30, 127)})
    valid = examples(*(row(came=(1,)) for _ in range(3)))
    blend = ItemBlend(candidates(likely, ranks_well, ever=ever)).fit(valid, valid, ["tea"])
    assert blend.weights.tolist() == [0, 1]
    assert blend.next_item(examples(row()), 2).tolist()[0][0] == 1


def test_without_validation_rows_all_methods_count_alike():
    train = examples(row(came=(11,)))
    blend = ItemBlend(candidates(Says(i11=1), Says(i12=1))).fit(train, train.head(0), ["tea"])
    assert blend.weights.tolist() == [0.5, 0.5]


def test_trees_learn_from_the_newest_third_of_dates_with_what_was_known_before_them():
    days = [f"2025-{month:02}-01" for month in range(1, 10)]
    train, valid = examples(*(row(day=day) for day in days)), examples(row(day="2025-11-02"))
    older, newer = by_newest_third(train, valid)
    assert newer["dt"].dt.month.tolist() == [7, 8, 9]
    # The gap is 62 days: what came after the first of April was known by the first of July, of May it was not.
    assert older["dt"].dt.month.tolist() == [1, 2, 3, 4]
    few = by_newest_third(train.head(1), valid)
    assert [len(part) for part in few] == [0, 1]
    assert [len(part) for part in by_newest_third(train.head(0), valid)] == [0, 0]


def test_rows_without_items_or_a_history_teach_nothing():
    frame = examples(row(came=(11,)), row("z", came=(11,)), row())
    assert with_items(frame, EVER).index.tolist() == [0]


def test_trees_see_how_much_how_lately_and_how_regularly_the_user_took_an_item():
    known = candidates(Says(i11=3, i12=1, i13=4)).fit(*[examples(row())] * 2, ["tea"])
    frame = examples(row("y"), row())
    trees = ItemTrees(known)
    found = trees._features(frame, known.pairs(frame), known)
    # Share and rank by one method, nine numbers of the item, five of the user and two of the history.
    assert found.shape == (6, 2 + 9 + 5 + 2)
    # Of y and 13, which was taken once on the day before; of x and 11: three times on two dates, 29 days apart.
    names = ("share", "rank", "count", "part", "days", "age", "newest", "by_count", "by_days", "interval", "overdue")
    of_y, of_x = (dict(zip(names, found[at, :11].tolist(), strict=True)) for at in (2, 3))
    expected = {"share": 4 / 8, "rank": 0, "count": 1, "part": 1, "days": 1, "age": 1, "newest": 0}
    assert of_y == pytest.approx(
        expected | {"by_count": 0, "by_days": 0, "interval": np.nan, "overdue": np.nan}, nan_ok=True
    )
    expected = {"share": 3 / 8, "rank": 1, "count": 3, "part": 3 / 5, "days": 2, "age": 1, "newest": 0}
    assert of_x == pytest.approx(expected | {"by_count": 0, "by_days": 0, "interval": 29, "overdue": 1 / 29})
    assert np.isnan(found[5, 2:11]).all()  # x never took 13
    # Events of the user, and kinds among them.
    np.testing.assert_allclose(found[:, -2:], [[1, 1]] * 3 + [[5, 2 / 5]] * 3, rtol=1e-6)


def test_trees_learn_of_an_item_what_its_own_user_did_with_it_whatever_others_take_later():
    # Item 5 comes only in the newest rows, to a user whose history is not known, and its key is the smallest.
    ever = history(x=[("2025-01-01", 11)] * 3 + [("2025-01-02", 12)])
    older, newer = examples(row(day="2025-01-31", came=(11,))), row(day="2025-09-30", came=(11,))
    newer = examples(newer, row("z", "2025-09-30", came=(5,)))
    now, before = (candidates(Says(i11=3, i12=1), ever=ever) for _ in range(2))
    trees = ItemTrees(now.fit(pd.concat([older, newer]), newer, ["tea"]))
    seen, came = trees._labelled(newer, before.fit(older, newer, ["tea"]), 100)
    assert (now.keys.tolist(), before.keys.tolist()) == ([5, 11, 12], [11, 12])
    assert seen[:, 2].tolist() == [3, 1]  # how often
    assert came.tolist() == [1, 0]


WEEKS = pd.date_range("2025-01-04", periods=26, freq="7D")


@pytest.fixture(scope="module")
def shop():
    """Return a history and rows of users who take each of their items, once they know it, every so many weeks.

    How often on a date is chance, and so is since when, so that the number of events does not tell the rhythm. Other
    users are in one training row alone, and take there what nobody else does.
    """
    draws = np.random.default_rng(3)
    events: dict[str, list] = {}
    for user in range(80):
        own = (draws.permutation(1000)[:50] + 1001, draws.integers(2, 8, 50), draws.integers(0, 14, 50))
        events[f"u{user:03}"] = [
            (str((week - pd.Timedelta(days=3)).date()), item)
            for number, week in enumerate(WEEKS)
            for item, period, first in zip(*(values.tolist() for values in own), strict=True)
            if number >= first and (number - first) % period == 0
            for _ in range(draws.integers(1, 5))
        ]
    rows = [
        example(user, ["tea"], ["tea"], day=str(week.date()), next_items=list(dict.fromkeys(
            item for day, item in of_user if week < pd.Timestamp(day) <= week + pd.Timedelta(days=7)
        )))
        for user, of_user in events.items() for week in WEEKS[15:-1]
    ]  # fmt: skip
    rows += [
        example(f"z{n}", ["tea"], ["tea"], day=str(WEEKS[20 + n % 2].date()), next_items=[1 + n]) for n in range(40)
    ]
    return history(**events), examples(*rows)


def test_trees_find_the_rhythm_of_each_item(shop, monkeypatch):
    ever, rows = shop
    fitted, fit = [], ItemCandidates.fit

    def noted(known: ItemCandidates, train: pd.DataFrame, valid: pd.DataFrame, ids: list[str]) -> ItemCandidates:
        fitted.append([sorted(set(part["dt"])) for part in (train, valid)])
        return fit(known, train, valid, ids)

    monkeypatch.setattr(ItemCandidates, "fit", noted)
    days = sorted(rows["dt"].unique())
    train, valid, test = (rows[rows["dt"].isin(part)] for part in (days[:-3], days[-2:-1], days[-1:]))
    trees = ItemTrees(ItemCandidates(ever), rounds=60, threads=1).fit(train, valid, ["tea"])
    assert trees.tasks == ("next_item",)
    # What the trees are shown of the last two training dates was known at the first of these.
    assert fitted == [[days[:-3], days[-2:-1]], [days[:-6], days[-5:-3]]]

    # Which of fifty comes this week follows from how long it has been away and how long it stays away: no method says.
    def found(method: Baseline) -> float:
        lists = method.next_item(test, 20)
        return np.mean([np.isin(came, own).mean() for own, came in zip(lists, test["next_item_keys"], strict=True)])

    assert found(trees) > 0.9
    assert found(ItemBlend(trees.candidates).fit(train, valid, ["tea"])) < 0.6


def test_trees_have_no_answer_where_there_is_too_little_to_learn_from(shop):
    ever, rows = shop
    day = rows["dt"].min()
    few = rows[rows["dt"] == day]
    trees = ItemTrees(ItemCandidates(ever)).fit(few, rows[rows["dt"] == rows["dt"].max()], ["tea"])
    assert trees.tasks == ()
    with pytest.raises(NotImplementedError, match="boosted trees of items does not predict items"):
        trees.next_item(few, 3)


def test_trees_do_not_learn_from_dates_of_which_older_events_are_not_known(shop, caplog):
    caplog.set_level("INFO")
    ever, rows = shop
    days = sorted(rows["dt"].unique())
    train, valid = (rows[rows["dt"].isin(part)] for part in (days[:-3], days[-2:-1]))
    # They learn from the newest two of seven dates.
    for since, tasks in ((days[-5], ("next_item",)), (days[-5] + pd.Timedelta(days=1), ())):
        known = ItemCandidates(replace(ever, since=since.date()))
        trees = ItemTrees(known, most_pairs=20_000, rounds=2, threads=1).fit(train, valid, ["tea"])
        assert trees.tasks == tasks
    assert (
        f"have no answer: what users took is known from {since.date()} on, after the first date to learn from"
        in caplog.text
    )


def test_methods_of_items_do_not_let_the_simple_ones_learn_once_more(shop, monkeypatch):
    learnt = []
    for kind in (CoVisits, MarkovChain):
        learn = kind.learn
        monkeypatch.setattr(kind, "learn", lambda self, *rows, learn=learn: (learnt.append(self), learn(self, *rows)))
    ever, rows = shop
    train, valid = (rows[rows["dt"] == day] for day in (rows["dt"].min(), rows["dt"].max()))
    simple = cheap_baselines(ever)
    blend, trees = item_methods(ever, 1, simple)
    for method in (*simple, blend):
        method.fit(train, valid, ["tea"])
    assert [type(method) for method in learnt] == [MarkovChain, CoVisits]
    assert blend.candidates is trees.candidates
    names = ["most popular", "last category", "current interest", "whole history", "decayed history", "Markov chain"]
    assert [part.name for part in blend.candidates.parts] == [*names, "session kNN", "co-visited items"]
    assert [part.name for part in ItemCandidates(ever).parts] == [part.name for part in blend.candidates.parts]
    # Of other rows, or for other categories, they learn anew.
    learnt.clear()
    simple[5].fit(train, valid, ["tea", "milk"]).fit(valid, valid, ["tea", "milk"]).fit(valid, train, ["tea", "milk"])
    assert len(learnt) == 3


def test_trees_make_no_more_pairs_than_the_budget(shop):
    ever, rows = shop
    known = ItemCandidates(ever).fit(rows, rows, ["tea"])
    trees = ItemTrees(known)
    every = trees._labelled(rows.head(600), known, 10**9)
    assert len(every[0]) == len(every[1]) > 600
    some = trees._labelled(rows.head(600), known, len(every[0]) - 1)
    assert 0 < len(some[0]) < len(every[0])
