"""The commands around pseudonyms: whose one is, and a lake under another key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Annotated

import typer
from rich import box
from rich.table import Table as Grid

from dags.cli.console import out
from lake.errors import SettingsInvalid, TableMissing
from lake.landing import Landing
from lake.pseudonyms import IdentityMap, Key, in_lake, in_shop, in_words, is_pseudonym, real_folder
from lake.settings import Settings, settings
from lake.tables import TABLES, made_in


def identity(
    user: Annotated[str, typer.Argument(help="the shop's own id of a user, or a pseudonym of the lake")],
) -> None:
    """Print a user's pseudonym, or, of a pseudonym, the shop's own id: for those with the key or the map."""
    key_id = key_of_lake()
    if not key_id:
        out.print("this lake has the shop's own ids of users; there is nothing to resolve")
        return
    config = settings()
    out.print(in_shop(user, config) if is_pseudonym(user, key_id) else in_lake(user, key_id, config), soft_wrap=True)


def key_of_lake() -> str | None:
    """Return the id of the key of the lake's pseudonyms; empty for none, None for a lake without rows."""
    from lake.table import key_of_tables

    return key_of_tables()


@dataclass(frozen=True)
class Compared:
    """How many rows a table has of a day, in the lake as it is and in the new one."""

    table: str
    day: date
    rows: int
    rows_anew: int


def rekey(
    into: Annotated[str, typer.Option(help="folder or address of the new lake")],
    chunk_days: Annotated[int, typer.Option(min=1, help="days handled by one Spark job a table")] = 30,
) -> None:
    """Fill a new lake from the landing under the key that is set now, and compare it with MEANDER_LAKE.

    The lake as it is does not change. Run again, it goes on where it has stopped. It fails if the two have other rows.
    """
    from dags.cli.main import daily

    config = settings()
    days = days_to_load(config, into)
    require_forgotten(into)
    before = rows_by_table()
    with lake_at(into):
        for first, last in spans([day for day in days if not is_loaded(day)]):
            daily(as_datetime(first), as_datetime(last), chunk_days)
        anew = rows_by_table()
    differences = compare(before, anew)
    if not differences:
        out.print(f"{into} has as many rows on each day of each table. Next: docs/production.md#pseudonyms")
        return
    grid = Grid("table", "day", "rows now", "rows in the new lake", box=box.SIMPLE)
    for entry in differences:
        grid.add_row(entry.table, str(entry.day), f"{entry.rows:,}", f"{entry.rows_anew:,}")
    out.print(grid)
    out.print("Has the landing lost or got files since these days were loaded? Send no readers there before you know.")
    raise typer.Exit(1)


def require_forgotten(into: str) -> None:
    """Check that the new lake knows of as many forgotten users as this one: their ids are on neither list.

    Raises:
        SettingsInvalid: it would take some of them in again from the landing.
    """
    from lake.privacy.forgotten import ForgottenUsers

    here = len(ForgottenUsers.read().hashes)
    with lake_at(into):
        there = len(ForgottenUsers.read().hashes)
    if there < here:
        raise SettingsInvalid(
            f"{here} users were forgotten in MEANDER_LAKE, and --into {into} knows of {there}: it would take the "
            f"others in again from the landing. First run `MEANDER_LAKE={into} meander forget --file IDS` with the "
            "shop's own ids of all of them, under the new key"
        )


@contextmanager
def lake_at(place: str) -> Iterator[None]:
    """Make every path below another lake meanwhile: they are made of this variable, see lake/places.py."""
    as_it_is = os.environ.get("MEANDER_LAKE")
    os.environ["MEANDER_LAKE"] = place
    try:
        yield
    finally:
        os.environ.pop("MEANDER_LAKE")
        if as_it_is is not None:
            os.environ["MEANDER_LAKE"] = as_it_is


def as_datetime(day: date) -> datetime:
    """Return a day as options of commands have it."""
    return datetime.combine(day, time())


def is_loaded(day: date) -> bool:
    """Return whether all that `meander daily` makes of a day is published."""
    from lake.table import Table

    # Its last step.
    states = Table.find(made_in("behavior_daily")[-1])
    return states is not None and states.basis(day) is not None


def days_to_load(config: Settings, into: str) -> list[date]:
    """Return the landing days that the lake has, all of which have to be there still.

    Raises:
        SettingsInvalid: the new lake is the old one, or the key is the one that the lake has.
        TableMissing: the lake has nothing to load again.
        LandingMissing: a day that the lake has is no longer in the landing.
    """
    from lake.table import Table

    if real_folder(into) == real_folder(config.lake):
        raise SettingsInvalid(f"--into {into} is MEANDER_LAKE itself; name a folder or address for the new lake")
    events = Table("events")
    key = Key.of(config)
    if (key.id if key else "") == (events.key_id or ""):
        raise SettingsInvalid(
            f"{config.lake} has {in_words(events.key_id or '')} already; set MEANDER_PSEUDONYM_KEY to the new key, for "
            "this command alone"
        )
    IdentityMap.of(config)
    landing = Landing.of(config)
    days = sorted({*events.rows_by("landed"), *(day for day in landing.days() if events.basis(day) is not None)})
    if not days:
        raise TableMissing(f"{config.lake} has no landing day; there is nothing to load again")
    for day in days:
        landing.files(day)
    return days


def spans(days: list[date]) -> list[tuple[date, date]]:
    """Return the first and the last day of each run of days without a gap.

    >>> spans([date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 4)])
    [(datetime.date(2025, 1, 1), datetime.date(2025, 1, 2)), (datetime.date(2025, 1, 4), datetime.date(2025, 1, 4))]
    """
    begins = [day for n, day in enumerate(days) if n == 0 or (day - days[n - 1]).days > 1]
    ends = [day for n, day in enumerate(days) if n == len(days) - 1 or (days[n + 1] - day).days > 1]
    return list(zip(begins, ends, strict=True))


def rows_by_table() -> dict[str, dict[date, int]]:
    """Return {table: {day: rows}} of the tables that come from the landing, of events by the day of landing."""
    from lake.table import Table

    found = {name: Table.find(name) for name in made_in("behavior_daily")}
    return {name: table.rows_by(TABLES[name].owned_by) for name, table in found.items() if table}


def compare(before: dict[str, dict[date, int]], anew: dict[str, dict[date, int]]) -> list[Compared]:
    """Return the days of tables of which a new lake has fewer or more rows.

    Days that only the new one has are no loss: a lake may have interests at some dates alone.

    >>> compare({"events": {date(2025, 1, 1): 2, date(2025, 1, 2): 3}}, {"events": {date(2025, 1, 1): 2}})
    [Compared(table='events', day=datetime.date(2025, 1, 2), rows=3, rows_anew=0)]
    """
    return [
        Compared(table, day, rows, there)
        for table, days in before.items()
        for day, rows in days.items()
        if rows != (there := anew.get(table, {}).get(day, 0))
    ]
