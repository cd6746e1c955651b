"""The property tests with many more random examples, round after round with new ones, until a time budget is used up.

    make torture                          # ten minutes; the seed is printed
    make torture MINUTES=120 SEED=7       # the same examples again in the first rounds

It takes every test that draws its examples with hypothesis, and those marked `torture`. A round that fails ends it, and
is repeated by the command that it prints.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Sequence


def say(text: str) -> None:
    """Print a line at once: whoever watches it waits for minutes."""
    print(text, flush=True)  # noqa: T201


def command(seed: int) -> list[str]:
    """Return the command of one round; the same seed draws the same examples."""
    chosen = ["-m", "hypothesis or torture", "--hypothesis-profile", "torture", "--hypothesis-seed", str(seed)]
    return [sys.executable, "-m", "pytest", "-q", "-x", *chosen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rounds until the time is over or one has failed, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="no round begins after that (default: 10)")
    parser.add_argument("--seed", type=int, help="of the first round; each next one adds 1 (default: a random one)")
    asked = parser.parse_args(arguments)
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    ends = time.monotonic() + 60 * asked.minutes
    rounds = 0
    while not rounds or time.monotonic() < ends:
        say(f"Round {rounds + 1}, seed {seed + rounds}")
        if status := subprocess.run(command(seed + rounds), check=False).returncode:
            again = f"make torture SEED={seed + rounds} MINUTES=0"
            say(f"Round {rounds + 1} ended with {status}. Again, with the same examples: {again}")
            return status
        rounds += 1
    say(f"{rounds} rounds with seeds {seed} to {seed + rounds - 1}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
