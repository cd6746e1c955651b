"""PostgreSQL: connections, and COPY of Arrow rows into a table over several connections concurrently."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from lake.errors import ServingBusy, ServingRefused, ServingUnavailable, SettingsInvalid

Connection = psycopg.Connection[tuple[Any, ...]]

OLDEST_SERVER = 14  # the first that detaches a partition without keeping readers out
# SQLSTATE of lost connections, of a server that stops or starts, and of too many connections.
UNREACHABLE = ("08", "57P0", "53300")
DEFAULTS = {
    "application_name": "meander",
    "connect_timeout": 10,
    # A host that vanishes without closing its connections must not hold its locks for the two hours that TCP allows.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


# ---- the connection ----


def parameters(url: SecretStr) -> dict[str, Any]:
    """Return the parameters of a connection; those in the address, such as `sslmode`, override the defaults.

    Raises:
        ServingUnavailable: the address is empty.
        SettingsInvalid: the address cannot be parsed. The message shows nothing of it: it holds a password.
    """
    address = url.get_secret_value()
    if not address:
        raise ServingUnavailable(
            "no serving store is set; give its address as MEANDER_SERVING_URL, or as the Airflow connection "
            "`meander_serving`"
        )
    try:
        if not address.startswith(("postgresql://", "postgres://")):
            raise ValueError
        given = conninfo_to_dict(address)
        # A password with an unescaped / or @ is taken for a port, a host or a database, and errors would show it.
        if not all(port.isdigit() for port in str(given.get("port", "5432")).split(",")):
            raise ValueError
        if "@" in f"{given.get('host', '')}{given.get('dbname', '')}":
            raise ValueError
    except (ValueError, psycopg.ProgrammingError):
        raise SettingsInvalid(
            "MEANDER_SERVING_URL is not an address such as postgresql://user:password@host:5432/database?sslmode="
            "verify-full (received something else, which is not shown because it may hold a password); in user and "
            "password, write / @ : ? # % as %2F %40 %3A %3F %23 %25"
        ) from None
    return {**DEFAULTS, **given}


@contextmanager
def connect(url: SecretStr) -> Iterator[Connection]:
    """Open a connection to the serving store, in autocommit mode.

    Raises:
        ServingUnavailable: the server cannot be reached, is too old, was lost, or does not allow a statement; or the
            database is not in UTF-8.
        ServingBusy: a statement waited too long for a lock.
        ServingRefused: the server rejects a statement, and would reject it again.
        SettingsInvalid: the address cannot be parsed.
    """
    given = parameters(url)
    try:
        with psycopg.connect(**given, autocommit=True) as connection:
            version = connection.info.server_version // 10_000
            if version < OLDEST_SERVER:
                raise ServingUnavailable(
                    f"the serving store is PostgreSQL {version}; it must be {OLDEST_SERVER} or newer"
                )
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise ServingUnavailable(f"the database of the serving store is encoded in {encoding}; it must be UTF8")
            yield connection
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise ServingBusy(f"another load or switch holds the serving store ({in_short(error)}); try again") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise ServingUnavailable(
            f"the serving store does not allow this ({in_short(error)}); `meander serve grants` prints what the "
            "writer needs"
        ) from None
    except psycopg.Error as error:
        # Errors of the client have no state: those of the connection are operational, others are faults of this code.
        if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
            raise
        if error.sqlstate is None or error.sqlstate.startswith(UNREACHABLE):
            raise ServingUnavailable(
                f"the serving store cannot be reached, or was lost ({in_short(error)}); is it up, and does the address "
                "name the right host, port, database, user and sslmode?"
            ) from None
        raise ServingRefused(
            f"the serving store rejected a statement ({in_short(error)}, SQLSTATE {error.sqlstate}); applications see "
            "what they saw before"
        ) from None


def in_short(error: psycopg.Error) -> str:
    """Return an error on one line: of a server's message only the first line, since the others may quote rows."""
    return error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__


# ---- texts that PostgreSQL cannot store ----


def rows_not_storable(batch: pa.RecordBatch) -> set[int]:
    r"""Return the numbers of the rows with a text that PostgreSQL cannot store: it is not UTF-8, or has a NUL.

    >>> rows_not_storable(pa.RecordBatch.from_pydict({"user": ["a", "b", None], "items": [None, ["c", "d\0"], []]}))
    {1}
    """
    numbers = set()
    for column in batch.columns:
        in_lists = pa.types.is_list(column.type)
        values = pc.list_flatten(column) if in_lists else column
        # Hardly any batch has such a text, and Arrow searches all values in the time of a few Python objects.
        if pa.types.is_string(values.type) and not all_storable(values):
            rows = pc.list_parent_indices(column).to_pylist() if in_lists else range(len(values))
            texts = zip(rows, values.view(pa.binary()).to_pylist(), strict=True)
            numbers |= {row for row, text in texts if text is not None and not is_storable(text)}
    return numbers


def all_storable(values: pa.Array) -> bool:
    """Return whether PostgreSQL can store each of some strings."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return not pc.any(pc.match_substring(values, "\0")).as_py()


def is_storable(text: bytes) -> bool:
    r"""Return whether PostgreSQL can store a text.

    >>> is_storable("漢".encode()), is_storable(b"a\0"), is_storable(b"\xed\xa0\x80")
    (True, False, False)
    """
    try:
        return "\0" not in text.decode("utf-8")
    except UnicodeDecodeError:
        return False


# ---- rows as the text format of COPY ----

# Escapes of COPY itself; inside an array, those of the array first and then those of COPY. The backslash comes first.
ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
ARRAY_ESCAPES = {**ESCAPES, "\\": "\\\\\\\\", '"': '\\\\"'}


def escaped(values: pa.Array, escapes: dict[str, str]) -> pa.Array:
    """Return strings with special characters escaped."""
    # Hardly any id needs escapes, and one search costs less than a replacement of each character.
    if pc.any(pc.match_substring_regex(values, r'[\\\t\n\r"]')).as_py():
        for character, escape in escapes.items():
            values = pc.replace_substring(values, character, escape)
    return values


def array_texts(lists: pa.Array) -> pa.Array:
    """Return each list as an array literal of PostgreSQL.

    >>> array_texts(pa.array([["a", "b c", None], []])).to_pylist()
    ['{"a","b c",NULL}', '{}']
    """
    values = pc.list_flatten(lists)
    if pa.types.is_string(values.type):
        values = pc.binary_join_element_wise('"', escaped(values, ARRAY_ESCAPES), '"', "")
    offsets = pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), offsets])
    texts = pa.ListArray.from_arrays(offsets, pc.fill_null(values.cast(pa.string()), "NULL"))
    return pc.binary_join_element_wise("{", pc.binary_join(texts, ","), "}", "")


def copy_text(batch: pa.RecordBatch) -> bytes:
    r"""Return rows in the text format of COPY, made by Arrow: no Python object for any value.

    >>> copy_text(pa.RecordBatch.from_pydict({"user": ["a\tb", None], "p": [[0.5, 1e-9], None]}))
    b'a\\tb\t{0.5,1e-9}\n\\N\t\\N\n'
    """
    texts = []
    for column in batch.columns:
        if pa.types.is_list(column.type):
            text = array_texts(column)
        elif pa.types.is_string(column.type):
            text = escaped(column, ESCAPES)
        else:
            text = column.cast(pa.string())
        texts.append(pc.if_else(pc.is_valid(column), text, "\\N"))
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*texts, "\t"), "", "\n")
    # The lines are consecutive in the buffer of their text.
    return bytes(lines.buffers()[2]) if len(lines) else b""


# ---- COPY over several connections ----


class Shared:
    """An iterator shared by threads, which yields each item to one of them; `stop` ends it for all of them."""

    def __init__(self, items: Iterable[Any]):
        self._items = iter(items)
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> "Shared":
        return self

    def __next__(self) -> Any:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._items)

    def stop(self) -> None:
        self._stopped = True


def copy_rows(
    url: SecretStr, table: sql.Identifier, batches: Iterable[pa.RecordBatch], columns: list[str], workers: int
) -> int:
    """Fill a table from batches over `workers` concurrent connections, and return the number of copied rows.

    Each connection runs one COPY. If this raises, some of them may have committed: drop the table then.

    Raises:
        ServingUnavailable, ServingBusy, ServingRefused: as `connect`.
    """
    statement = sql.SQL("copy {} ({}) from stdin").format(table, sql.SQL(", ").join(map(sql.Identifier, columns)))
    shared = Shared(batches)

    def copy_some() -> int:
        try:
            with connect(url) as connection, connection.cursor() as cursor:
                with cursor.copy(statement) as copy:
                    for batch in shared:
                        copy.write(copy_text(batch.select(columns)))
                return cursor.rowcount
        except BaseException:
            shared.stop()
            raise

    # Threads are enough: Arrow and libpq work without Python's lock, and the server has a process for each connection.
    with ThreadPoolExecutor(workers) as pool:
        copies = [pool.submit(copy_some) for _ in range(workers)]
        return sum(copy.result() for copy in copies)
