"""What one training is made of: which table versions, which dates, which settings. Decided once, read by every step.

<lake>/_models/<run>/plan.json     this
<lake>/_models/<run>/vocabulary/   keys and indices of items and categories
<lake>/_models/<run>/pretrained/   finetuned/   scratch/   lora/     networks, see model/versions/artifact.py
<lake>/_models/<run>/candidate/    what was judged and registered: one of these, with the trees of a stack
<lake>/_models/<run>/checkpoints/  where each training stands
<lake>/_models/<run>/evaluation/   metrics.json, decision.json, report.html
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from lake import storage
from lake.errors import ModelMissing, SettingsInvalid
from lake.places import model_folder, plan_file
from lake.rules import WEIGHTS
from lake.settings import as_text

DATES = ("pretrain", "train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """As-of dates by what they are for. No label window reaches into a later part."""

    train: list[date]
    valid: list[date]
    test: list[date]


def split(days: Sequence[date], horizon_days: int, valid_dates: int, test_dates: int) -> Split:
    """Split as-of dates by time: the newest for the test, then validation, then training, with gaps of H between.

    A date T belongs to an earlier part only if its label window (T, T+H] ends before the later part begins.

    >>> days = [date(2017, 1, n) for n in range(1, 11)]
    >>> parts = split(days, horizon_days=2, valid_dates=2, test_dates=1)
    >>> [[day.day for day in part] for part in (parts.train, parts.valid, parts.test)]
    [[1, 2, 3, 4, 5], [7, 8], [10]]

    Raises:
        SettingsInvalid: there are not enough dates.
    """
    horizon = timedelta(days=horizon_days)
    left = sorted(days)
    test = left[-test_dates:]
    left = [day for day in left if test and day + horizon <= test[0]]
    valid = left[-valid_dates:]
    train = [day for day in left if valid and day + horizon <= valid[0]]
    if min(valid_dates, test_dates) < 1 or not train:
        raise SettingsInvalid(
            f"the dates with examples are too few to train on: {len(days)} from {min(days, default='-')} to "
            f"{max(days, default='-')}. {valid_dates} for validation and {test_dates} for the test, with gaps of "
            f"{horizon_days} days, leave none for training; load more history, or lower --valid-dates, --test-dates or "
            "MEANDER_HORIZON_DAYS"
        )
    return Split(train, valid, test)


@dataclass(frozen=True)
class TrainingPlan:
    """A training, as model.prepare planned it.

    Attributes:
        run_id: names it.
        as_of: D, the last date whose data it may know.
        tables: {name: version} of the tables that it reads.
        pretrain: dates whose interests the encoder is pretrained on; they may lie in the gap before validation, since
            pretraining uses no labels.
        train, valid, test: dates of the examples for each purpose.
        horizon_days, lookback_days, min_events, sequence_length, behavior_weights: settings behind the tables.
        warm_start: registered version to start from, or None.
        seed: of all that is random.
    """

    run_id: str
    as_of: date
    tables: dict[str, int]
    pretrain: list[date]
    train: list[date]
    valid: list[date]
    test: list[date]
    horizon_days: int
    lookback_days: int
    min_events: int
    sequence_length: int
    warm_start: int | None
    seed: int
    behavior_weights: str = as_text(WEIGHTS)

    @property
    def folder(self) -> str:
        """Where everything of this training lies."""
        return model_folder(self.run_id)

    def save(self) -> None:
        """Write the plan."""
        storage.write_json(plan_file(self.run_id), asdict(self))

    @staticmethod
    def load(run_id: str) -> "TrainingPlan":
        """Return the plan of a run.

        Raises:
            ModelMissing: model.prepare has not made one.
        """
        content = storage.read_json(plan_file(run_id))
        if content is None:
            raise ModelMissing(
                f"run {run_id!r} has no plan at {model_folder(run_id)}; run model.prepare with this run id first"
            )
        dates: dict[str, Any] = {name: [date.fromisoformat(day) for day in content[name]] for name in DATES}
        return TrainingPlan(**{**content, **dates, "as_of": date.fromisoformat(content["as_of"])})
