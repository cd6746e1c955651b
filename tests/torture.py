"""The property tests with many more random examples, round after round with new ones, until a time budget is used up.

    make torture                          # ten minutes; the seed is printed
    make torture MINUTES=120 SEED=7       # the same examples again in the first rounds
    make torture RESUME=1                 # go on with what was stopped: its seed, what is left of its minutes
    make torture RESUME=1 MINUTES=30      # go on for 30 minutes more, also after its time was used up

It takes every test that draws its examples with hypothesis, and those marked `torture`, one file after the other. What
has passed is written down after each file, so that it may be killed anywhere. A file that fails ends it, and is
repeated by the command that it prints. At the end, also after Ctrl-C, it says how often each promise of
docs/promises.md was attacked, and which files were not reached.
"""

import argparse
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from json import dumps, loads
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What has been run, written after each file of tests.
STATE = ROOT / "build" / "torture.json"
CHOSEN = ["-m", "hypothesis or torture"]
NONE_CHOSEN = 5  # pytest's status
ROW = re.compile(r"^\| (?P<promise>.+?) \| (?P<attack>.+?) \| ", re.MULTILINE)
LINK = re.compile(r"\s*\(\[.*?\]\(.*?\)\)")


@dataclass
class Torture:
    """What was asked for, and what has been run of it.

    Attributes:
        seed: of the first round; each next one adds 1.
        minutes: no file of tests begins after that.
        files: the files of tests of a round, in order.
        seconds: how long tests have run.
        passed: how many tests have passed by file, over all rounds.
        runs: how many files have been run.
    """

    seed: int
    minutes: float
    files: list[str]
    seconds: float = 0.0
    passed: dict[str, int] = field(default_factory=dict)
    runs: int = 0

    @property
    def round(self) -> int:
        """The number of the round that the next file belongs to, the first being 0."""
        return self.runs // len(self.files)

    @property
    def next(self) -> str:
        """The file to run next."""
        return self.files[self.runs % len(self.files)]

    @property
    def is_over(self) -> bool:
        """Whether the time is used up."""
        return self.seconds >= 60 * self.minutes

    @property
    def not_reached(self) -> list[str]:
        """The files that have not been run once."""
        return self.files[self.runs :]


def say(text: str) -> None:
    """Print a line at once: whoever watches it waits for minutes."""
    print(text, flush=True)  # noqa: T201


def chosen_files() -> list[str]:
    """Return the files that have tests with random examples."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *CHOSEN], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode()
    return sorted({line.partition("::")[0] for line in listed.splitlines() if "::" in line})


def command(file: str, seed: int) -> list[str]:
    """Return the command that runs a file of tests; the same seed draws the same examples."""
    return ["-m", "pytest", "-q", "-x", *CHOSEN, "--hypothesis-profile", "torture", f"--hypothesis-seed={seed}", file]


def keep(torture: Torture) -> None:
    """Write down what has been run, for `--resume`."""
    STATE.parent.mkdir(exist_ok=True)
    STATE.write_text(dumps(asdict(torture)))


def run(torture: Torture) -> str:
    """Run files until the time is over or one has failed, and return how to repeat the one that has; else nothing."""
    while not torture.is_over:
        file, seed = torture.next, torture.seed + torture.round
        began = time.monotonic()
        ran = subprocess.run([sys.executable, *command(file, seed)], cwd=ROOT, check=False, stdout=subprocess.PIPE)
        output = ran.stdout.decode(errors="replace")
        torture.seconds += time.monotonic() - began
        if ran.returncode not in (0, NONE_CHOSEN):
            say(output)
            return f"{sys.executable} " + " ".join(f"'{part}'" if " " in part else part for part in command(file, seed))
        passed = int(found[1]) if (found := re.search(r"(\d+) passed", output)) else 0
        torture.passed[file] = torture.passed.get(file, 0) + passed
        torture.runs += 1
        keep(torture)
        say(f"{torture.seconds:6.0f} s  seed {seed}: {file}, {passed} passed")
    return ""


def attacks(promises: str, files: Iterable[str]) -> dict[str, list[str]]:
    """Return which of some files of tests attack each promise, by a text like docs/promises.md.

    >>> attacks("| Nothing is lost ([0001](a.md)) | `tests/a.py`: kills | often |", ["tests/a.py", "tests/b.py"])
    {'Nothing is lost': ['tests/a.py']}
    """
    rows = {LINK.sub("", row["promise"]): row["attack"] for row in ROW.finditer(promises)}
    by_promise = {promise: [file for file in files if f"`{file}`" in attack] for promise, attack in rows.items()}
    return {promise: found for promise, found in by_promise.items() if found}


def table(torture: Torture, promises: str) -> list[str]:
    """Return the lines of a table: how many tests with random examples have attacked each promise, and passed."""
    by_promise = attacks(promises, torture.files)
    named = {file for found in by_promise.values() for file in found}
    by_promise |= {f"(no promise names it) {file}": [file] for file in torture.files if file not in named}
    return [
        f"{sum(torture.passed.get(file, 0) for file in found):6}  {promise}" for promise, found in by_promise.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rounds until the time is over or one has failed, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="no file of tests begins after that (default: 10)")
    parser.add_argument("--seed", type=int, help="of the first round; each next one adds 1 (default: a random one)")
    parser.add_argument("--resume", action="store_true", help="go on with the last one, by --minutes for more")
    asked = parser.parse_args(arguments)
    if asked.resume:
        if asked.seed is not None:
            parser.error("--resume goes on with the seed of the last one, and takes no --seed")
        if not STATE.is_file():
            parser.error(f"--resume: there is no {STATE.relative_to(ROOT)}, so nothing was stopped; run it without")
        torture = Torture(**loads(STATE.read_text()))
        if asked.minutes is not None:
            torture.minutes = torture.seconds / 60 + asked.minutes
        elif torture.is_over:
            parser.error(
                f"--resume: the {torture.minutes:g} minutes of the last one, with seed {torture.seed}, are used up; "
                "say by --minutes for how long it is to go on, or run it without --resume"
            )
    else:
        seed = random.randrange(10**6) if asked.seed is None else asked.seed
        torture = Torture(seed, 10 if asked.minutes is None else asked.minutes, chosen_files())
        keep(torture)
    say(f"Seed {torture.seed}, {torture.minutes:.0f} minutes, of which {torture.seconds / 60:.0f} are used up")
    status = 0
    try:
        if repeat := run(torture):
            status, end = 1, f"Round {torture.round + 1} has failed. Again, with the same examples: {repeat}"
        else:
            end = "Nothing found"
    except KeyboardInterrupt:
        status, end = 130, "Stopped. --resume goes on with it"
    say("\n passed  promise")
    for line in table(torture, (ROOT / "docs" / "promises.md").read_text()):
        say(line)
    if torture.not_reached:
        say(f"\nNot reached: {', '.join(torture.not_reached)}")
    say(
        f"\n{torture.runs} files of tests in {torture.seconds / 60:.0f} minutes, seeds {torture.seed} to "
        f"{torture.seed + max(0, torture.runs - 1) // len(torture.files)}. {end}"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
