"""Files of some dates taken away, so that whoever reads them fails: what a training must not look at."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from lake.table import Table


@contextmanager
def hidden(table: Table, days: Collection[date]) -> Iterator[None]:
    """Take away the files of these dates of a table, each of which has to have one, and put them back in the end."""
    files = [Path(table.path, file.path) for file in table.files if file.partition["dt"] in days]
    assert {file.partition["dt"] for file in table.files} >= set(days)
    for file in files:
        file.rename(f"{file}.hidden")
    try:
        yield
    finally:
        for file in files:
            Path(f"{file}.hidden").rename(file)
