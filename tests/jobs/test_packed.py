"""Text in packed files is read piece by piece, whatever it is packed in; what cannot be read to its end says so."""

import io
import lzma
import random
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.packed import BROKEN, absolute, lines_of, on_storage, parts_of, unpacked

TEXT = b"".join(b"line %d\n" % n for n in range(30_000))


def zipped(way: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    """Return a .zip of some files; `__` in a name stands for `/`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as packed:
        for name, content in members.items():
            packed.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def read(path, content: bytes) -> bytes:
    path.write_bytes(content)
    with unpacked(str(path)) as stream:
        return b"".join(iter(lambda: stream.read(10_000), b""))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.csv.zip", zipped(**{"a.csv": TEXT}), id="zip"),
        pytest.param(
            "a.ZIP",
            zipped(**{"export__": b"", "export__a.csv": TEXT, "__MACOSX__._a.csv": b"x", "export__.DS_Store": b"y"}),
            id="zip of a folder, by macOS",
        ),
        pytest.param("a.zip", zipped(zipfile.ZIP_STORED, **{"..__a.csv": TEXT}), id="zip of a file above its folder"),
        pytest.param("a.csv.xz", lzma.compress(TEXT), id="xz"),
        pytest.param("a.xz", lzma.compress(TEXT[:-9]) + b"\0" * 8 + lzma.compress(TEXT[-9:]), id="several xz in one"),
        pytest.param("a.csv.zst", zstd(TEXT), id="zstd"),
        pytest.param("a.ZSTD", zstd(TEXT[:-9]) + zstd(TEXT[-9:]), id="several frames of zstd"),
    ],
)
def test_a_packed_file_has_the_text_that_was_packed(tmp_path, name, content):
    assert read(tmp_path / name, content) == TEXT


@pytest.mark.parametrize("name", ["a.xz", "a.zst", "a.zip"])
def test_a_file_without_a_byte_has_no_text(tmp_path, name):
    assert read(tmp_path / name, b"") == b""


def locked() -> bytes:
    """Return a .zip that says that its file is encrypted."""
    content = bytearray(zipped(a=TEXT))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    return bytes(content)


def many(n: int, name: str = "") -> bytes:
    """Return a .zip of so many files."""
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as packed:
        for number in range(n):
            packed.writestr(name or str(number), b"x")
    return file.getvalue()


def test_files_in_a_zip_are_opened_one_by_one_in_the_order_of_their_names(tmp_path, monkeypatch):
    content = zipped(
        **{"b.csv": b"2\n", "web__a.csv": b"3", "web____a..csv!__x.zip!__y": b"4", "a.csv": b"1", ".h": b"x"}
    )
    path = tmp_path / "log.ZIP"
    assert read(path, content) == b"12\n43"
    parts = parts_of(str(path))
    assert parts == [f"{path}!/{name}" for name in ("a.csv", "b.csv", "web//a..csv!/x.zip!/y", "web/a.csv")]
    monkeypatch.chdir(tmp_path)
    for names in (parts, absolute([part.removeprefix(f"{tmp_path}/") for part in parts])):
        found = []
        for part in names:
            with unpacked(part) as stream:
                found.append(stream.read())
        assert found == [b"1", b"2\n", b"4", b"3"]
    assert {on_storage(part) for part in parts} == {str(path)}
    # What has one file is that file, and no other name is looked into.
    assert parts_of(str(path.with_name("a.csv.gz"))) == [str(path.with_name("a.csv.gz"))]
    path.write_bytes(zipped(a=b"x"))
    assert parts_of(str(path)) == [str(path)]
    path.write_bytes(b"")
    assert parts_of(str(path)) == [str(path)]


NOISE = random.Random(7).randbytes(200_000)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        pytest.param("a.xz", lzma.compress(NOISE)[:-5], "ends before its content", id="xz that was cut off"),
        pytest.param("a.xz", lzma.compress(NOISE) + b"user,item\n" * 9, "format", id="xz with something behind it"),
        pytest.param("a.xz", b"user,item\n" * 9, "format", id="xz in name only"),
        pytest.param("a.zst", zstd(NOISE)[:-5], "Truncated", id="zstd that was cut off"),
        pytest.param("a.zst", b"user,item\n", "ZSTD", id="zstd in name only"),
        pytest.param("a.zip", zipped(a=NOISE)[:-30], "not a zip", id="zip that was cut off"),
        pytest.param("a.zip", zipped(a=NOISE).replace(NOISE[:50], NOISE[1:51], 1), "CRC", id="zip with other bytes"),
        pytest.param("a.zip", zipped(), "no file in it.*deliver it with one", id="zip without a file"),
        pytest.param("a.zip", zipped(**{".a": b"x"}), "no file in it, but for hidden ones", id="zip of a hidden file"),
        pytest.param("a.zip", many(1001), "1,001 files in it, expected 1,000 at most", id="zip of many files"),
        pytest.param(
            "a.zip",
            zipped(a=b"x", **{"b\x1b[2J": b"y"}),
            r"a file 'b\\x1b\[2J' in it, whose name",
            id="zip of odd names",
        ),
        pytest.param("a.zip", many(2, "same"), "two files of the name same in it", id="zip of two files of one name"),
        pytest.param("a.zip", locked(), "password", id="zip with a password"),
    ],
)
def test_a_file_that_cannot_be_unpacked_to_its_end_says_so(tmp_path, name, content, told):
    with pytest.raises(BROKEN, match=told):
        read(tmp_path / name, content)


def test_a_file_that_would_need_much_memory_is_refused(tmp_path):
    # Its dictionary would have 512 MiB, which a reader of it has to keep.
    large = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    with pytest.raises(lzma.LZMAError, match=r"[Mm]emory"):
        read(tmp_path / "a.xz", lzma.compress(b"x", lzma.FORMAT_XZ, filters=large))


BOMB = """
import sys, zipfile
from pathlib import Path
from jobs.packed import lines_of, unpacked

def most():
    # `ru_maxrss` begins with what the process that started this one had.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

before = most()
try:
    with unpacked(sys.argv[1]) as stream:
        lines = [len(line) for line in lines_of(stream, 1000)]
except zipfile.BadZipFile as error:
    lines = [str(error)]
print(lines, (most() - before) // 1024)
"""


# `zipfile` unpacks these two without a limit, so that 342 bytes take hundreds of megabytes.
REFUSED = "'a file packed by {} in it, expected deflate; pack it by `zip`, without options'"


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("zip", "1000"),
        ("zip by bzip2", REFUSED.format("bzip2")),
        ("zip by LZMA", REFUSED.format("LZMA")),
        ("xz", "1000"),
        ("zst", "1000"),
    ],
)
def test_a_line_of_many_megabytes_in_a_few_kilobytes_takes_no_memory(tmp_path, kind, found):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the memory of a process in this way")
    content = b"0" * (48 << 20)
    pack = {
        "zip": lambda text: zipped(a=text),
        "zip by bzip2": lambda text: zipped(zipfile.ZIP_BZIP2, a=text),
        "zip by LZMA": lambda text: zipped(zipfile.ZIP_LZMA, a=text),
        "xz": lambda text: lzma.compress(text, preset=0),
        "zst": zstd,
    }[kind]
    file = tmp_path / f"a.{kind.partition(' ')[0]}"
    file.write_bytes(pack(content))
    assert file.stat().st_size < 1 << 20
    printed = subprocess.run([sys.executable, "-c", BOMB, str(file)], capture_output=True, text=True, check=True).stdout
    lines, megabytes = re.fullmatch(r"\[(.*)\] (\d+)\n", printed).groups()
    assert lines == found
    assert int(megabytes) < 30, "of 48 MiB"


class Dripping(io.RawIOBase):
    """A stream that gives at most some bytes at once."""

    def __init__(self, content: bytes, size: int) -> None:
        self.content, self.size = content, size

    def read(self, _size: int = -1) -> bytes:
        part, self.content = self.content[: self.size], self.content[self.size :]
        return part


def test_lines_are_those_of_python_however_the_bytes_arrive():
    rng = random.Random(3)
    for _ in range(300):
        text = bytes(rng.choices(b"ab\r\n\x0b\x85", k=rng.randint(0, 30)))
        for size in (1, 2, 3, 100):
            # Of bytes, Python splits at these three ends alone.
            assert list(lines_of(Dripping(text, size), 100)) == text.splitlines(), (text, size)
            assert list(lines_of(Dripping(text, size), 3)) == [line[:3] for line in text.splitlines()], (text, size)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_lines_of_two_bytes_a_character_end_where_a_character_is_the_end(encoding):
    # U+0A0A has the bytes of an end of a line, and so have U+000A's neighbours U+0A00 and U+0100.
    text = "a\u0a0a\u0a00\u010a\nb\n\n\u0a0a"
    end = "\n".encode(encoding)
    for size in (1, 2, 3, 5, 100):
        found = list(lines_of(Dripping(text.encode(encoding), size), 100, end))
        assert [line.decode(encoding) for line in found] == text.split("\n"), size
