"""The gate promotes only what is better beyond chance, and says why in words with numbers."""

import numpy as np
import pandas as pd
import pytest

from model.evaluate import RULE
from model.judging.comparison import DIFFERENCE_COLUMNS, METRIC_COLUMNS, Scores, evaluate
from model.judging.gate import Criterion, Rule, decide
from tests.model.tiny_examples import example, examples

RECALL = ("next_category", "recall@5")


def tables(**gains: tuple[float, float, float] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics and differences of candidate `new`; keys are `<against>__<slice>`, values gain, low, high.

    None leaves a comparison out.
    """
    metrics, differences = [("new", *RECALL, "all", 0.5, 0.4, 0.6, 900, 300)], []
    for name, gain in gains.items():
        against, part = name.split("__")
        metrics.append((against, *RECALL, part, 0.4, 0.3, 0.5, 900, 300))
        if gain is not None:
            differences.append(("new", against, *RECALL, part, *gain, 900, 300))
    return pd.DataFrame(metrics, columns=METRIC_COLUMNS), pd.DataFrame(differences, columns=DIFFERENCE_COLUMNS)


BETTER, LEVEL, WORSE = (0.05, 0.02, 0.08), (0.01, -0.01, 0.03), (-0.05, -0.08, -0.02)


@pytest.mark.parametrize(
    ("gains", "promote", "first_reason"),
    [
        pytest.param(
            {"old__all": BETTER, "old__migrated": BETTER, "popular__all": BETTER},
            True,
            "Better than the champion on recall@5 of next_category (all): gain +0.0500",
            id="better than the champion everywhere, and than the baseline",
        ),
        pytest.param(
            {"old__all": LEVEL, "popular__all": BETTER},
            False,
            "No clear difference from the champion on recall@5 of next_category (all): gain +0.0100, "
            "95 % interval -0.0100 to +0.0300, 300 users.",
            id="better than the champion, but no more than chance explains",
        ),
        pytest.param(
            {"old__all": WORSE, "popular__all": BETTER},
            False,
            "Worse than the champion",
            id="worse than the champion",
        ),
        pytest.param(
            {"old__all": (0.03, 0.0, 0.06), "popular__all": BETTER},
            False,
            "No clear difference from the champion",
            id="better than the champion, but no difference is among what chance explains",
        ),
        pytest.param(
            {"old__all": BETTER, "old__migrated": WORSE, "popular__all": BETTER},
            False,
            "Worse than the champion on recall@5 of next_category (migrated): gain -0.0500, "
            "95 % interval -0.0800 to -0.0200, 300 users; tolerance 0.02.",
            id="much worse on one slice",
        ),
        pytest.param(
            {"old__all": BETTER, "old__migrated": (-0.02, -0.03, -0.01), "popular__all": BETTER},
            True,
            "Better than the champion",
            id="surely worse on one slice, by all that is tolerated",
        ),
        pytest.param(
            {"old__all": BETTER, "old__migrated": (-0.0201, -0.03, -0.01), "popular__all": BETTER},
            False,
            "Worse than the champion on recall@5 of next_category (migrated): gain -0.0201",
            id="surely worse on one slice, by more than is tolerated",
        ),
        pytest.param(
            {"old__all": BETTER, "old__migrated": (-0.05, -0.1, 0.0), "popular__all": BETTER},
            True,
            "Better than the champion",
            id="worse on one slice by more than is tolerated, which chance explains: so do fifty users by 0.05",
        ),
        pytest.param(
            {"old__all": BETTER, "popular__all": BETTER, "trees__all": (0.0, -0.02, 0.02)},
            False,
            "No clear difference from baseline trees",
            id="level with one of the baselines",
        ),
        pytest.param(
            {"old__all": BETTER, "popular__all": BETTER, "trees__all": (0.002, -0.01, 0.014)},
            True,
            "Better than the champion",
            id="ahead of one of the baselines, though no more than chance explains",
        ),
        pytest.param(
            {"old__all": BETTER, "popular__all": BETTER, "scratch__all": WORSE},
            False,
            "Worse than the same network from scratch on recall@5 of next_category (all): gain -0.0500",
            id="pretraining has done harm",
        ),
        pytest.param(
            {"old__all": BETTER, "popular__all": BETTER, "scratch__all": (-0.01, -0.02, 0.0)},
            True,
            "Better than the champion",
            id="pretraining may have done harm, or chance",
        ),
        pytest.param(
            {"old__all": None, "popular__all": BETTER},
            False,
            "Was not compared with the champion on recall@5 of next_category (all).",
            id="the champion was not measured on these rows",
        ),
        pytest.param(
            {"old__all": BETTER, "popular__all": (0.1, float("nan"), float("nan"))},
            False,
            "Was not compared with baseline popular",
            id="the comparison is not defined",
        ),
    ],
)
def test_a_candidate_meets_a_champion(gains, promote, first_reason):
    baselines = sorted({name.split("__")[0] for name in gains} - {"old", "scratch"})
    scratch = "scratch" if "scratch__all" in gains else None
    found = decide("new", "old", baselines, *tables(**gains), RULE, scratch)
    assert found.promote is promote
    assert found.reasons[0].startswith(first_reason)
    assert found.checks["passed"].all() == promote


def test_of_a_stack_the_network_alone_is_compared_with_the_one_from_scratch():
    metrics, differences = tables(old__all=BETTER, popular__all=BETTER, scratch__all=BETTER)
    alone = differences[differences["against"] == "scratch"].assign(method="alone")
    alone[["value", "low", "high"]] = WORSE
    both = pd.concat([differences, alone])
    measured = pd.concat([metrics, metrics.head(1).assign(method="alone")])
    found = decide("new", "old", ["popular"], measured, both, RULE, "scratch", "alone")
    assert not found.promote
    assert found.reasons[0].startswith("Worse than the same network from scratch")
    # A candidate that is no stack is that network itself.
    assert decide("new", "old", ["popular"], metrics, both, RULE, "scratch", "alone").promote


# --- the other answers that are published ---------------------------------------------------------------

HEADS = [("next_items", "recall@20"), ("migrated", "roc_auc"), ("purchased", "roc_auc"), ("churned", "roc_auc")]


def heads(task: str, metric: str, users: int = 300, **gains: tuple[float, float, float]) -> tuple:
    """Return tables of a candidate that has passed everything else; `gains` are those of one head, by method."""
    metrics, differences = tables(old__all=BETTER, popular__all=BETTER)
    more = [("new", name, task, metric, "all", *gain, 900, users) for name, gain in gains.items()]
    own = [(name, task, metric, "all", 0.4, 0.3, 0.5, 900, users) for name in gains]
    return (
        pd.concat([metrics, pd.DataFrame(own, columns=METRIC_COLUMNS)]),
        pd.concat([differences, pd.DataFrame(more, columns=DIFFERENCE_COLUMNS)]),
    )


@pytest.mark.parametrize(("task", "metric"), HEADS)
@pytest.mark.parametrize(
    ("against", "gain", "promote", "reason"),
    [
        pytest.param("old", WORSE, False, "Worse than the champion on {} (all): gain -0.0500", id="fallen"),
        pytest.param("old", (-0.05, -0.1, 0.0), True, "Not worse than the champion on {} (all)", id="fallen by chance"),
        pytest.param("trees", WORSE, True, "Better than baseline popular on recall@5", id="behind the trees"),
        pytest.param("own", (0.001, -0.01, 0.02), True, "Ahead of baseline own, though not by", id="just ahead"),
        pytest.param("own", (0.0, -0.01, 0.01), False, "No clear difference from baseline own on {}", id="no use"),
    ],
)
def test_an_answer_that_is_published_may_not_fall_nor_be_of_no_use(task, metric, against, gain, promote, reason):
    own = RULE.own_baselines[task]
    name = own if against == "own" else against
    metrics, differences = heads(task, metric, **{name: gain})
    found = decide("new", "old", ["popular", "trees", own], metrics, differences, RULE)
    assert found.promote is promote
    words = reason.replace("baseline own", f"baseline {own}").format(f"{metric} of {task}")
    assert any(line.startswith(words) for line in found.reasons), found.reasons
    assert found.reasons[0].startswith(words) is not promote


def test_every_answer_has_a_part_in_the_decision():
    assert RULE.heads == tuple(Criterion(*head) for head in HEADS)


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        pytest.param(WORSE, "Behind the strongest baseline, trees, on {}: gain -0.0500", id="behind"),
        pytest.param((0.01, -0.02, 0.04), "No clear difference from the strongest baseline, trees, on {}", id="level"),
        pytest.param((0.03, 0.01, 0.05), "Better than the strongest baseline, trees, on {}", id="ahead"),
    ],
)
def test_how_items_stand_to_the_strongest_baseline_is_told_and_refuses_nothing(gain, words):
    given = heads("next_items", "recall@20", popular=BETTER, trees=gain, **{"current interest": BETTER})
    found = decide("new", "old", ["popular", "trees", "current interest"], *given, RULE)
    assert found.promote
    assert found.against == []
    (told,) = [line for line in found.reasons if "the strongest baseline" in line]
    assert told.startswith(words.format("recall@20 of next_items (all)"))
    # Being behind is the first thing that is said.
    assert (found.reasons[0] == told) is (gain is WORSE)
    assert told.endswith("300 users, which is told and refuses nothing.") is (gain is WORSE)
    assert found.checks["passed"].all()


def test_what_refuses_is_told_before_the_strongest_baseline():
    metrics, differences = heads("next_items", "recall@20", trees=WORSE, old=WORSE)
    found = decide("new", "old", ["popular", "trees"], metrics, differences, RULE)
    assert not found.promote
    assert [line[:24] for line in found.reasons[:2]] == ["Worse than the champion ", "Behind the strongest bas"]
    assert found.against == found.reasons[:1]


def test_the_strongest_baseline_is_not_told_by_too_few_users_nor_where_none_has_an_answer():
    few = decide("new", "old", ["popular", "trees"], *heads("next_items", "recall@20", 49, trees=WORSE), RULE)
    (told,) = [line for line in few.reasons if "strongest" in line]
    assert told == "Not compared with the strongest baseline on recall@20 of next_items (all): 49 users are too few."
    none = decide("new", "old", ["popular"], *tables(old__all=BETTER, popular__all=BETTER), RULE)
    assert not [line for line in none.reasons if "strongest" in line]


def test_an_answer_that_too_few_users_can_judge_decides_nothing():
    for users, promote in ((49, True), (50, False)):
        found = decide("new", "old", ["popular"], *heads("churned", "roc_auc", users, old=WORSE), RULE)
        assert found.promote is promote


def test_no_gain_is_certain_on_fewer_users_than_the_gate_wants():
    # One user, or two who agree: each resample is the same, so the interval is a point.
    for users, promote in ((1, False), (49, False), (50, True)):
        metrics, differences = tables(old__all=(0.2, 0.2, 0.2), popular__all=(0.2, 0.2, 0.2))
        found = decide("new", "old", ["popular"], metrics, differences.assign(users=users), RULE)
        assert found.promote is promote
    few = decide("new", "old", ["popular"], metrics, differences.assign(users=1), RULE)
    assert few.reasons[0] == (
        "Too few users to compare with the champion on recall@5 of next_category (all): 1, and the gate wants 50."
    )


# --- the rule of model.evaluate, on models that are measured --------------------------------------------

USERS = 60
CATEGORIES = [f"c{n:02d}" for n in range(12)]


def ranks(*of: tuple[int, int]) -> np.ndarray:
    """Return a rank for each user: so many users with that rank, one group after the other."""
    return np.repeat([rank for _, rank in of], [users for users, _ in of])


def scores(name: str, places: np.ndarray) -> Scores:
    """Return what a method says that puts the true category, the first one, at these ranks."""
    found = np.zeros((USERS, len(CATEGORIES)))
    found[:, 0] = 1
    for row, rank in enumerate(places):
        found[row, 1:rank] = 2
    return Scores(name, found)


HALF = ranks((30, 1), (30, 11))


@pytest.mark.parametrize(
    ("new", "old", "baseline", "promote", "reason"),
    [
        pytest.param(
            ranks((29, 1), (1, 11), (20, 1), (10, 11)), HALF, HALF, True, "Better than the champion",
            id="right for twenty users more, and for one less",
        ),
        pytest.param(
            ranks((29, 1), (1, 11), (2, 1), (28, 11)), HALF, HALF, False, "No clear difference from the champion",
            id="right for two users more and one less: chance",
        ),
        pytest.param(HALF, HALF, ranks((60, 11)), False, "No clear difference from the champion", id="as good"),
        pytest.param(
            ranks((30, 1), (30, 6)), HALF, ranks((60, 11)), False, "No clear difference from the champion",
            id="better, but behind the fifth place",
        ),
        pytest.param(
            ranks((50, 5), (10, 11)), ranks((30, 5), (30, 6)), ranks((60, 11)), True, "Better than the champion",
            id="better at the fifth place",
        ),
        pytest.param(
            HALF, ranks((50, 1), (10, 11)), ranks((60, 11)), False, "Worse than the champion",
            id="wrong for twenty users more",
        ),
        pytest.param(
            ranks((60, 1)), HALF, ranks((60, 1)), False, "No clear difference from baseline popular",
            id="better than the champion, and no better than a baseline",
        ),
        pytest.param(
            ranks((29, 1), (1, 11), (2, 1), (28, 11)), None, HALF, True, "Ahead of baseline popular, though not by",
            id="the first one, ahead of a baseline by chance",
        ),
        pytest.param(
            HALF, None, ranks((29, 1), (1, 11), (2, 1), (28, 11)), False, "No clear difference from baseline popular",
            id="the first one, behind a baseline by chance",
        ),
    ],
)  # fmt: skip
def test_a_model_takes_the_champions_place_only_by_a_gain_beyond_chance(new, old, baseline, promote, reason):
    rows = examples(*(example(f"u{n}", ["c01"], ["c00"]) for n in range(USERS)))
    methods = [scores("model", new), scores("popular", baseline)]
    methods += [] if old is None else [scores("champion", old)]
    found = evaluate(rows, rows, CATEGORIES, methods, ["model"], resamples=200)
    champion = None if old is None else "champion"
    decision = decide("model", champion, ["popular"], found.metrics, found.differences, RULE)
    assert decision.promote is promote
    assert decision.reasons[0].startswith(reason)


# --- what it asks of whom -------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "promote"), [(BETTER, True), (LEVEL, False), (WORSE, False)])
def test_the_first_champion_has_to_beat_every_baseline(gain, promote):
    found = decide("new", None, ["popular", "trees"], *tables(popular__all=BETTER, trees__all=gain))
    assert found.promote is promote
    assert found.reasons[-1] == "There was no champion to compare with: only the baselines had to be beaten."
    assert len(found.checks) == 2


def test_what_speaks_against_it_comes_first():
    gains = {"old__all": BETTER, "popular__all": WORSE}
    found = decide("new", "old", ["popular"], *tables(**gains))
    assert found.reasons[0].startswith("Worse than baseline popular")
    assert str(found).startswith("Not promoted.\n- Worse than baseline popular")


@pytest.mark.parametrize(("users", "promote"), [(49, True), (50, False)])
def test_a_slice_of_few_users_decides_nothing(users, promote):
    metrics, differences = tables(old__all=BETTER, old__migrated=WORSE, popular__all=BETTER)
    differences.loc[differences["slice"] == "migrated", "users"] = users
    found = decide("new", "old", ["popular"], metrics, differences, RULE)
    assert found.promote is promote
    passed_over = (
        "Not compared with the champion on recall@5 of next_category (migrated): 49 users, and the gate wants 50."
    )
    assert (passed_over in found.reasons) is promote


def test_a_slice_on_which_the_metric_is_not_defined_decides_nothing():
    nothing = (float("nan"), float("nan"), float("nan"))
    found = decide(
        "new", "old", ["popular"], *tables(old__all=BETTER, old__migrated=nothing, popular__all=BETTER), RULE
    )
    assert found.promote
    assert any(
        reason.startswith("Not compared with the champion on recall@5 of next_category (migrated)")
        for reason in found.reasons
    )


def test_less_is_better_for_losses():
    metrics, differences = tables(old__all=(-0.05, -0.08, -0.02), popular__all=(-0.05, -0.08, -0.02))
    losses = [table.assign(metric="log_loss", task="churned") for table in (metrics, differences)]
    found = decide("new", "old", ["popular"], *losses, Rule(Criterion("churned", "log_loss")))
    assert found.promote
    assert found.checks[["gain", "low", "high"]].iloc[0].tolist() == [0.05, 0.02, 0.08]


def test_baselines_are_asked_only_for_what_they_answer():
    metrics, differences = tables(popular__all=BETTER, trees__all=BETTER)
    churn = [table.assign(task="churned", metric="roc_auc") for table in tables(trees__all=BETTER)]
    both = (Criterion(*RECALL), Criterion("churned", "roc_auc"))
    found = decide(
        "new",
        None,
        ["popular", "trees"],
        pd.concat([metrics, churn[0]]),
        pd.concat([differences, churn[1]]),
        Rule(better_than_baselines=both),
    )
    assert found.promote
    assert found.checks["against"].tolist() == ["baseline popular", "baseline trees", "baseline trees"]


def test_a_criterion_that_no_baseline_answers_lets_nothing_through():
    rule = Rule(better_than_baselines=(Criterion("churned", "roc_auc"),))
    found = decide("new", None, ["popular"], *tables(popular__all=BETTER), rule)
    assert not found.promote
    assert found.reasons[0].startswith("No baseline was measured on roc_auc of churned (all)")


@pytest.mark.parametrize(("certain", "promote"), [(True, False), (False, True)])
def test_being_ahead_of_a_baseline_within_chance_is_enough_only_where_the_rule_says_so(certain, promote):
    found = decide(
        "new", None, ["trees"], *tables(trees__all=(0.002, -0.005, 0.009)), Rule(certain_over_baselines=certain)
    )
    assert found.promote == promote
    assert ("Ahead of baseline trees, though not by more than chance" in found.reasons[0]) == promote
    behind = decide(
        "new", None, ["trees"], *tables(trees__all=(-0.002, -0.009, 0.005)), Rule(certain_over_baselines=certain)
    )
    assert not behind.promote


def test_a_gate_without_baselines_is_refused():
    with pytest.raises(ValueError, match="at least one baseline"):
        decide("new", None, [], *tables(old__all=BETTER))
