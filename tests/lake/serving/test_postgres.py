"""Rows arrive as they were, an address keeps its secret, and what goes wrong is said in words."""

import os
import random
import struct
import subprocess
import sys

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql
from pydantic import SecretStr

from lake.errors import MeanderError, ServingBusy, ServingRefused, ServingUnavailable, SettingsInvalid
from lake.serving import postgres as ours
from lake.serving.postgres import connect, copy_rows, parameters, rows_not_storable
from lake.settings import settings
from tests.postgres import PASSWORD

PIECES = [
    "a",
    "é",
    "漢",
    "🙂",
    " ",
    "",
    "\\",
    '"',
    "'",
    "{",
    "}",
    ",",
    "\t",
    "\n",
    "\r",
    "\\N",
    "NULL",
    "\\.",
    "\b",
    "\x7f",
]


def random_rows(seed: int, count: int) -> list[dict]:
    """Make rows of text that means something to COPY or to arrays, of any doubles, and of nulls anywhere."""
    chosen = random.Random(seed)

    def text() -> str | None:
        return "".join(chosen.choices(PIECES, k=chosen.randrange(5))) if chosen.random() < 0.9 else None

    def number() -> float | None:
        bits = struct.unpack("d", struct.pack("Q", chosen.getrandbits(64)))[0]
        return chosen.choice([bits if bits == bits else 0.1, 0.1, 1e-300, -0.0, float("inf"), 1 / 3, None])

    def some(make):
        return [make() for _ in range(chosen.randrange(4))] if chosen.random() < 0.9 else None

    return [{"n": n, "t": text(), "ts": some(text), "d": number(), "ds": some(number)} for n in range(count)]


TEXT, NUMBER = pa.string(), pa.float64()
SCHEMA = pa.schema([("n", pa.int64()), ("t", TEXT), ("ts", pa.list_(TEXT)), ("d", NUMBER), ("ds", pa.list_(NUMBER))])


def url() -> SecretStr:
    """Return the address that the settings of the test name."""
    return settings().serving_url


@pytest.fixture
def table(serving):
    serving.execute("create table rows (n bigint, t text, ts text[], d double precision, ds double precision[])")
    return sql.Identifier("rows")


@pytest.mark.parametrize("workers", [1, 3])
def test_every_text_and_number_arrives_bit_by_bit(serving, table, workers):
    rows = random_rows(seed=workers, count=2000)
    whole = pa.Table.from_pylist(rows, SCHEMA)
    # Slices: a batch need not begin where its buffers do.
    batches = [batch for at in range(0, 2000, 300) for batch in whole.slice(at, 300).to_batches()]
    assert copy_rows(url(), table, batches, SCHEMA.names, workers) == 2000
    found = serving.execute("select n, t, ts, d, ds from rows order by n").fetchall()
    assert repr(found) == repr([tuple(row.values()) for row in rows])  # repr tells -0.0 from 0.0


def test_nothing_to_copy_is_no_error(serving, table):
    assert copy_rows(url(), table, [], SCHEMA.names, 2) == 0


def test_a_failing_source_stops_all_workers_and_is_what_is_raised(serving, table):
    def batches():
        yield from pa.Table.from_pylist(random_rows(1, 10), SCHEMA).to_batches()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        copy_rows(url(), table, batches(), SCHEMA.names, 2)


def test_when_one_connection_fails_the_others_do_not_go_on_to_the_end(serving, table):
    copying = "select pid from pg_stat_activity where datname = current_database() and query like 'copy %' limit 1"
    (rows,) = pa.Table.from_pylist(random_rows(1, 200), SCHEMA).to_batches()
    taken = []

    def batches():
        for n in range(2000):
            taken.append(n)
            if n == 20:
                serving.execute(f"select pg_terminate_backend(({copying}))")
            yield rows

    with pytest.raises(ServingUnavailable, match="was lost"):
        copy_rows(url(), table, batches(), SCHEMA.names, 2)
    assert len(taken) < 2000


def test_a_value_that_postgresql_cannot_store_is_refused(serving, table):
    batch = pa.RecordBatch.from_pylist([{"n": 1, "t": "a\x00b"}], SCHEMA)
    with pytest.raises(ServingRefused, match=r"rejected a statement \(invalid byte sequence .*, SQLSTATE 22021\)"):
        copy_rows(url(), table, [batch], SCHEMA.names, 1)


def strings(*texts: bytes | None) -> pa.Array:
    """Make strings of any bytes, as a Parquet file may have them."""
    return pa.array(texts, pa.binary()).view(TEXT)


def test_texts_that_postgresql_cannot_store_are_found_wherever_they_are():
    def texts(first: bytes, second: bytes) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array([0, 2, 2, 3, 5], pa.int32()), strings(b"a", first, b"b", b"c", second))

    none = texts(b"d", "é漢🙂\t\\".encode())
    columns = {
        "plain": (strings(b"a", None, b"", "é漢🙂\x7f\ufffe".encode()), none, set()),
        "NUL": (strings(b"a", None, b"a\0b", b"\0"), none, {2, 3}),
        "a lone surrogate": (strings(b"\xed\xa0\x80", None, b"a", b"b"), none, {0}),
        "cut in the middle": (strings(b"a", None, b"b", b"\xe6\xbc"), none, {3}),
        "NUL in a list": (strings(b"a", None, b"b", b"c"), texts(b"\0", b"a"), {0}),
        "Latin-1 in a list": (strings(b"a", None, b"b", b"c"), texts(b"a", b"\xe9"), {3}),
        "in both": (strings(b"a", None, b"\0", b"c"), texts(b"a", b"\0"), {2, 3}),
    }
    numbers = pa.array([1, 2, 3, None])
    for what, (text, many, expected) in columns.items():
        batch = pa.RecordBatch.from_arrays([numbers, text, many], ["n", "text", "many"])
        assert rows_not_storable(batch) == expected, what
        # A batch need not begin where its buffers do.
        assert rows_not_storable(batch.slice(1)) == {row - 1 for row in expected if row}, what


# --- errors of the server -------------------------------------------------------------------------------

# What the server says, by SQLSTATE, and what becomes of it: tried again (unavailable, busy), or not (refused).
STATES = {
    "08006": (ServingUnavailable, "a connection that failed"),
    "08P01": (ServingUnavailable, "a protocol that was broken, as by a proxy that ends"),
    "57P01": (ServingUnavailable, "an administrator ends the connection"),
    "57P03": (ServingUnavailable, "the server is starting"),
    "53300": (ServingUnavailable, "too many connections"),
    "55P03": (ServingBusy, "a lock is not available"),
    "40P01": (ServingBusy, "a deadlock"),
    "53100": (ServingRefused, "the disk is full"),
    "53200": (ServingRefused, "the memory is used up"),
    "54000": (ServingRefused, "an id too long for the index"),
    "22021": (ServingRefused, "a text that is not UTF-8"),
    "57014": (ServingRefused, "a statement timeout of the role"),
    "25006": (ServingRefused, "a standby, which is read only"),
    "42703": (ServingRefused, "a column is missing"),
    "XX001": (ServingRefused, "corrupted data"),
}


@pytest.mark.parametrize(("state", "expected"), [(state, kind) for state, (kind, _) in STATES.items()])
def test_the_state_of_an_error_decides_whether_it_is_tried_again(serving, state, expected):
    raises = f"do $$ begin raise exception 'the words of the server' using errcode = '{state}'; end $$"
    with pytest.raises(expected, match="the words of the server") as error, connect(url()) as connection:
        connection.execute(raises)
    assert type(error.value) is expected
    if expected is ServingRefused:
        assert f"SQLSTATE {state}" in str(error.value)
        assert "cannot be reached" not in str(error.value)


def test_a_fault_of_this_code_is_not_blamed_on_the_store(serving):
    with pytest.raises(psycopg.ProgrammingError, match="0 placeholders but 1 parameters"), connect(url()) as connection:
        connection.execute("select 1", [1])


def test_too_many_connections_are_a_store_that_cannot_be_reached(serving, monkeypatch, postgres):
    serving.execute("create role crowd login password 'secret' connection limit 0")
    monkeypatch.setenv("MEANDER_SERVING_URL", postgres.url("crowd", "secret"))
    try:
        with pytest.raises(ServingUnavailable, match="too many connections for role"):
            connect(url()).__enter__()
    finally:
        serving.execute("drop role crowd")


def test_a_database_that_is_not_in_utf_8_is_refused(lake, monkeypatch, postgres):
    with postgres.connect() as admin:
        admin.execute("create database latin encoding 'LATIN1' locale 'C' template template0")
    monkeypatch.setenv("MEANDER_SERVING_URL", postgres.url(database="latin"))
    with pytest.raises(ServingUnavailable, match="is encoded in LATIN1; it must be UTF8"):
        connect(url()).__enter__()
    with postgres.connect() as admin:
        admin.execute("drop database latin")


# --- the address ----------------------------------------------------------------------------------------


def test_without_an_address_there_is_no_store(lake):
    with pytest.raises(ServingUnavailable, match="no serving store is set; give its address as MEANDER_SERVING_URL"):
        connect(url()).__enter__()


def test_what_the_address_says_wins_over_what_we_would_ask_for(lake, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_URL", "postgresql://u:p%40ss@h:5433/d?connect_timeout=3&sslmode=require")
    found = parameters(url())
    assert (found["host"], found["port"], found["user"], found["password"]) == ("h", "5433", "u", "p@ss")
    assert (found["connect_timeout"], found["sslmode"], found["application_name"]) == ("3", "require", "meander")
    # A host that vanishes is noticed within a minute, and does not hold its locks for hours.
    assert found["keepalives_idle"] + found["keepalives_interval"] * found["keepalives_count"] == 60


def test_a_server_that_is_too_old_is_refused_and_the_oldest_that_will_do_is_not(serving, monkeypatch):
    version = serving.info.server_version // 10_000
    monkeypatch.setattr(ours, "OLDEST_SERVER", version)
    with connect(url()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    monkeypatch.setattr(ours, "OLDEST_SERVER", version + 1)
    with pytest.raises(ServingUnavailable, match=f"is PostgreSQL {version}; it must be {version + 1} or newer"):
        connect(url()).__enter__()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("mysql://u:hunter2@h/d", id="another database"),
        pytest.param("host=h user=u password=hunter2", id="not an address"),
        pytest.param("postgresql://u:hunter2/x@h/d", id="a slash in the password, taken for a port"),
        pytest.param("postgresql://u:1/hunter2@h/d", id="a slash after digits, taken for a port and a database"),
        pytest.param("postgresql://u:x@hunter2@h/d", id="an at in the password, taken for a host"),
        pytest.param("postgresql://u:hunter2@h/d?sslmod=require", id="a misspelt parameter"),
        pytest.param("postgresql://u:hunter2%zz@h/d", id="a broken escape"),
        pytest.param("postgresql://u:hunter2@[h/d", id="a broken host"),
    ],
)
def test_an_address_that_cannot_be_read_is_said_without_a_word_of_it(url):
    with pytest.raises(SettingsInvalid, match="MEANDER_SERVING_URL is not an address such as") as said:
        connect(SecretStr(url)).__enter__()
    assert "hunter2" not in str(said.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"password": "hunter2"}, "password authentication failed for user", id="a wrong password"),
        pytest.param({"user": "nobody", "password": "hunter2"}, "authentication failed", id="an unknown user"),
        pytest.param({"password": "hunter2", "more": "?port=1"}, "[Cc]onnection refused", id="nobody listens"),
        pytest.param({"more": "?sslmode=require"}, "server does not support SSL", id="TLS asked for, and not offered"),
    ],
)
def test_a_store_that_cannot_be_reached_is_said_without_the_password(lake, postgres, monkeypatch, change, said):
    monkeypatch.setenv("MEANDER_SERVING_URL", postgres.url(**change))
    with pytest.raises(ServingUnavailable, match=said) as error:
        connect(url()).__enter__()
    told = str(error.value)
    assert "hunter2" not in told
    assert PASSWORD not in told


def test_a_store_that_is_lost_in_the_middle_is_said(serving, monkeypatch):
    def lose():
        with connect(url()) as connection:
            serving.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
            connection.execute("select 1")

    with pytest.raises(ServingUnavailable, match="was lost"):
        lose()


def test_an_error_of_ours_passes_as_it_is(serving):
    with pytest.raises(MeanderError, match="it is ours"), connect(url()):
        raise MeanderError("it is ours")


# With TensorFlow in the same process, which other tests import, the first TLS connection of psycopg aborts it.
ASK_FOR_TLS = """
from lake.serving.postgres import connect
from lake.settings import settings
with connect(settings().serving_url) as connection:
    print(connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone())
"""


# MLflow connects so to a registry in PostgreSQL, in a process that trains.
ASK_FOR_TLS_BESIDE_TENSORFLOW = """
import os
import model.pretrain
import tensorflow, psycopg2
with psycopg2.connect(os.environ["MEANDER_SERVING_URL"]) as connection, connection.cursor() as cursor:
    cursor.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    print(cursor.fetchone())
"""


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else done.stderr


def test_tls_is_used_and_the_server_is_known_by_its_certificate_when_the_address_asks(
    serving, postgres, monkeypatch, tmp_path
):
    certificate(postgres)
    serving.execute("alter system set ssl = on")
    serving.execute("select pg_reload_conf()")
    plain = os.environ["MEANDER_SERVING_URL"]
    authority = tmp_path / "authority.pem"
    authority.write_text((postgres.data / "server.crt").read_text())
    try:
        monkeypatch.setenv("MEANDER_SERVING_URL", f"{plain}?sslmode=verify-full&sslrootcert={authority}")
        assert in_a_fresh_process(ASK_FOR_TLS) == "(True,)\n"
        assert in_a_fresh_process(ASK_FOR_TLS_BESIDE_TENSORFLOW) == "(True,)\n"
        monkeypatch.setenv("MEANDER_SERVING_URL", f"{plain}?sslmode=verify-full&sslrootcert={authority}&host=localhost")
        assert "ServingUnavailable" in (error := in_a_fresh_process(ASK_FOR_TLS))
        assert "does not match host name" in error
    finally:
        serving.execute("alter system reset ssl")
        serving.execute("select pg_reload_conf()")


def certificate(server):
    """Give the server a certificate for its address, signed by itself."""
    server.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", server.data / "server.key", "-out",
        server.data / "server.crt",
    )  # fmt: skip
