"""The gate: may a candidate become champion? A decision in plain words, from the tables of comparison.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from model.judging.metrics import LOWER_IS_BETTER


@dataclass(frozen=True)
class Criterion:
    """One number on which methods are compared.

    Attributes:
        task: as in `Comparison.metrics`, e.g. `next_category` or `churned`.
        metric: e.g. `recall@5` or `roc_auc`.
        slice: e.g. `all` or `migrated`.
    """

    task: str
    metric: str
    slice: str = "all"

    def __str__(self) -> str:
        return f"{self.metric} of {self.task} ({self.slice})"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.metric in LOWER_IS_BETTER else 1


@dataclass(frozen=True)
class Rule:
    """What the gate asks for.

    Attributes:
        better_than_champion: the candidate's gain over the champion has to lie above 0 with its whole interval.
        better_than_baselines: the same over every baseline, for each of these; a baseline that has no answer to a task
            is not asked. Empty: `better_than_champion` alone.
        certain_over_baselines: whether the gain over a baseline, too, has to lie above 0 with its whole interval;
            else the gain itself has to.
        heads: one number for each other answer that is published. On none of them may the candidate be worse than the
            champion by more than chance explains.
        own_baselines: by task of `heads`, the simple baseline that the candidate has to be ahead of: an answer that a
            line in a query gives as well is not worth publishing.
        strongest: numbers on which the candidate is also compared with the strongest of all baselines. To be behind is
            told before all that speaks for the candidate, and refuses nothing.
        tolerance: a slice on which the candidate is worse than the champion by more than chance explains, and by more
            than this, in the metric's unit, is refused.
        fewest_users: fewer users than this decide nothing: a gain on so few is not taken as one, and slices and heads
            are passed over.
    """

    better_than_champion: Criterion = field(default_factory=lambda: Criterion("next_category", "recall@5"))
    better_than_baselines: tuple[Criterion, ...] = ()
    certain_over_baselines: bool = True
    heads: tuple[Criterion, ...] = ()
    own_baselines: Mapping[str, str] = field(default_factory=dict)
    strongest: tuple[Criterion, ...] = ()
    tolerance: float = 0.02
    fewest_users: int = 50


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        promote: true when the candidate becomes champion.
        reasons: in words with numbers; first what speaks against it, then what speaks for it.
        checks: one row for each comparison: `passed`, `against`, `criterion`, `gain` (positive: the candidate is
            better), `low`, `high`, `users`, `asked` (what was wanted).
    """

    promote: bool
    reasons: list[str]
    checks: pd.DataFrame

    @property
    def against(self) -> list[str]:
        """The reasons that speak against the candidate: as many of the first as checks have failed."""
        return self.reasons[: int((~self.checks["passed"]).sum())]

    def __str__(self) -> str:
        return "\n".join([("Promoted." if self.promote else "Not promoted."), *(f"- {r}" for r in self.reasons)])


@dataclass(frozen=True)
class _Check:
    passed: bool
    against: str
    criterion: str
    gain: float
    low: float
    high: float
    users: int
    asked: str
    words: str
    behind: bool = False


_NAN = float("nan")


def decide(
    candidate: str,
    champion: str | None,
    baselines: Sequence[str],
    metrics: pd.DataFrame,
    differences: pd.DataFrame,
    rule: Rule | None = None,
    scratch: str | None = None,
    alone: str | None = None,
) -> Decision:
    """Decide whether a candidate becomes champion.

    It has to be better than the champion on the chosen metric, and better than every baseline. Better means that the
    whole 95 % interval of the paired difference lies above 0: by more than chance explains. With
    `certain_over_baselines` off, the difference itself is enough for the baselines. Nor may it be worse, which means
    that the whole interval lies below 0, than the same network without pretraining; than the champion on a slice of
    that metric, by more than a tolerance; or than the champion on any other head. Without a champion, the
    rest decides. Where the strongest baseline is better than the candidate on a number of `Rule.strongest`, the
    decision says so.

    Args:
        candidate: name of the method that wants to be champion.
        champion: name of the present one, measured on the same rows, or None.
        baselines: names of all that it has to beat; at least one.
        metrics: `Comparison.metrics`.
        differences: `Comparison.differences`, with the candidate compared with all others.
        rule: what is asked for.
        scratch: name of the same network trained from scratch, or None if it was not trained.
        alone: name of the candidate's network without trees, where the candidate is a stack and this was measured: it,
            and not the stack, is compared with `scratch`, which has none.

    Raises:
        ValueError: there is no baseline to beat: such a gate would let everything through.
    """
    rule = rule or Rule()
    if not baselines:
        raise ValueError("the gate needs at least one baseline; received none")
    checks: list[_Check] = []
    if champion is not None:
        checks.append(_better(candidate, champion, "the champion", rule.better_than_champion, differences, rule))
        checks += _no_slice_is_worse(candidate, champion, rule, differences)
    if scratch is not None:
        title = "the same network from scratch"
        network = alone if alone is not None and (metrics["method"] == alone).any() else candidate
        checks.append(_not_worse(network, scratch, title, rule.better_than_champion, differences, rule))
    for criterion in rule.better_than_baselines or (rule.better_than_champion,):
        asked = [name for name in baselines if _answers(name, criterion, metrics)]
        certain = rule.certain_over_baselines
        checks += [
            _better(candidate, name, f"baseline {name}", criterion, differences, rule, certain) for name in asked
        ]
        if not asked:
            words = f"No baseline was measured on {criterion}, so nothing shows that the candidate is worth it."
            checks.append(_Check(False, "baselines", str(criterion), _NAN, _NAN, _NAN, 0, "measured", words))
    for criterion in rule.heads:
        checks += _head(candidate, champion, baselines, criterion, differences, rule)
    for criterion in rule.strongest:
        checks += _strongest(candidate, baselines, criterion, differences, rule)
    promote = all(check.passed for check in checks)
    # First what refuses, then what has to be known, then what speaks for the candidate.
    reasons = [check.words for check in sorted(checks, key=lambda check: (check.passed, not check.behind))]
    if champion is None:
        reasons.append("There was no champion to compare with: only the baselines had to be beaten.")
    columns = ["passed", "against", "criterion", "gain", "low", "high", "users", "asked"]
    return Decision(promote, reasons, pd.DataFrame([vars(check) for check in checks])[columns])


def _answers(method: str, criterion: Criterion, metrics: pd.DataFrame) -> bool:
    return bool(((metrics["method"] == method) & (metrics["task"] == criterion.task)).any())


def _difference(
    candidate: str, against: str, criterion: Criterion, differences: pd.DataFrame
) -> "pd.Series[Any] | None":
    """Return the row that compares two methods, or None when it lacks or is not defined."""
    wanted = {
        "method": candidate,
        "against": against,
        "task": criterion.task,
        "metric": criterion.metric,
        "slice": criterion.slice,
    }
    rows = differences
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    if rows.empty or rows.iloc[0][["value", "low", "high"]].isna().any():
        return None
    return rows.iloc[0]


def _gain(row: "pd.Series[Any]", sign: int) -> tuple[float, float, float]:
    """Return the difference and its interval so that positive means better."""
    low, high = sorted((sign * float(row["low"]), sign * float(row["high"])))
    return sign * float(row["value"]), low, high


def _numbers(gain: float, low: float, high: float, users: int) -> str:
    return f"gain {gain:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, {users} users"


def _better(
    candidate: str,
    against: str,
    title: str,
    criterion: Criterion,
    differences: pd.DataFrame,
    rule: Rule,
    certain: bool = True,
) -> _Check:
    row, asked = _difference(candidate, against, criterion, differences), "gain above 0"
    if row is None:
        words = f"Was not compared with {title} on {criterion}."
        return _Check(False, title, str(criterion), _NAN, _NAN, _NAN, 0, asked, words)
    gain, low, high = _gain(row, criterion.sign)
    users = int(row["users"])
    if users < rule.fewest_users:
        # The interval of a bootstrap over few users is too narrow: that of one user is a point.
        words = (
            f"Too few users to compare with {title} on {criterion}: {users}, and the gate wants {rule.fewest_users}."
        )
        return _Check(False, title, str(criterion), gain, low, high, users, asked, words)
    if low > 0:
        words = f"Better than {title}"
    elif high < 0:
        words = f"Worse than {title}"
    elif gain > 0 and not certain:
        words = f"Ahead of {title}, though not by more than chance explains,"
    else:
        words = f"No clear difference from {title}"
    words += f" on {criterion}: {_numbers(gain, low, high, users)}."
    passed = low > 0 or (gain > 0 and not certain)
    return _Check(passed, title, str(criterion), gain, low, high, users, asked, words)


def _not_worse(
    candidate: str,
    against: str,
    title: str,
    criterion: Criterion,
    differences: pd.DataFrame,
    rule: Rule,
    tolerance: float = 0.0,
) -> _Check:
    """Refuse a loss by more than the tolerance that chance does not explain; pass over what too few users tell."""
    row = _difference(candidate, against, criterion, differences)
    users = 0 if row is None else int(row["users"])
    if row is None or users < rule.fewest_users:
        words = f"Not compared with {title} on {criterion}: {users} users, and the gate wants {rule.fewest_users}."
        return _Check(True, title, str(criterion), _NAN, _NAN, _NAN, users, "too few to judge", words)
    gain, low, high = _gain(row, criterion.sign)
    passed = high >= 0 or gain >= -tolerance
    numbers = _numbers(gain, low, high, users) + (f"; tolerance {tolerance}" if tolerance else "")
    words = f"{'Not worse' if passed else 'Worse'} than {title} on {criterion}: {numbers}."
    return _Check(passed, title, str(criterion), gain, low, high, users, "no loss beyond chance", words)


def _no_slice_is_worse(candidate: str, champion: str, rule: Rule, differences: pd.DataFrame) -> list[_Check]:
    chosen = rule.better_than_champion
    same = (
        (differences["method"] == candidate)
        & (differences["against"] == champion)
        & (differences["task"] == chosen.task)
        & (differences["metric"] == chosen.metric)
        & (differences["slice"] != chosen.slice)
    )
    criteria = [Criterion(chosen.task, chosen.metric, name) for name in differences.loc[same, "slice"].unique()]
    return [
        _not_worse(candidate, champion, "the champion", criterion, differences, rule, rule.tolerance)
        for criterion in criteria
    ]


def _head(
    candidate: str,
    champion: str | None,
    baselines: Sequence[str],
    criterion: Criterion,
    differences: pd.DataFrame,
    rule: Rule,
) -> list[_Check]:
    """Return what is asked of one more answer: not worse than the champion's, and ahead of its own simple baseline."""
    checks = []
    if champion is not None:
        checks.append(_not_worse(candidate, champion, "the champion", criterion, differences, rule))
    own = rule.own_baselines.get(criterion.task)
    if own is not None and own in baselines:
        title = f"baseline {own}"
        check = _not_worse(candidate, own, title, criterion, differences, rule)
        if check.asked != "too few to judge":
            check = _better(candidate, own, title, criterion, differences, rule, certain=False)
        checks.append(check)
    return checks


def _strongest(
    candidate: str, baselines: Sequence[str], criterion: Criterion, differences: pd.DataFrame, rule: Rule
) -> list[_Check]:
    """Return how the candidate stands to the best of all baselines that have an answer: told, whatever it is."""
    found = [(name, _difference(candidate, name, criterion, differences)) for name in baselines]
    gains = [(*_gain(row, criterion.sign), name, int(row["users"])) for name, row in found if row is not None]
    if not gains:
        return []
    gain, low, high, name, users = min(gains)
    title = f"baseline {name}"
    if users < rule.fewest_users:
        words = f"Not compared with the strongest baseline on {criterion}: {users} users are too few."
        return [_Check(True, title, str(criterion), _NAN, _NAN, _NAN, users, "told only", words)]
    behind = high < 0
    verdict = "Behind" if behind else "Better than" if low > 0 else "No clear difference from"
    told = ", which is told and refuses nothing" if behind else ""
    words = f"{verdict} the strongest baseline, {name}, on {criterion}: {_numbers(gain, low, high, users)}{told}."
    return [_Check(True, title, str(criterion), gain, low, high, users, "told only", words, behind)]
