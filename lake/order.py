"""The order of stagings: each takes the next number of the lake before it looks at its input.

No clock has a say in it: hosts do not agree on the time, and each of them corrects its own now and then. The numbers
are counted in the log of a Delta table without rows, `<lake>/_order`. A commit that takes a number fails if another was
quicker, on every storage that holds a lake; so no number is given twice.
"""

from contextlib import suppress

from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction
from deltalake.schema import PrimitiveType

from lake.commits import until_first
from lake.errors import TableUnreadable
from lake.places import order_path
from lake.schemas import TABLES
from lake.table import Table, create_missing

# Before there were numbers, stagings were ordered by the time in microseconds, of clocks that could be decades ahead.
# This is the time of no year before 33,658: whatever was published then is older than what gets a number.
FIRST = 10**18
# Where the table of numbers was lost, they begin anew so far above what is published: also above what was only staged.
ROOM = 1_000_000


def take_number() -> int:
    """Return the next number, which nobody else gets.

    Raises:
        CommitContended: others were quicker 50 times in a row.
    """
    schema = Schema([Field("number", PrimitiveType("long"))])
    create_missing(order_path(), schema, name="order", description="the numbers of stagings, counted in its log")

    def attempt() -> int:
        numbers = DeltaTable(order_path())
        number = (numbers.transaction_version("taken") or max(FIRST, published())) + 1
        numbers.create_write_transaction(
            [],
            "append",
            schema,
            commit_properties=CommitProperties(
                # delta-rs may not retry for us: the number would be another one by then.
                max_commit_retries=0,
                app_transactions=[Transaction("taken", number)],
            ),
        )
        return number

    return until_first(attempt, "other stagings, which took their numbers,", "nothing was staged, try again")


def published() -> int:
    """Return a number that is well above those of all that was published."""
    # What was staged before there were numbers, and published since, has the time as its number.
    highest = 0
    for name in TABLES:
        # Numbers are of the whole lake: where one log cannot be read, the others tell them within ROOM.
        with suppress(TableUnreadable):
            commits = table.commits() if (table := Table.find(name)) else []
            highest = max([highest, *(int(commit["order"]) + ROOM for commit in commits if "order" in commit)])
    return highest
