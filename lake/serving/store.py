"""The open serving store: a connection and a schema. Entry points open it from the settings, and pass it on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from pydantic import SecretStr

from lake.serving.postgres import Connection, connect
from lake.settings import Settings


@dataclass(frozen=True)
class Store:
    """The serving store while it is open.

    Attributes:
        connection: in autocommit mode.
        url: its address, for further connections.
        schema: that holds the tables and views.
    """

    connection: Connection
    url: SecretStr = field(repr=False)
    schema: str

    def query(self, text: LiteralString, /, **names: sql.Composable) -> sql.Composed:
        """Return SQL with the schema in the place of {s}, quoted, and other names as given."""
        return query(self.schema, text, **names)

    def execute(
        self, text: LiteralString, /, values: Sequence[Any] | None = None, **names: sql.Composable
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement, written as for `query`, with a value for each %s."""
        return self.connection.execute(self.query(text, **names), values)

    def rows_table(self, generation: int) -> sql.Identifier:
        """Return the name of the table that holds the rows of a generation."""
        return sql.Identifier(self.schema, f"prediction_rows_{generation}")


def query(schema: str, text: LiteralString, /, **names: sql.Composable) -> sql.Composed:
    """Return SQL with a schema in the place of {s}, quoted, and other names as given."""
    return sql.SQL(text).format(s=sql.Identifier(schema), **names)


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the serving store that the settings name.

    Raises:
        ServingUnavailable, ServingBusy, ServingRefused, SettingsInvalid: as `lake.serving.postgres.connect`.
    """
    with connect(settings.serving_url) as connection:
        yield Store(connection, settings.serving_url, settings.serving_schema)
