"""How many rows of forgotten users each landing day had, so that a delivery without them is none that has lost rows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from lake import storage
from lake.order import take_number
from lake.places import landed_file, receipts_folder
from lake.staging import UNREADABLE


@dataclass(frozen=True)
class LandedRows:
    """The rows of the users of one request, by landing day, and a number: stagings above it left them out already."""

    number: int
    rows: Mapping[date, int]


def note_landed(request: str, rows: Mapping[date, int]) -> None:
    """Write down how many rows of the users of a request lie in the landing, before any of them is taken out.

    A request that is repeated finds those that are left: of each day, the most that were ever found count.
    """
    if not rows:
        return
    content = storage.read_json(landed_file(request)) or {"rows": {}}
    most = {str(day): max(count, content["rows"].get(str(day), 0)) for day, count in sorted(rows.items())}
    most = content["rows"] | most
    # Nothing new: what was staged since then has left them out, and a later number would subtract them twice.
    if most != content["rows"]:
        storage.write_json(landed_file(request), {"number": take_number(), "rows": most})


def read_landed() -> list[LandedRows]:
    """Return what all requests have found in the landing. One that cannot be read has found nothing."""
    folder = receipts_folder()
    found = []
    for name in storage.list_files(folder):
        if name.endswith(".landed.json"):
            with suppress(*UNREADABLE):
                content = storage.read_json(storage.join(folder, name)) or {}
                rows = {date.fromisoformat(day): int(count) for day, count in content["rows"].items()}
                found.append(LandedRows(int(content["number"]), rows))
    return found


def forgotten_since(landed: Sequence[LandedRows], day: date, order: int) -> int:
    """Return how many rows of a landing day are of users who were forgotten after a staging took its number."""
    return sum(each.rows.get(day, 0) for each in landed if each.number > order)
