"""The arguments that every daily job takes: one day or a range, and the run's id; and those of jobs about dates T."""

import argparse
from datetime import date

from lake.days import days_between, utc_date
from lake.errors import SettingsInvalid
from lake.settings import settings
from lake.staging import Run


def job_parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with --day, --from, --to and --run-id; `doc` becomes its description."""
    parser = argparse.ArgumentParser(prog=prog, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--day", type=utc_date, metavar="D", help="one UTC date, YYYY-MM-DD")
    parser.add_argument("--from", dest="first", type=utc_date, metavar="D1", help="first date of a range")
    parser.add_argument("--to", dest="last", type=utc_date, metavar="D2", help="last date of a range, included")
    parser.add_argument("--run-id", required=True, metavar="R", help="names what is staged")
    return parser


def as_of_parser(prog: str, doc: str | None, late: str) -> argparse.ArgumentParser:
    """Return a `job_parser` with --every and --include-late as well; `late` is the help of the latter."""
    parser = job_parser(prog, doc)
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only every N-th date of a range, the last included"
    )
    parser.add_argument("--include-late", action="store_true", help=late)
    return parser


def as_of_days(run: Run, every: int) -> list[date]:
    """Return every `every`-th date of the run's range, counted back from its last.

    >>> [day.day for day in as_of_days(Run("r", date(2017, 1, 1), date(2017, 1, 15), order=1), 7)]
    [1, 8, 15]
    """
    if every < 1:
        raise SettingsInvalid(f"--every counts days and must be at least 1; received {every}")
    return sorted(days_between(run.first, run.last)[::-1][::every])


def parse_run(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[Run, argparse.Namespace]:
    """Parse the arguments into a run and the other arguments of the parser.

    Raises:
        SettingsInvalid: neither --day nor a whole range was given, both were, or the range is backwards; or a
            `MEANDER_*` variable has an invalid value, or is no setting.
    """
    args = parser.parse_args(argv)
    # Before a run takes its number, which makes a lake where none is.
    settings()
    given = f"--day {args.day} --from {args.first} --to {args.last}"
    if (args.day is None) == (args.first is None) or (args.first is None) != (args.last is None):
        raise SettingsInvalid(f"give either --day, or both --from and --to; received {given}")
    first, last = args.day or args.first, args.day or args.last
    if first > last:
        raise SettingsInvalid(f"--from must not be after --to; received --from {first} --to {last}")
    return Run(args.run_id, first, last), args
