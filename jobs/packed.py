"""Text in packed files, of which at no time more is in memory than what is asked for: .gz, .bz2, .zip, .xz and .zst.

Spark unpacks .gz and .bz2 itself; files of the other kinds are read in Python (jobs/python_rows.py).
"""

import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec
import pyarrow as pa

from lake import storage
from lake.errors import LandingUnreadable
from lake.text import is_usable_id

ZIP, XZ, ZSTD = (".zip",), (".xz",), (".zst", ".zstd")
# What is read by Python.
SUFFIXES = (*ZIP, *XZ, *ZSTD)
# How a .zip may pack its file: of other ways, `zipfile` has no limit of what it unpacks at once.
ZIP_WAYS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What these libraries, and the reader of ORC, raise of a file that is broken, cut off, locked by a password, needs too
# much memory, or has a date that Python has not.
BROKEN: tuple[type[Exception], ...] = (OSError, EOFError, RuntimeError, ValueError, ArithmeticError, struct.error)
BROKEN += (zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)
CHUNK = 1 << 16
HIDDEN = (".", "__MACOSX")
# A file in a .zip has the name of the .zip, this, and its own, as in Java's `jar:` addresses.
IN_ZIP = re.compile(r"(.*?\.zip)!/(.+)", re.IGNORECASE | re.DOTALL)
# The .zip is opened anew for each of its files.
MOST_MEMBERS = 1000
# A packed file says itself how much of its text a reader has to keep: the strongest setting of xz needs 65 MiB.
XZ_MEMORY = 128 << 20


def is_packed(file: str) -> bool:
    """Return whether a file is packed in a way that Spark does not unpack, by its name."""
    return on_storage(file).lower().endswith(SUFFIXES)


def on_storage(file: str) -> str:
    """Return the name of the .zip in which a file is; that of the file itself if it is in none.

    >>> on_storage("dt=2025-03-02/log.zip!/web/a.csv"), on_storage("dt=2025-03-02/a.csv")
    ('dt=2025-03-02/log.zip', 'dt=2025-03-02/a.csv')
    """
    found = IN_ZIP.fullmatch(file)
    return found[1] if found else file


def parts_of(file: str) -> list[str]:
    """Return names by which the files in a .zip are opened one by one, in their order; the file itself if it is one.

    Raises:
        LandingUnreadable: it is no .zip that can be read.
    """
    if not file.lower().endswith(ZIP) or file != on_storage(file):
        return [file]
    fs, inner = storage.filesystem(file)
    with readable(file), fs.open(inner, "rb") as stream:
        if not stream.read(1):
            return [file]
        stream.seek(0)
        with zipfile.ZipFile(stream) as packed:
            names = [each.filename for each in members(packed)]
    return [f"{file}!/{name}" for name in names] if len(names) > 1 else [file]


def absolute(files: Sequence[str]) -> list[str]:
    """Return names by which a worker of Spark, which has another folder of its own, opens the same files."""

    def one(file: str) -> str:
        outer = on_storage(file)
        return file if "://" in file else f"{Path(outer).absolute()}{file[len(outer) :]}"

    return [one(file) for file in files]


@contextmanager
def readable(file: str) -> Iterator[None]:
    """Name the file in the error that says that it cannot be read.

    Raises:
        LandingUnreadable: instead of what `BROKEN` has.
    """
    try:
        yield
    except BROKEN as error:
        raise LandingUnreadable(f"{file}: expected a readable file, found {type(error).__name__}: {error}") from error


@contextmanager
def unpacked(file: str) -> Iterator[IO[bytes]]:
    """Open a file on any storage; what is read from it is unpacked. Of a .zip all files follow each other.

    Raises:
        BROKEN: at once, or when it is read to the damaged place: the file cannot be unpacked.
    """
    with ExitStack() as opened:
        if not is_packed(file):
            yield opened.enter_context(fsspec.open(file, "rb", compression="infer"))
            return
        outer = on_storage(file)
        fs, inner = storage.filesystem(outer)
        stream = opened.enter_context(fs.open(inner, "rb"))
        name = outer.lower()
        if name.endswith(ZIP):
            if not stream.read(1):
                yield io.BytesIO()
                return
            stream.seek(0)
            packed = opened.enter_context(zipfile.ZipFile(stream))
            wanted = file[len(outer) + len("!/") :]
            files = [each for each in members(packed) if wanted in ("", each.filename)]
            if not files:
                raise zipfile.BadZipFile(f"no file {wanted} in it any more")
            if len(files) == 1:
                yield opened.enter_context(packed.open(files[0]))
            else:
                yield cast("IO[bytes]", _Joined(packed, files))
        elif name.endswith(XZ):
            yield io.BufferedReader(_Xz(stream), CHUNK)
        else:
            source = pa.PythonFile(stream, mode="r")
            yield cast("IO[bytes]", opened.enter_context(pa.CompressedInputStream(source, "zstd")))


def members(packed: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files in a .zip by their names; folders, and what macOS adds, do not count.

    Raises:
        zipfile.BadZipFile: it has none, too many, two of one name, one with a name that cannot be shown, or one that is
            packed in an unusual way.
    """
    files = [
        each
        for each in packed.infolist()
        if not each.is_dir()
        and not any(part.startswith(HIDDEN) and part != ".." for part in PurePosixPath(each.filename).parts)
    ]
    files.sort(key=lambda each: each.filename)
    if not files:
        raise zipfile.BadZipFile("no file in it, but for hidden ones; deliver it with one, at least")
    if len(files) > MOST_MEMBERS:
        raise zipfile.BadZipFile(f"{len(files):,} files in it, expected {MOST_MEMBERS:,} at most; deliver several .zip")
    # They are shown in messages, and kept with rejected rows; that of a single file is not.
    if odd := next((each.filename for each in files if len(files) > 1 and not is_usable_id(each.filename)), None):
        raise zipfile.BadZipFile(f"a file {odd!a} in it, whose name cannot be shown everywhere; rename it")
    twice = next((one.filename for one, other in pairwise(files) if one.filename == other.filename), None)
    if twice is not None:
        raise zipfile.BadZipFile(f"two files of the name {twice} in it; give each a name of its own")
    for file in files:
        if file.compress_type not in ZIP_WAYS:
            way = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "LZMA"}.get(file.compress_type, "another way")
            one = "a file" if len(files) == 1 else f"{file.filename},"
            raise zipfile.BadZipFile(
                f"{one} packed by {way} in it, expected deflate; pack it by `zip`, without options"
            )
    return files


class _Joined(io.RawIOBase):
    """The content of some files of a .zip, one after the other."""

    def __init__(self, packed: zipfile.ZipFile, files: Sequence[zipfile.ZipInfo]) -> None:
        self._packed, self._left = packed, list(files)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        place = memoryview(buffer)
        while True:
            if self._open is None:
                if not self._left:
                    return 0
                self._open = self._packed.open(self._left.pop(0))
            if content := self._open.read(len(place)):
                place[: len(content)] = content
                return len(content)
            self._open.close()
            self._open = None


class _Xz(io.RawIOBase):
    """The content of an .xz file, also of one that several were joined into."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        place = memoryview(buffer)
        while True:
            if self._decoder is None or self._decoder.eof:
                begin = self._next_beginning()
                if not begin:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
                content = self._decoder.decompress(begin, len(place))
            elif self._decoder.needs_input:
                more = self._stream.read(CHUNK)
                if not more:
                    raise EOFError("the file ends before its content does")
                content = self._decoder.decompress(more, len(place))
            else:
                content = self._decoder.decompress(b"", len(place))
            if content:
                place[: len(content)] = content
                return len(content)

    def _next_beginning(self) -> bytes:
        """Return the first bytes of what follows, without the zeros by which a file may be filled up."""
        rest = self._decoder.unused_data if self._decoder else b""
        while not (begin := rest.lstrip(b"\0")):
            rest = self._stream.read(CHUNK)
            if not rest:
                return b""
        return begin


def lines_of(stream: IO[bytes], most: int, end: bytes = b"", *, with_ends: bool = False) -> Iterator[bytes]:
    r"""Yield the lines of a text as Spark finds them; of a longer line, the first `most` bytes.

    Args:
        stream: of the text.
        most: bytes of a line that are kept.
        end: of a line, by two bytes of UTF-16; empty: `\n`, `\r` or both.
        with_ends: whether a line has its end.

    >>> list(lines_of(io.BytesIO(b"a\r\nbcdef\r\n\nlast"), 3))
    [b'a', b'bcd', b'', b'las']
    >>> list(lines_of(io.BytesIO(b"a\r\nbc\rlast"), 9, with_ends=True))
    [b'a\r\n', b'bc\r', b'last']
    """
    ends = re.compile(rb"\r\n|\n|\r")
    kept, rest = b"", b""  # the beginning of a line whose end was not found yet, and what was not looked at
    is_begun = False
    while True:
        chunk = stream.read(CHUNK)
        rest += chunk
        at = 0
        while True:
            if end:
                place = aligned(rest, end, at)
                found = (place, place + len(end)) if place >= 0 else None
            else:
                match = ends.search(rest, at)
                # After `\r` at the end of a chunk, `\n` may follow.
                is_open = match and match[0] == b"\r" and match.end() == len(rest) and chunk
                found = match.span() if match and not is_open else None
            if found is None:
                break
            yield (kept + rest[at : found[with_ends]])[:most]
            kept, at, is_begun = b"", found[1], False
        rest = rest[at:]
        if not chunk:
            if rest or is_begun:
                yield (kept + rest)[:most]
            return
        # What cannot be the beginning of an end is moved on, and cut.
        open_bytes = len(rest) % 2 if end else int(rest.endswith(b"\r"))
        moved, rest = rest[: len(rest) - open_bytes], rest[len(rest) - open_bytes :]
        if moved:
            kept, is_begun = (kept + moved)[: most + 1], True


def aligned(text: bytes, end: bytes, at: int) -> int:
    """Return where the end of a line of UTF-16 is, from an even place on; -1 if it is nowhere."""
    place = text.find(end, at)
    while place >= 0 and (place - at) % 2:
        place = text.find(end, place + 1)
    return place
