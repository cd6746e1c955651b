"""The arguments of the commands that go on with what a run has staged."""

import argparse
from typing import Any

from lake.schemas import TABLES


def parser_of_tables(prog: str, description: str, **more: Any) -> argparse.ArgumentParser:
    """Return a parser for `--table`, which may be repeated and gives a list, and `--run-id`.

    Args:
        prog: the name of the command.
        description: of the command.
        more: other arguments of argparse's parser.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, **more)
    parser.add_argument(
        "--table",
        action="append",
        required=True,
        choices=TABLES,
        metavar="TABLE",
        help="a table of docs/tables.md; may be repeated",
    )
    parser.add_argument("--run-id", required=True, help="the run that staged")
    return parser
