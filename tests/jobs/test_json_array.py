"""Each element of an array of JSON is one line with the text that it was written with, or the file is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.json_array import elements
from lake.errors import LandingUnreadable
from tests.jobs.test_packed import Dripping

MOST = 1 << 20


def read(content: bytes, size: int = 1 << 16, most: int = MOST, encoding: str = "utf-8", **how) -> list[bytes]:
    """Return the elements of an array whose bytes arrive so many at a time."""

    class Stream(Dripping):
        def read(self, wanted: int = -1) -> bytes:
            part, self.content = self.content[: min(size, wanted)], self.content[min(size, wanted) :]
            return part

    return list(elements(Stream(content, size), "a.json", most, encoding, **how))


def parsed(text: str):
    """Return a value of JSON whose numbers are texts, as they were written."""
    return json.loads(text, parse_int=str, parse_float=str)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(b"[]", [], id="empty"),
        pytest.param(b"\xef\xbb\xbf \n[ \t]\r\n", [], id="empty, behind the mark of UTF-8"),
        pytest.param(b'[{"a":1},{"a":2}]', [b'{"a":1}', b'{"a":2}'], id="one line"),
        pytest.param(
            b'[\n  {\n    "a": 1,\n    "b": [\n      2\n    ]\n  },\n  {}\n]\n',
            [b'{ "a": 1, "b": [ 2 ] }', b"{}"],
            id="many lines",
        ),
        pytest.param(
            b'[{"n": 12345678901234567890.0, "m": 1.0E8, "k": -0, "l": 1e+05}]',
            [b'{"n": 12345678901234567890.0, "m": 1.0E8, "k": -0, "l": 1e+05}'],
            id="numbers as they were written",
        ),
        pytest.param(
            rb'[{"a": "],[", "b": "\"},{", "c": "\\"}, {"d": "\\\\\"]"}]',
            [rb'{"a": "],[", "b": "\"},{", "c": "\\"}', rb'{"d": "\\\\\"]"}'],
            id="brackets, commas, quotes and backslashes in strings",
        ),
        pytest.param(
            b'[null, 7 , "a,]", [1, [2]], true]', [b"null", b"7", b'"a,]"', b"[1, [2]]", b"true"], id="values"
        ),
        # What is no JSON is a row all the same, for those who judge rows.
        pytest.param(b'[{"a": 1], {"a": 2}]', [b'{"a": 1]', b'{"a": 2}'], id="a bracket of another kind"),
        pytest.param(b'[{"a" 2}, oops, {"a": x}]', [b'{"a" 2}', b"oops", b'{"a": x}'], id="rows that are none"),
        pytest.param(b'[1 {"a": 2}, 3\n4]', [b'1 {"a": 2}', b"3 4"], id="two values without a comma stay two"),
        # A line break has to be escaped in a string; the blank that it would become is another text.
        pytest.param(b'[{"a": "x\ny",\n"b": 1}]', [b'{"a": "x\ny",\n"b": 1}'], id="a line break in a string"),
        pytest.param(b'[{"a": "x\\\ny"}]', [b'{"a": "x\\\ny"}'], id="a line break behind a backslash"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_elements_have_the_text_that_they_were_written_with(content, found, size):
    assert read(content, size) == found


@pytest.mark.parametrize(
    ("content", "expected", "found"),
    [
        (b'[{"a": 1},', "a row behind row 1, at byte 10", "the end of the file"),
        (b'[{"a": 1}', ", or ] behind row 1, at byte 9", "the end of the file"),
        (b"[\n", "a row or ] behind row 0, at byte 2", "the end of the file"),
        (b'[{"a": 1}, {"a": "x]', "the end of a row behind row 1, at byte 20", "the end of the file"),
        (b'[{"a": [1}, {"a": 2}]', ", or ] behind row 1, at byte 21", "the end of the file"),
        (b'[{"a": 1]}, {"a": 2}]', ", or ] behind row 1, at byte 9", "something else"),
        (b'[{"a": 1}] {"a": 2}', "nothing behind row 1, at byte 11", "something else"),
        (b'[{"a": 1}]\n[{"a": 2}]', "nothing behind row 1, at byte 11", "something else"),
        (b'[{"a": 1},\n]', "a row behind row 1, at byte 11", "something else"),
        (b'[{"a": 1}\n{"a": 2}]', ", or ] behind row 1, at byte 10", "something else"),
        (b"[,]", "a row or ] behind row 0, at byte 1", "something else"),
        (b'{"a": 1}', "[ behind row 0, at byte 0", "something else"),
        (b"[1}", ", or ] behind row 1, at byte 2", "something else"),
        (b"", "[ behind row 0, at byte 0", "the end of the file"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_file_whose_rows_cannot_be_told_apart_is_refused_with_the_place(content, expected, found, size):
    told = f"a.json: expected an array of JSON, with {expected} of its text, found {found}; have it delivered again"
    with pytest.raises(LandingUnreadable, match=re.escape(told)):
        read(content, size)


def test_of_the_beginning_of_a_file_no_end_is_expected():
    assert read(b'[{"a": 1}, {"a": 2}, {"a": ', is_cut=True) == [b'{"a": 1}', b'{"a": 2}']
    with pytest.raises(LandingUnreadable, match="expected an array"):
        read(b'[{"a": 1} {"a": 2}, {"a": ', is_cut=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\{}[],:\n é', max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
SIZES = st.sampled_from([1, 2, 3, 5, 64, 1000])


@given(
    rows=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 0, 2, "\t"]),
    is_ascii=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "gb18030"]),
    size=SIZES,
)
def test_elements_are_those_of_pythons_parser(rows, indent, is_ascii, end, mark, encoding, size):
    text = json.dumps(rows, indent=indent, ensure_ascii=is_ascii).replace("\n", end)
    content = ("\ufeff" * mark + text).encode(encoding)
    found = [element.decode() for element in read(content, size, encoding=encoding)]
    assert [parsed(element) for element in found] == parsed(text)
    assert not any("\n" in element or "\r" in element for element in found)


@given(
    rows=st.lists(VALUES, max_size=4),
    edits=st.lists(
        st.tuples(st.integers(0, 80), st.sampled_from(['"', "\\", "{", "]", ",", "\n", "\x0b", "x", ""])), max_size=3
    ),
    size=SIZES,
)
@example(rows=[10], edits=[(2, "\x0b")], size=1000)
@example(rows=[{"a": "b"}, {}], edits=[(3, "")], size=1000)
def test_of_a_text_that_is_no_array_no_row_is_lost_without_a_word(rows, edits, size):
    text = json.dumps(rows)
    for at, sign in edits:
        text = text[:at] + sign + text[at + 1 :]
    try:
        whole = parsed(text)
    except ValueError:
        whole = None
    try:
        found = [element.decode() for element in read(text.encode(), size)]
    except LandingUnreadable:
        # Only the array itself is looked at: of a whole one, nothing is refused.
        assert not isinstance(whole, list)
        return
    if isinstance(whole, list):
        assert [parsed(element) for element in found] == whole
        return

    def is_json(element: str) -> bool:
        try:
            parsed(element)
        except ValueError:
            return False
        return True

    assert not all(map(is_json, found)), "each row is read as one, of a text that is none"


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("utf-8", b'[{"a": "\xff"}, {}]'),
        ("gb18030", b'[{"a": "\xff"}, {}]'),
        # The first half of a character that has two, without the other one.
        ("utf-16-le", '[{"a": "\ud83d"}, {}]'.encode("utf-16-le", "surrogatepass")),
        ("utf-16-be", '[{"a": "\ud83d"}, {}]'.encode("utf-16-be", "surrogatepass")),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_bytes_that_are_none_of_the_encoding_are_none_of_utf_8(encoding, content, size):
    broken, whole = read(content, size, encoding=encoding)
    with pytest.raises(UnicodeDecodeError):
        broken.decode()
    assert whole == b"{}"


def test_a_long_element_is_cut_and_those_behind_it_are_whole():
    long = b'{"a": "' + b"],{" * 100 + b'"}'
    for size in (1, 50, 10_000):
        assert read(b"[" + long + b',\n{"b":\n1}]', size, most=20) == [long[:20], b'{"b": 1}']
        assert read(b"[" + long + b"]", size, most=len(long)) == [long]
        assert read(b"[" + long + b"]", size, most=len(long) - 1) == [long[:-1]]


BOMB = """
import sys
from pathlib import Path
from jobs.json_array import elements
from jobs.packed import unpacked

def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

before = most()
with unpacked(sys.argv[1]) as stream:
    rows = [len(row) for row in elements(stream, sys.argv[1], 1000)]
print(rows, (most() - before) // 1024)
"""


@pytest.mark.parametrize("filling", [b"x", b"\\\\", b" ", b"1,"], ids=str)
def test_an_element_of_many_megabytes_takes_no_memory(tmp_path, filling):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the memory of a process in this way")
    filling *= (24 << 20) // len(filling)
    before, behind = (b'{"a": [', b"1]}") if filling[:1] in (b" ", b"1") else (b'{"a": "', b'"}')
    file = tmp_path / "a.json"
    file.write_bytes(b'[{"b": 1}, ' + before + filling + behind + b', {"b": 2}]')
    printed = subprocess.run([sys.executable, "-c", BOMB, str(file)], capture_output=True, text=True, check=True).stdout
    rows, megabytes = re.fullmatch(r"\[(.*)\] (\d+)\n", printed).groups()
    assert rows == "8, 1000, 8"
    assert int(megabytes) < 15, "of 24 MiB, at least"
