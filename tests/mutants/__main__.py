"""Make each wrong change in a copy of the project, run its tests there, and tell which changes no test noticed.

`python -m tests.mutants [PATTERN ...]`: all, or those whose name or file is like a pattern (`lake/*`, `gate_*`).
It fails if a mutant survives without a reason, does not fit the code, or stops its tests from running at all.
"""

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.mutants import Mutant, all_mutants
from tests.mutants.forks import HANGS_SECONDS

ROOT = Path(__file__).parents[2]
# What most tests import, for seconds.
LARGE = (
    *("numpy", "pandas", "pyarrow.parquet", "deltalake", "scipy.stats", "sklearn.linear_model", "pyspark.sql"),
    *("tensorflow", "keras", "mlflow", "great_expectations", "pytest"),
)
KILLED, SURVIVED, HARMLESS, UNCLEAR = "killed", "SURVIVED", "harmless", "NO RESULT"


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        mutant: the change; None when the tests ran on the code as it is.
        result: one of the words above.
        why: the test that noticed it, the reason why none has to, or the end of what pytest said.
        seconds: how long its tests took.
    """

    mutant: Mutant | None
    result: str
    why: str
    seconds: float


class Copy:
    """A copy of the project in which one file at a time is changed, and a process that runs tests in it."""

    def __init__(self, folder: Path, imported: Sequence[str] = LARGE):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in listed.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.written = time.time()
        # Another Spark must not come from the shell, and bytecode that may not be written is compiled again and again.
        left_out = ("MEANDER_", "SPARK_", "AIRFLOW", "PYTHONDONTWRITEBYTECODE")
        self.forks = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forks.py")), *imported],
            env={name: value for name, value in os.environ.items() if not name.startswith(left_out)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the process."""
        self.forks.communicate()

    def write(self, name: str, text: str) -> None:
        """Write a file of the copy, newer than any written before.

        Python takes compiled code for current by the second of the file's time and its size, and a change often has the
        size of what it replaces.
        """
        file = self.folder / name
        file.write_text(text)
        self.written += 2
        os.utime(file, (self.written, self.written))

    def test(self, tests: str) -> tuple[int | None, str]:
        """Run tests in the copy until one fails, and return pytest's status, None when they hang, and what it said."""
        output = self.folder.with_name(f"{self.folder.name}.txt")
        # What pytest says of modules that were imported before it is no fault of the tests.
        quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider"]
        arguments = ["-x", "-q", "-rfE", "--no-header", "--tb=no", *quiet, *tests.split()]
        asked = {"folder": str(self.folder), "arguments": arguments, "output": str(output)}
        self.forks.stdin.write(f"{json.dumps(asked)}\n")
        self.forks.stdin.flush()
        status = json.loads(self.forks.stdout.readline())
        return status, output.read_text(errors="replace")


def try_out(copy: Copy, tests: str, mutant: Mutant | None) -> Outcome:
    """Run tests on a copy, with a change made or without any."""
    began = time.monotonic()
    if mutant is None:
        status, said = copy.test(tests)
    else:
        text = (ROOT / mutant.file).read_text()
        copy.write(mutant.file, mutant.applied_to(text))
        try:
            status, said = copy.test(tests)
        finally:
            copy.write(mutant.file, text)
    result, why = judge(status, said, mutant)
    return Outcome(mutant, result, why, time.monotonic() - began)


def judge(status: int | None, said: str, mutant: Mutant | None) -> tuple[str, str]:
    """Return what became of a mutant, and why, from what its tests did."""
    if status is None:
        return KILLED, f"its tests hung for {HANGS_SECONDS} s"
    if status == 0:
        return (HARMLESS, mutant.harmless) if mutant and mutant.harmless else (SURVIVED, "no test noticed it")
    if status < 0 and -status != signal.SIGKILL:  # which the system sends where memory is short
        return KILLED, f"its tests ended with {signal.Signals(-status).name}"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", said, re.MULTILINE)
    # Any other status: the tests could not be collected, or there were none.
    if status == 1 and failed:
        return KILLED, failed[1]
    return UNCLEAR, said[-2000:]


def run(mutants: Sequence[Mutant], jobs: int) -> Iterable[Outcome]:
    """Yield failures of the tests without any change, then what became of each mutant, as soon as it is known."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        all_copies = [Copy(Path(folder) / str(number)) for number in range(jobs)]
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in all_copies:
            copies.put(copy)

        def outcome(tests: str, mutant: Mutant | None = None) -> Outcome:
            copy = copies.get()
            try:
                return try_out(copy, tests, mutant)
            finally:
                copies.put(copy)

        # Tests that fail anyway would notice everything. A folder at once: what a process needs is made once.
        folders: dict[str, dict[str, None]] = {}
        for mutant in mutants:
            folders.setdefault(mutant.tests.rpartition("/")[0], {}).update(dict.fromkeys(mutant.tests.split()))
        unchanged = pool.map(outcome, (" ".join(tests) for tests in folders.values()))
        broken = [found for found in unchanged if found.result != SURVIVED]
        yield from broken
        if not broken:
            yield from pool.map(lambda mutant: outcome(mutant.tests, mutant), mutants)
        for copy in all_copies:
            copy.close()


def say(text: str) -> None:
    """Print a line at once: whoever watches it waits for minutes."""
    print(text, flush=True)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for, print a line for each and a summary, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="names or files of mutants; none: all of them")
    parser.add_argument("--jobs", type=int, default=2, help="copies in which tests run side by side (default: 2)")
    asked = parser.parse_args(arguments)
    wanted = [
        mutant
        for mutant in all_mutants()
        if not asked.patterns or any(fnmatch(text, p) for p in asked.patterns for text in (mutant.name, mutant.file))
    ]
    if not wanted:
        parser.error(f"no mutant has a name or a file like {' or '.join(asked.patterns)}")

    say(f"{len(wanted)} mutants; first their tests on the code as it is")
    found = []
    for outcome in run(wanted, asked.jobs):
        found.append(outcome)
        if outcome.mutant is None:
            say(f"These tests fail without any change, so they tell nothing:\n{outcome.why}")
            continue
        what = f"{outcome.mutant.name} ({outcome.mutant.file})"
        say(f"{outcome.result:9} {outcome.seconds:4.0f} s  {what}: {outcome.why}")
    return summary(found)


def summary(outcomes: Sequence[Outcome]) -> int:
    """Print how many mutants of each file were noticed, and return the exit status."""
    if any(outcome.mutant is None for outcome in outcomes):
        return 1
    by_file: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        by_file.setdefault(outcome.mutant.file, Counter())[outcome.result] += 1
    results = (KILLED, HARMLESS, SURVIVED, UNCLEAR)
    say(f"\n{'file':40}" + "".join(f"{result:>11}" for result in results))
    for file, counts in [*sorted(by_file.items()), ("all", sum(by_file.values(), Counter()))]:
        say(f"{file:40}" + "".join(f"{counts[result]:11}" for result in results))
    return int(any(outcome.result in (SURVIVED, UNCLEAR) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
