"""Measure what reading and judging rows costs: `python -m tests.bench.ingest`, with `--beside PATH` of two codes.

For each format, each code, this one and that of another checkout, has a process and a Spark of its own, and both take
turns, so that a busy machine is as busy for both. CPU seconds of the process with its JVM are printed: of the first
time, in which Java compiles, and of the cheapest and the middle one of some more. They are printed only where all codes
have judged the rows alike: their number by outcome and reason, and a sum over the hashes of all values. Rows whose rule
has changed since the oldest code that is worth a comparison (`CHANGED`) are left out of that, on all sides, and their
number is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[2]
FIRST, DAYS = date(2025, 1, 1), 2
NAMES = ["user_id", "event_time", "behavior", "item_id", "category_id", "query", "price"]
# Of keys that sources have always had.
CSV = f"""
name: bench
description: the simulated log as CSV
format: csv
columns: [{", ".join(NAMES)}]
user_id: user_id
item_id: item_id
category_id: category_id
query: query
price: price
time: {{column: event_time, format: iso8601}}
behavior:
  column: behavior
  values: {{view: view, search: search, cart: cart, favorite: favorite, purchase: purchase}}
"""
# Reasons that are younger than the code of commit 947611a: of such rows, both codes are right by their own rules.
CHANGED = {"not_an_id": "a user, item or category that is an object, a list, true or false was an id before"}
FORMATS = {"JSON lines": "json", "CSV": "csv", "Parquet": "parquet"}


def make_log(folder: Path, rows: int) -> None:
    """Write the simulated log in each format below a folder."""
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from jobs.simulate import LogSpec, simulate
    from lake.session import spark_session
    from lake.settings import settings

    spark = spark_session("bench", settings())
    for kind in ("json", "parquet"):
        simulate(spark, LogSpec(events=rows, start=FIRST, days=DAYS, file_format=kind), str(folder / kind))
    for file in (folder / "parquet").glob("dt=*/*.parquet"):
        table = pq.read_table(file, partitioning=None).select(NAMES)
        times = pc.strftime(table["event_time"], "%Y-%m-%dT%H:%M:%SZ")
        target = folder / "csv" / file.parent.name / f"{file.stem}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        quoted = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
        with target.open("wb") as stream:
            stream.write(f"{','.join(NAMES)}\n".encode())
            pa_csv.write_csv(table.set_column(1, "event_time", times), stream, quoted)
    (folder / "csv.yaml").write_text(CSV)


def serve(folder: Path) -> None:
    """Answer each question of the input, a line of JSON: what judging the rows of a format costs, or what they become.

    Its keys: `kind`; `question`, which is `cost` (CPU seconds), `changed` (the hashes of the rows with a reason of
    `CHANGED`) or `outcomes` (of each outcome and reason: rows, and a sum over the hashes of their values; and the
    number of rows left out); `without`, the hashes of rows that are left out of the outcomes.
    """
    import psutil
    from pyspark.sql import functions as F

    from jobs.raw_rows import read_rows
    from jobs.rejections import CONTENT, judge
    from jobs.source import load_source
    from lake.session import spark_session
    from lake.settings import settings

    config, me = settings(), psutil.Process()
    spark = spark_session("bench", config)

    def cpu() -> float:
        """Return the CPU seconds of this process and its JVM so far."""
        times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    def answer(kind: str, question: str, without: Sequence[int] = ()) -> object:
        source = load_source(str(folder / "csv.yaml") if kind == "csv" else "canonical")
        files = sorted(str(file) for file in (folder / kind).glob("dt=*/[!_.]*"))
        began = cpu()
        rows = judge(read_rows(spark, source, files), source, config)
        if question == "cost":
            rows.write.format("noop").mode("overwrite").save()
            return cpu() - began
        # Each code hashes all columns of an event; where and in which order rows were read does not count. Persisted,
        # since `judge` wants it before rows are chosen.
        hashed = rows.select("outcome", "reason", F.xxhash64("landed", *CONTENT).alias("hash")).persist()
        try:
            if question == "changed":
                return [row["hash"] for row in hashed.where(F.col("reason").isin(*CHANGED)).collect()]
            is_left_out = F.col("hash").isin(*without)
            sums = F.sum(F.pmod("hash", F.lit(1_000_003)))
            found = hashed.where(~is_left_out).groupBy("outcome", "reason").agg(F.count("*"), sums).collect()
            return sorted(map(list, found), key=str), hashed.where(is_left_out).count()
        finally:
            hashed.unpersist()

    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(**json.loads(line))) + "\n")
        sys.stdout.flush()


class Code:
    """A process with the code of a checkout."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        """Return the answer of `serve` to a question."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{json.dumps(question)}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Let the process end by itself."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(codes: dict[str, Code], kind: str) -> str:
    """Return in words how much of a format all codes have judged alike.

    Raises:
        SystemExit: they have not.
    """
    changed = sorted({row for code in codes.values() for row in code.ask(kind=kind, question="changed")})
    became = {name: code.ask(kind=kind, question="outcomes", without=changed) for name, code in codes.items()}
    first, *others = became.values()
    if any(other != first for other in others):
        lines = "\n".join(f"{name}: {what}" for name, what in became.items())
        raise SystemExit(f"the codes do not make the same of {kind}; outcome, reason, rows, sum of hashes:\n{lines}")
    outcomes, left_out = first
    rows = sum(number for *_, number, _ in outcomes)
    if not others:
        return f"{rows + left_out:,} rows, compared with no other code"
    but = f", {left_out} more not compared: {', '.join(CHANGED)}" if left_out else ""
    return f"{rows:,} rows judged alike{but}"


def main() -> None:
    """Make the log, let each code judge it in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=6, help="how often each code judges each format")
    parser.add_argument(
        "--beside", type=Path, nargs="+", default=[], help="other checkouts, such as a git worktree of an older commit"
    )
    parser.add_argument("--log", type=Path, help="where the log is or will be; by default in a temporary folder")
    parser.add_argument("--formats", nargs="+", choices=FORMATS.values(), default=list(FORMATS.values()))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.log or Path(temporary)
        if not (folder / "csv.yaml").exists():
            make_log(folder, args.rows)
        out = Console(width=140)
        out.print(f"CPU seconds for {args.rows:,} rows: first, least of {args.times} more, their middle")
        for label, kind in FORMATS.items():
            if kind not in args.formats:
                continue
            codes = {"this code": Code(ROOT, folder)}
            codes |= {each.name: Code(each.resolve(), folder) for each in args.beside}
            try:
                firsts = {name: code.ask(kind=kind, question="cost") for name, code in codes.items()}
                compared = compare(codes, kind)
                found: dict[str, list[float]] = {name: [] for name in codes}
                for _ in range(args.times):
                    for name, code in codes.items():
                        found[name].append(code.ask(kind=kind, question="cost"))
            finally:
                for code in codes.values():
                    code.end()
            for name, each in found.items():
                costs = f"{firsts[name]:6.2f} {min(each):6.2f} {statistics.median(each):6.2f}"
                out.print(f"{label:10} {name:14} {costs}  {compared}")


if __name__ == "__main__":
    main()
