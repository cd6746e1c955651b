"""Make the candidate of a run the champion, if the gate of model.evaluate let it through; say why, or why not.

    python -m model.promote --run-id R
    python -m model.promote --model-version N --since D      by hand: an older version, or one that the gate has refused

A champion counts from the date as of which it was trained: predictions of earlier days keep the model of their day.
Without the gate's consent nothing changes, and that is no failure. Promoting twice is as promoting once.
"""

import argparse
import json
import logging
from dataclasses import asdict, dataclass

from lake import storage
from lake.days import utc_date
from lake.errors import ModelMissing, SettingsInvalid, run_main
from lake.places import decision_file
from lake.settings import settings
from model.training.plan import TrainingPlan
from model.versions.registry import Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promotion:
    """The outcome of a promotion.

    Attributes:
        promoted: whether the version was promoted.
        version: the candidate.
        champion: which version is champion now; None if there is none yet.
        reasons: why; of a candidate that was refused, what speaks against it.
    """

    promoted: bool
    version: int
    champion: int | None
    reasons: list[str]


def promote_run(run_id: str, registry: Registry) -> Promotion:
    """Do what the decision of a run says.

    Raises:
        ModelMissing: the run was not prepared, not evaluated, or has registered no version.
    """
    plan = TrainingPlan.load(run_id)
    place = decision_file(run_id)
    decision = storage.read_json(place)
    if decision is None:
        raise ModelMissing(f"run {run_id!r} was not evaluated: there is no {place}; run model.evaluate")
    version = registry.version_of(run_id)
    if not decision["promote"]:
        # A run that was evaluated by an older version has all reasons in one list.
        return Promotion(False, version, registry.champion(), decision.get("against") or decision["reasons"])
    return Promotion(True, version, registry.promote(version, plan.as_of), list(decision["reasons"]))


def main(argv: list[str] | None = None) -> Promotion:
    """Promote or leave the champion; print one JSON line, and the reasons to the log."""
    parser = argparse.ArgumentParser(
        prog="model.promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-id", metavar="R", help="the run whose candidate was evaluated")
    parser.add_argument("--model-version", type=int, metavar="N", help="a registered version, by hand")
    parser.add_argument("--since", type=utc_date, metavar="D", help="first date for which it is champion, with N")
    args = parser.parse_args(argv)
    by_hand = args.model_version is not None and args.since is not None
    if (args.run_id is not None) == by_hand or (args.model_version is None) != (args.since is None):
        given = f"--run-id {args.run_id} --model-version {args.model_version} --since {args.since}"
        raise SettingsInvalid(f"give either --run-id, or both --model-version and --since; received {given}")
    registry = Registry.of(settings())
    if by_hand:
        champion = registry.promote(args.model_version, args.since)
        promotion = Promotion(True, args.model_version, champion, ["promoted by hand"])
    else:
        promotion = promote_run(args.run_id, registry)
    for line in promotion.reasons:
        log.info("%s: %s", "promoted" if promotion.promoted else "not promoted", line)
    print(json.dumps(asdict(promotion)))  # noqa: T201  the answer, for a machine to read
    return promotion


if __name__ == "__main__":
    run_main(main)
