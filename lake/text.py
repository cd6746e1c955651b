"""Which ids and queries every sink can hold: files, statistics, an index, JSON, HTML, a terminal; and in which form.

This is the definition in plain Python. `jobs.ingest` and its audit have a formula each, in Spark's columns; a test
compares all three over all of Unicode. docs/design.md has the reasons.
"""

import unicodedata

from lake.rules import MAX_ID_BYTES

# Blanks, and characters that nobody sees: around a value they are no part of it. Spaces of all widths, tabs and ends of
# lines, zero-width spaces and joiners of words, a byte order mark.
SURROUNDING = (
    " \t\n\r\v\f\x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def composed(text: str) -> str:
    r"""Return a text in the one form that the lake has, Unicode's NFC: letters of two forms look alike.

    >>> composed("cafe\u0301") == "caf\u00e9", composed("\u212b") == "\u00c5"
    (True, True)
    """
    return unicodedata.normalize("NFC", text)


def is_usable_character(character: str) -> bool:
    r"""Return whether an id may hold a character; a query may also hold a tab and a line feed.

    >>> [is_usable_character(each) for each in ("a", " ", "漢", "🙂", "\0", "\t", "\ufffe", "\ud800")]
    [True, True, True, True, False, False, False, False]
    """
    code = ord(character)
    is_noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    # Controls, lone surrogates, and separators of lines and of paragraphs.
    breaks = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    # A byte order mark is lost at the beginning of a file, and U+FFFD stands for what was lost.
    return not (is_noncharacter or breaks or character in REORDERING or character in "\ufeff\ufffd")


def is_usable_id(text: str) -> bool:
    """Return whether every sink can hold the id of a user, an item or a category."""
    return all(map(is_usable_character, text)) and len(text.encode()) <= MAX_ID_BYTES


def is_usable_query(text: str) -> bool:
    """Return whether every sink can hold what somebody searched for."""
    return all(is_usable_character(each) or each in "\t\n" for each in text)


def visible(text: str) -> str:
    r"""Return a text for people, with an escape for each character that has no picture of its own.

    Such characters move the cursor, clear the screen, turn the direction of reading, or cannot be encoded.

    >>> print(visible("a\x1b[2Jb\ud800"))
    a\x1b[2Jb\ud800
    """
    return "".join(c if has_picture(c) else c.encode("unicode_escape").decode() for c in text)


def has_picture(character: str) -> bool:
    """Return whether a character is shown as it is: also a space of any width, and the end of a line."""
    return character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs"
