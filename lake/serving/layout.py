"""Tables and views of the serving store in PostgreSQL, and the rights of its writer and its readers."""

from typing import LiteralString

from psycopg import sql

from lake.errors import GenerationMissing, ServingUnavailable
from lake.schemas import PREDICTIONS
from lake.serving.store import Store, query

TYPES = {
    "string": "text",
    "int": "integer",
    "bigint": "bigint",
    "double": "double precision",
    "date": "date",
    "array<string>": "text[]",
    "array<double>": "double precision[]",
}
# Stores of earlier versions get this table at their next load.
SET_ASIDE: LiteralString = """create table if not exists {s}.set_aside (
    generation integer not null references {s}.generations on delete cascade,
    reason text not null,
    rows bigint not null,
    primary key (generation, reason)
);
"""
COLUMNS = {field.name: TYPES[field.dataType.simpleString()] for field in PREDICTIONS}


def layout(schema: str) -> sql.Composed:
    """Return the statements that create tables and views in an existing schema; run them in one transaction."""
    columns = sql.SQL(", ").join(sql.SQL("{} " + kind).format(sql.Identifier(name)) for name, kind in COLUMNS.items())
    tables = query(
        schema,
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
        query(
            schema,
            "comment on column {s}.predictions.{name} is {text};\n",
            name=sql.Identifier(field.name),
            text=sql.Literal(field.metadata["comment"]),
        )
        for field in PREDICTIONS
    ]
    return sql.Composed([tables, query(schema, SET_ASIDE), *comments])


def columns_in_store(store: Store) -> dict[str, str]:
    """Return name and type of each column of the view `predictions`; none before the first load."""
    columns = store.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 order by attnum",
        [store.query("{s}.predictions").as_string(store.connection)],
    )
    return dict(columns.fetchall())


def ensure_layout(store: Store) -> None:
    """Create schema, tables and views unless they exist; the caller holds the lock of loads.

    Raises:
        ServingUnavailable: they exist, but were made for other columns.
    """
    columns = columns_in_store(store)
    if not columns:
        with store.connection.transaction():
            schema = [store.query("{s}").as_string(store.connection)]
            if store.execute("select to_regnamespace(%s)", schema).fetchone() == (None,):
                store.execute("create schema {s}")
            store.connection.execute(layout(store.schema))
    elif columns != COLUMNS:
        raise ServingUnavailable(
            f"the schema {store.schema} of the serving store was made for other columns of predictions "
            f"(it has {', '.join(columns)}); set MEANDER_SERVING_SCHEMA to a new one and load it"
        )
    else:
        store.execute(SET_ASIDE)


def require_layout(store: Store) -> None:
    """Check that something has been loaded.

    Raises:
        GenerationMissing: nothing has been loaded yet.
    """
    if not columns_in_store(store):
        raise GenerationMissing(
            f"the serving store holds nothing in its schema {store.schema}; run `meander serve load` first"
        )


def grants(schema: str, writer: str, reader: str) -> str:
    """Return the SQL by which an administrator creates the schema, a role that loads and a role that reads."""
    return query(
        schema,
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
        layout=layout(schema),
    ).as_string(None)
