"""Files that are one array of JSON, `[{..}, {..}]`, on one line or on many: each of its elements, as a line of its own.

Elements are found by brackets, commas and quotes, and are not parsed here: a parser would write 12345678901234567890.0
and 1.0E8 anew, and an id is judged by how it was written. So what an element is worth is found where lines of JSON are
judged, and one that is no JSON is one rejected row. Only where it cannot be told where rows begin and end is the file
refused.
"""

import codecs
import re
from collections.abc import Iterator
from typing import IO

from lake.errors import LandingUnreadable

CHUNK = 1 << 16
MARK = codecs.BOM_UTF8
BEGIN = re.compile(r"\ufeff?[ \t\r\n]*\[[ \t\r\n]*(?:\{|\][ \t\r\n]*$|$)")
BLANKS = re.compile(rb"[ \t\r\n]*+")
# Whole strings and all between them, up to a bracket; outside of the objects of the array up to a comma too. A string
# with a line break in it is none of JSON, and is left to `REST_OF_STRING`.
STRING = rb'"(?:[^"\\\r\n]++|\\[^\r\n])*+"'
INSIDE = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb")*+")
BETWEEN = re.compile(rb'(?:[^",\[\]{}]++|' + STRING + rb")*+")
REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
LINE_BREAKS = re.compile(rb"[ \t]*+[\r\n][ \t\r\n]*+")
# Stands for bytes that are none of the encoding, and is none of UTF-8.
BROKEN = "\udcff"


def _as_broken(error: UnicodeError) -> tuple[str, int]:
    """Replace bytes that cannot be decoded, as Python's decoders want to be told."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return BROKEN, error.end


codecs.register_error("meander.broken", _as_broken)


def is_array(text: str) -> bool:
    r"""Return whether a file is an array of objects, by the beginning of its text.

    A broken first line of JSON lines may begin with a bracket too, or be `[]`, as some write a batch without events.

    >>> [is_array(text) for text in ('\ufeff\n[\n  {"user": 1}', "[]\n", "[2025-03-02] {}", '["user"]', '{"a": [{}]}')]
    [True, True, False, False, False]
    >>> is_array('[]\n{"user": 1}')
    False
    """
    return bool(BEGIN.match(text))


def elements(
    stream: IO[bytes], file: str, most: int, encoding: str = "utf-8", *, is_cut: bool = False
) -> Iterator[bytes]:
    """Yield the elements of a file that is one array of JSON, in UTF-8; of a longer one, its first `most` bytes.

    An element of several lines becomes one line. Bytes that are none of the encoding stay none in UTF-8.

    Args:
        stream: of the text.
        file: its name, for messages.
        most: bytes of an element that are kept.
        encoding: of the text, by Python's name.
        is_cut: whether the stream is only the beginning of the file.

    Raises:
        LandingUnreadable: the file ends before the array does, something follows it, or a comma is missing or too much.
    """
    array = _Array(file, most)
    for chunk in _in_utf_8(stream, encoding):
        yield from array.read(chunk)
    if not is_cut:
        array.require_end()


def _in_utf_8(stream: IO[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the bytes of a text in UTF-8, without the mark before them."""
    first = b""
    if encoding == "utf-8":
        while len(first) < len(MARK) and (more := stream.read(len(MARK) - len(first))):
            first += more
        yield first.removeprefix(MARK)
        while chunk := stream.read(CHUNK):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(encoding)("meander.broken")
    is_first = True
    while True:
        chunk = stream.read(CHUNK)
        text = decoder.decode(chunk, not chunk)
        yield (text.removeprefix("\ufeff") if is_first else text).encode("utf-8", "surrogateescape")
        is_first = is_first and not text
        if not chunk:
            return


class _Array:
    """Cuts the text of an array into its elements; what it keeps of one is bounded."""

    def __init__(self, file: str, most: int) -> None:
        self._file, self._most = file, most
        self._expected = "["  # what may come next; empty inside of an element
        self._rest, self._before = b"", 0  # text that was not looked at yet, and how many bytes were before it
        self._rows = 0
        self._begin()

    def _begin(self) -> None:
        """Begin an element."""
        self._kept: list[bytes] = []
        self._size, self._depth = 0, 0
        self._in_string = self._is_broken = False

    def read(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the elements that end in the next piece of the text."""
        text, at = self._rest + chunk, 0
        while True:
            if not self._expected:
                at, has_ended = self._read_element(text, at)
                if not has_ended:
                    break
                self._rows += 1
                yield self._element()
                self._expected = ", or ]"
            at = BLANKS.match(text, at).end()  # type: ignore[union-attr]  # it matches no character too
            if at == len(text):
                break
            at = self._read_sign(text, at)
        self._rest, self._before = text[at:], self._before + at

    def _read_sign(self, text: bytes, at: int) -> int:
        """Read what stands between elements; return the place behind it."""
        sign = text[at : at + 1]
        if sign == b"[" and self._expected == "[":
            self._expected = "a row or ]"
        elif sign == b"]" and self._expected in ("a row or ]", ", or ]"):
            self._expected = "nothing"
        elif sign == b"," and self._expected == ", or ]":
            self._expected = "a row"
        elif self._expected in ("a row", "a row or ]") and sign not in (b",", b"]", b"}"):
            self._expected = ""
            self._begin()
            return at
        else:
            self._refuse("something else", at)
        return at + 1

    def _read_element(self, text: bytes, at: int) -> tuple[int, bool]:
        """Read on in an element; return up to which place, and whether it ends there."""
        while at < len(text):
            begin = at
            if self._in_string:
                at = REST_OF_STRING.match(text, at).end()  # type: ignore[union-attr]
                self._is_broken |= b"\n" in text[begin:at] or b"\r" in text[begin:at]
                if at == len(text) or text[at] != ord('"'):
                    self._keep(text[begin:at])
                    return at, False  # a backslash whose character is still to come
                self._in_string = False
                at += 1
            else:
                at = (INSIDE if self._depth else BETWEEN).match(text, at).end()  # type: ignore[union-attr]
                sign = text[at : at + 1]
                if not self._depth and sign in (b",", b"]", b"}"):
                    self._keep(text[begin:at])
                    return at, True
                self._in_string = sign == b'"'
                self._depth += (sign in (b"[", b"{")) - (sign in (b"]", b"}"))
                at += len(sign)
                if not self._depth and sign in (b"]", b"}"):
                    self._keep(text[begin:at])
                    return at, True
            self._keep(text[begin:at])
        return at, False

    def _keep(self, part: bytes) -> None:
        """Keep a part of an element, if it is not too long already."""
        if self._size <= self._most:
            self._kept.append(part[: self._most + 1 - self._size])
        self._size += len(part)

    def _element(self) -> bytes:
        """Return the element that has ended, on one line, if its strings have no line breaks and it is not too long."""
        element = b"".join(self._kept)
        if self._size > self._most:
            return element[: self._most]
        element = element.rstrip(b" \t\r\n")
        if self._is_broken:
            return element
        return LINE_BREAKS.sub(b" ", element) if b"\n" in element or b"\r" in element else element

    def require_end(self) -> None:
        """Check that the array has ended.

        Raises:
            LandingUnreadable: it has not.
        """
        if self._expected != "nothing":
            self._refuse("the end of the file", len(self._rest))

    def _refuse(self, found: str, at: int) -> None:
        place = f"behind row {self._rows:,}, at byte {self._before + at:,} of its text"
        expected = f"{self._expected} {place}" if self._expected else f"the end of a row {place}"
        remedy = "have it delivered again, as one array or as one object a line"
        raise LandingUnreadable(f"{self._file}: expected an array of JSON, with {expected}, found {found}; {remedy}")
