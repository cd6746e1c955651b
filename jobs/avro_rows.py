"""Avro files: their types, and their rows as JSON lines.

Spark reads them only with a jar that is not among its own, so that Python does, a block at a time. A block and each
part of a schema is checked before it is unpacked or read: a few bytes may stand for a list of a billion nulls, or for
a record inside of itself without end.
"""

import bz2
import io
import json
import lzma
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

import fastavro
import numpy as np
import pyarrow as pa

from jobs.orc_rows import paths_of, plain
from jobs.packed import XZ_MEMORY
from lake import storage

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
# What a block may have, packed or not. Writers end one after kilobytes, or some megabytes.
BLOCK_BYTES = 64 << 20
# The schema, and what else a writer has noted; a type that is used again counts again.
HEADER_BYTES, MOST_PARTS = 1 << 20, 100_000
SIMPLE = {
    **{"null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32()},
    **{"double": pa.float64(), "bytes": pa.binary(), "string": pa.string(), "enum": pa.string(), "fixed": pa.binary()},
}
# Times in nanoseconds are numbers to the library, and so they are here.
LOGICAL = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("string", "uuid"): pa.string(),
}
# What a value may be that has none of these types alone: no id, no time and no number.
MIXED = pa.map_(pa.string(), pa.string())
# What a number in four bytes is to the library, so that it has the digits that tell it apart: of 0.1, Python would make
# 0.10000000149. In a choice of types, the library alone knows which one a value has.
SHORT = {"type": "float", "logicalType": "meander-short"}
fastavro.read.LOGICAL_READERS["float-meander-short"] = lambda value, *_: float(str(np.float32(value)))


def is_avro(file: str, head: bytes) -> bool:
    """Return whether a file is Avro, by its name or its first bytes."""
    return file.endswith(".avro") or head.startswith(MAGIC)


def avro_schema(file: str) -> pa.Schema:
    """Return the types of a file, as Parquet would have them.

    Raises:
        OSError, ValueError: it is no Avro file, or its rows are not read here.
    """
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        return arrow_schema(_header(stream)[0])


def json_lines(file: str, used: Collection[str] | None = None, ids: Collection[str] = ()) -> Iterator[bytes]:
    """Yield the rows of a file as JSON lines, see `jobs.orc_rows.json_lines`."""
    at_ids = paths_of(ids)
    for row in rows_of(file, used):
        yield json.dumps(plain(row, at_ids), ensure_ascii=False).encode()


def rows_of(file: str, used: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, with the columns that hold some values; with all of them if none are named.

    Raises:
        OSError, ValueError: it is damaged, or a value of these columns is one that Python cannot hold.
    """
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        schema, codec, sync = _header(stream)
        arrow = arrow_schema(schema)
        # A name with dots may lead into a column.
        wanted = {name.split(".")[0] for name in used} if used is not None else set(arrow.names)
        try:
            parsed = fastavro.parse_schema(as_read(schema, wanted))
        except Exception as error:  # as of a row
            raise ValueError(f"a schema that is none of Avro ({type(error).__name__}: {error})") from error
        for count, data in _blocks(stream, codec, sync):
            content = io.BytesIO(data)
            for _ in range(count):
                row = _row(content, parsed)
                yield {name: row[name] for name in arrow.names if name in wanted}
            if content.tell() != len(data):
                raise ValueError("a block has more bytes than its rows")


def write_first(file: str, rows: int, target: IO[bytes]) -> bool:
    """Write the first blocks of a file that have so many rows, or all; return whether there is one.

    Raises:
        OSError, ValueError: as `rows_of`.
    """
    fs, inner = storage.filesystem(file)
    with fs.open(inner, "rb") as stream:
        _, codec, sync = _header(stream)
        taken = 0
        for count, _ in _blocks(stream, codec, sync):
            taken += count
            if taken >= rows:
                break
        end = stream.tell()
        stream.seek(0)
        target.write(stream.read(end))
    return taken > 0


def _row(content: IO[bytes], schema: Any) -> dict[str, Any]:
    try:
        row: dict[str, Any] = fastavro.schemaless_reader(content, schema)  # type: ignore[assignment]
    except Exception as error:  # whatever the library raises of bytes that are no row
        raise ValueError(f"a row that cannot be read ({type(error).__name__}: {error})") from error
    return row


def _header(stream: IO[bytes]) -> tuple[dict[str, Any], str, bytes]:
    """Return the schema of a file, how its blocks are packed, and the mark between them."""
    head = stream.read(HEADER_BYTES)
    if not head.startswith(MAGIC):
        raise ValueError("its first bytes are not those of Avro")
    content = io.BytesIO(head[len(MAGIC) :])
    noted = _row(content, {"type": "map", "values": "bytes"})
    sync = content.read(SYNC_BYTES)
    stream.seek(len(MAGIC) + content.tell())
    try:
        schema = json.loads(noted.get("avro.schema", b"null"))
    except RecursionError as error:
        raise ValueError("a schema of too many levels") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("its rows are no records")
    return schema, noted.get("avro.codec", b"null").decode(), sync


def _blocks(stream: IO[bytes], codec: str, sync: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each block: how many rows it has, and their bytes."""
    while begin := stream.read(1):
        count = _number(stream, begin)
        size = _number(stream, stream.read(1))
        if count < 0 or not 0 <= size <= BLOCK_BYTES:
            raise ValueError(f"a block of {size:,} bytes, expected {BLOCK_BYTES:,} at most")
        data = stream.read(size)
        if len(data) != size or stream.read(SYNC_BYTES) != sync:
            raise ValueError("a block that has another end, or none")
        yield count, _unpacked(data, codec)


def _number(stream: IO[bytes], byte: bytes) -> int:
    """Return the whole number that begins with a byte.

    Raises:
        EOFError: the file ends in it.
    """
    value = shift = 0
    while byte:
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
        byte = stream.read(1)
    raise EOFError("the file ends before its content does")


def _unpacked(data: bytes, codec: str) -> bytes:
    """Return the bytes of a block.

    Raises:
        ValueError: they are more than `BLOCK_BYTES`, or are packed in an unusual way.
        BROKEN: they are damaged.
    """
    decoders: dict[str, Any] = {
        "deflate": lambda: zlib.decompressobj(-zlib.MAX_WBITS),
        "bzip2": bz2.BZ2Decompressor,
        "xz": lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY),
    }
    if codec == "null":
        return data
    if codec in decoders:
        decoder = decoders[codec]()
        content: bytes = decoder.decompress(data, BLOCK_BYTES + 1)
        is_whole = decoder.eof
    elif codec == "zstandard":
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            content = stream.read(BLOCK_BYTES + 1)
        is_whole = True
    elif codec == "snappy":
        size, (check,) = _snappy_size(data), struct.unpack(">I", data[-4:])
        if size > BLOCK_BYTES:
            raise ValueError(f"a block of {size:,} bytes, expected {BLOCK_BYTES:,} at most")
        content = pa.decompress(data[:-4], size, "snappy", asbytes=True)
        is_whole = zlib.crc32(content) == check
    else:
        raise ValueError(f"blocks packed by {codec}; have them written with deflate, snappy or zstandard")
    if len(content) > BLOCK_BYTES:
        raise ValueError(f"a block of more than {BLOCK_BYTES:,} bytes")
    if not is_whole:
        raise ValueError("a block that is damaged")
    return content


def _snappy_size(data: bytes) -> int:
    """Return how many bytes a text in Snappy has, which stands before it."""
    size = 0
    for n, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            break
    return size


def as_read(schema: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """Return the schema by which the library reads rows of which some columns are wanted.

    Times of the other columns are the numbers they are: there are some that Python cannot hold. A type that has a name
    may be described in such a column alone, and be that of a wanted one: so it keeps its meaning everywhere.
    """
    described: dict[str, set[str]] = {}
    space = _full_name(schema, "").rpartition(".")[0]
    named = [(each["name"], _names(each["type"], space, described)) for each in schema["fields"]]
    todo = [name for column, names in named if column in wanted for name in names]
    kept: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in kept:
            kept.add(name)
            todo += described[name]
    fields = [_field_as_read(each, space, kept, has_meaning=each["name"] in wanted) for each in schema["fields"]]
    return {**schema, "fields": fields}


def _names(kind: Any, space: str, described: dict[str, set[str]]) -> set[str]:
    """Return the full names of the types in a type, and add those in each type that is described in it."""
    if isinstance(kind, str):
        return set() if kind in SIMPLE else {_full_name({"name": kind}, space)}
    if isinstance(kind, list):
        return {name for each in kind for name in _names(each, space, described)}
    base = kind["type"]
    if base in ("record", "enum", "fixed"):
        full = _full_name(kind, space)
        inside = full.rpartition(".")[0]
        fields = [_names(each["type"], inside, described) for each in kind.get("fields", ())]
        described[full] = {name for names in fields for name in names}
        return {full}
    inner = kind["items"] if base == "array" else kind["values"] if base == "map" else base
    return _names(inner, space, described)


def _field_as_read(field: Mapping[str, Any], space: str, kept: Collection[str], *, has_meaning: bool) -> dict[str, Any]:
    """Return a column, or a field of a record, as the library reads it, see `as_read`."""

    def read(kind: Any) -> Any:
        if isinstance(kind, list):
            return [read(each) for each in kind]
        base = kind if isinstance(kind, str) else kind["type"]
        if not isinstance(base, str):
            return read(base)
        if has_meaning and base == "float":
            return SHORT
        if isinstance(kind, str) or (not has_meaning and base in ("int", "long", "string", "bytes")):
            return base
        if base == "record":
            full = _full_name(kind, space)
            inside, is_kept = full.rpartition(".")[0], has_meaning or full in kept
            fields = [_field_as_read(each, inside, kept, has_meaning=is_kept) for each in kind["fields"]]
            return {**kind, "fields": fields}
        return {**kind, **{key: read(kind[key]) for key in ("items", "values") if key in kind}}

    return {"name": field["name"], "type": read(field["type"])}


def _full_name(kind: Mapping[str, Any], space: str) -> str:
    """Return the name of a type with its namespace, which is the one around it if it has none of its own."""
    name: str = kind["name"]
    return name if "." in name else f"{kind.get('namespace', space)}.{name}".lstrip(".")


def arrow_schema(schema: Mapping[str, Any]) -> pa.Schema:
    """Return the types of a schema of Avro as Parquet would have them.

    Raises:
        ValueError: a type is in itself, has no bytes although there may be any number of it, or is none.
    """
    try:
        record = _Types().of(schema)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a schema that is none of Avro ({type(error).__name__}: {error})") from error
    if not _has_bytes(record):
        raise ValueError("rows without a byte")
    return pa.schema(list(record))


def _has_bytes(kind: pa.DataType) -> bool:
    """Return whether a value of a type takes a byte at least; a choice of types, a list or a text do."""
    if pa.types.is_struct(kind):
        return any(_has_bytes(kind.field(n).type) for n in range(kind.num_fields))
    return not pa.types.is_null(kind)


class _Types:
    """Types of Avro by their names, which may be used after they were described."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[pa.DataType, int]] = {}
        self._parts = 0
        self._open: set[str] = set()

    def of(self, kind: Any, space: str = "") -> pa.DataType:
        """Return the type of Arrow that a type of Avro is."""
        self._add(1)
        if isinstance(kind, str):
            if kind in SIMPLE:
                return SIMPLE[kind]
            name = _full_name({"name": kind}, space)
            if name in self._open:
                raise ValueError(f"the type {kind}, which has itself in it")
            found, parts = self._named[name]
            self._add(parts)
            return found
        if isinstance(kind, list):
            return self._choice([self.of(each, space) for each in kind if each != "null"])
        base = kind["type"]
        if not isinstance(base, str):
            return self.of(base, space)
        if base in ("record", "enum", "fixed"):
            return self._describe(kind, space)
        if base in ("array", "map"):
            inner = self.of(kind["items" if base == "array" else "values"], space)
            if base == "array" and not _has_bytes(inner):
                raise ValueError("a list whose elements have no bytes, of which a few may stand for billions")
            return pa.list_(inner) if base == "array" else pa.map_(pa.string(), inner)
        return self._plain(kind, base) if base in SIMPLE else self.of(base, space)

    def _add(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MOST_PARTS:
            raise ValueError(f"a schema of more than {MOST_PARTS:,} parts")

    def _plain(self, kind: Mapping[str, Any], base: str) -> pa.DataType:
        meaning = kind.get("logicalType")
        if meaning == "decimal" and base in ("bytes", "fixed"):
            precision, scale = int(kind["precision"]), int(kind.get("scale", 0))
            return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
        return LOGICAL.get((base, str(meaning)), SIMPLE[base])

    def _describe(self, kind: Mapping[str, Any], space: str) -> pa.DataType:
        name = _full_name(kind, space)
        inside = name.rpartition(".")[0]
        self._open.add(name)
        before = self._parts
        if kind["type"] == "record":
            fields = [pa.field(each["name"], self.of(each["type"], inside)) for each in kind["fields"]]
            found: pa.DataType = pa.struct(fields)
        else:
            if kind["type"] == "fixed" and int(kind["size"]) < 1:
                raise ValueError("a type of no bytes")
            found = self._plain(kind, kind["type"])
        self._open.remove(name)
        self._named[name] = found, self._parts - before
        return found

    def _choice(self, kinds: list[pa.DataType]) -> pa.DataType:
        """Return the type of a value that has one of some types."""
        first = next(iter(kinds), pa.null())
        if all(kind == first for kind in kinds):
            return first
        if all(map(pa.types.is_integer, kinds)):
            return pa.int64()
        if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
            return pa.float64()
        are_texts = (pa.types.is_string(kind) or pa.types.is_integer(kind) for kind in kinds)
        return pa.string() if all(are_texts) else MIXED
