"""What the serving store is made of in PostgreSQL: tables, views, and the rights of who writes and who reads."""

from typing import LiteralString

from psycopg import sql

from lake.errors import GenerationMissing, ServingUnavailable
from lake.schemas import PREDICTIONS
from lake.serving.postgres import Connection
from lake.settings import settings

TYPES = {
    "string": "text",
    "int": "integer",
    "bigint": "bigint",
    "double": "double precision",
    "date": "date",
    "array<string>": "text[]",
    "array<double>": "double precision[]",
}
COLUMNS = {field.name: TYPES[field.dataType.simpleString()] for field in PREDICTIONS}


def query(text: LiteralString, /, **names: sql.Composable) -> sql.Composed:
    """Return SQL with our schema in the place of {s}, quoted, and other names as given."""
    return sql.SQL(text).format(s=sql.Identifier(settings().serving_schema), **names)


def rows_table(generation: int) -> sql.Identifier:
    """Return the name of the table that holds one generation."""
    return sql.Identifier(settings().serving_schema, f"prediction_rows_{generation}")


def layout() -> sql.Composed:
    """Return the statements that make tables and views in a schema that is there; run them in one transaction."""
    columns = sql.SQL(", ").join(sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in COLUMNS.items())
    made = query(
        """
create table {s}.generations (
    generation integer generated always as identity primary key,
    state text not null check (state in ('loading', 'ready', 'dropping')),
    day date not null,
    model_version integer,
    users bigint,
    lake_version bigint not null,
    fingerprint text not null,
    run_id text not null,
    began timestamptz not null default now(),
    seconds double precision
);
create unique index on {s}.generations (day, fingerprint) where state = 'ready';
create table {s}.switches (
    switch bigint generated always as identity primary key,
    generation integer not null,
    day date not null,
    run_id text not null,
    report jsonb not null,
    switched timestamptz not null default now()
);
create table {s}.pointer (
    only_row boolean primary key default true check (only_row),
    generation integer not null references {s}.generations
);
create table {s}.prediction_rows ({columns}, generation integer not null, primary key (user_id, generation))
    partition by list (generation);
create view {s}.predictions as
    select {names} from {s}.prediction_rows where generation = (select generation from {s}.pointer);
create view {s}.served as
    select g.day, g.model_version, g.users, g.generation,
        (select max(switched) from {s}.switches w where w.generation = g.generation) as since
    from {s}.pointer join {s}.generations g using (generation);
""",
        columns=columns,
        names=sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
    )
    comments = [
        query("comment on column {s}.predictions.{name} is {text};\n", name=sql.Identifier(field.name), text=said)
        for field, said in ((field, sql.Literal(field.metadata["comment"])) for field in PREDICTIONS)
    ]
    return sql.Composed([made, *comments])


def found_columns(connection: Connection) -> dict[str, str]:
    """Return name and type of each column of the view `predictions`; none when the store has not been made."""
    found = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 order by attnum",
        [query("{s}.predictions").as_string(connection)],
    )
    return dict(found.fetchall())


def ensure_layout(connection: Connection) -> None:
    """Make schema, tables and views unless they are there; the caller holds the lock of loads.

    Raises:
        ServingUnavailable: they are there, but were made for other columns.
    """
    found = found_columns(connection)
    if not found:
        with connection.transaction():
            there = connection.execute("select to_regnamespace(%s)", [query("{s}").as_string(connection)]).fetchone()
            if there == (None,):
                connection.execute(query("create schema {s}"))
            connection.execute(layout())
    elif found != COLUMNS:
        raise ServingUnavailable(
            f"the schema {settings().serving_schema} of the serving store was made for other columns of predictions "
            f"(it has {', '.join(found)}); set MEANDER_SERVING_SCHEMA to a new one and load it"
        )


def require_layout(connection: Connection) -> None:
    """Check that there is a store to ask.

    Raises:
        GenerationMissing: nothing has been loaded yet.
    """
    if not found_columns(connection):
        raise GenerationMissing(
            f"the serving store holds nothing in its schema {settings().serving_schema}; run `meander serve load` first"
        )


def grants(writer: str, reader: str) -> str:
    """Return the SQL by which an administrator makes the schema for two roles, each of which may do what it must."""
    return query(
        """-- Run once by an administrator, in the database of the serving store. Then
-- give both roles a password or another login.
begin;
create role {writer} login;
create role {reader} login;
create schema {s} authorization {writer};
set local role {writer};
{layout}
grant usage on schema {s} to {reader};
grant select on {s}.predictions, {s}.served to {reader};
commit;
""",
        writer=sql.Identifier(writer),
        reader=sql.Identifier(reader),
        layout=layout(),
    ).as_string(None)
