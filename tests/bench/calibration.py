"""What calibration error is measured of probabilities that are right, by chance alone.

    python -m tests.bench.calibration --users 1700 --rows 3 --same 0.7

Makes up users with several rows each, whose labels come with just the probabilities that are said, and measures them as
`model.judging` does: before and after the bias of chance is taken off. A model cannot be told to be better calibrated
than this, however good it is.
"""

import argparse
import sys

import numpy as np

from model.arrays import Array
from model.judging.metrics import UserBootstrap, binary_metrics, without_bias


def made_up(random: np.random.Generator, users: int, rows: int, same: float, odds: float) -> tuple[Array, Array]:
    """Return labels and their true probabilities, both `(users * rows,)`, user by user.

    Args:
        random: draws.
        users: how many.
        rows: of each, all with one probability.
        same: chance that a row has the luck of the user's first one, as rows whose horizons overlap have.
        odds: standard deviation of the log odds between users, around one half.
    """
    chances = 1 / (1 + np.exp(-odds * random.normal(size=users)))
    luck = random.random((users, rows))
    luck = np.where(random.random((users, rows)) < same, luck[:, :1], luck)
    return (luck < chances[:, None]).ravel(), np.repeat(chances, rows)


def main() -> None:
    """Print how large the error is measured to be."""
    parser = argparse.ArgumentParser(
        prog="tests.bench.calibration", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, required=True, help="users who can be judged")
    parser.add_argument("--rows", type=int, default=3, help="dates of each")
    parser.add_argument("--same", type=float, default=0.7, help="how much rows of a user share their luck, 0 to 1")
    parser.add_argument("--odds", type=float, default=1.0, help="deviation of the log odds between users")
    parser.add_argument("--logs", type=int, default=200, help="that are made up")
    args = parser.parse_args()
    random = np.random.default_rng(1)
    ids = np.repeat(np.arange(args.users), args.rows)
    bootstrap = UserBootstrap(ids, 200, seed=2)
    found = []
    for _ in range(args.logs):
        labels, chances = made_up(random, args.users, args.rows, args.same, args.odds)
        raw = binary_metrics(labels, chances)["calibration_error"]
        value, _ = without_bias(raw, bootstrap.binary(labels, chances)["calibration_error"])
        found.append((raw, value))
    for name, values in zip(("as it is", "without the bias that is taken off"), np.array(found).T, strict=True):
        low, high = np.quantile(values, [0.025, 0.975])
        sys.stdout.write(f"{name}: {values.mean():.4f} on average, 95 % of the logs {low:.4f} to {high:.4f}\n")


if __name__ == "__main__":
    main()
