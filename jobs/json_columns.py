"""The columns of JSON lines, which no header lists: the keys that most objects have, and the kinds of their values."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

# A key that so many of the objects have is one that is expected; it is gone when hardly any has it.
USUAL, RARE = 0.5, 0.05
# Objects inside of objects are looked into so far: `context.page.path`.
DEPTH = 3
KINDS = {str: "text", bool: "truth", int: "number", float: "number", list: "list"}
# Keys by columns, each with the share of the objects that have it and the kinds of its values.
Seen = Mapping[str, tuple[float, frozenset[str]]]


def seen_in(lines: Iterable[str]) -> dict[str, tuple[float, frozenset[str]]]:
    """Return the columns of some lines: the share of the objects that have each, and the kinds of its values.

    Lines that are no objects do not count.

    >>> seen_in(['{"user": 1, "item": {"id": "a"}}', '{"user": null}', 'broken'])
    {'user': (1.0, frozenset({'number'})), 'item.id': (0.5, frozenset({'text'}))}
    """
    rows = 0
    counted: Counter[str] = Counter()
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows += 1
                for name, kind in dict(_columns(row, "", DEPTH)).items():
                    counted[name] += 1
                    kinds[name] |= {kind} - {""}
    return {name: (n / rows, frozenset(kinds[name])) for name, n in counted.items()}


def _columns(row: Mapping[str, Any], above: str, depth: int) -> Iterator[tuple[str, str]]:
    for key, value in row.items():
        if isinstance(value, dict) and value and depth > 1:
            yield from _columns(value, f"{above}{key}.", depth - 1)
        else:
            yield f"{above}{key}", KINDS.get(type(value), "object" if isinstance(value, dict) else "")


def usual_kinds(seen: Seen, known: Mapping[str, str]) -> dict[str, str]:
    """Return the kinds of the columns that are usual, such as `number or text`.

    Which keys a few lines have is partly chance. So a column that was known stays one until hardly any object has it,
    and the kinds of its values are those that were known until another one comes.

    Args:
        seen: as `seen_in` returns it.
        known: what this function has returned before; empty the first time.
    """
    found = {}
    for name, (share, kinds) in seen.items():
        if share < (RARE if name in known else USUAL):
            continue
        before = set(known[name].split(" or ")) if name in known else set()
        # Where each value is null, there is no kind.
        now = (before | kinds if before & kinds else kinds) if kinds else before or {"null"}
        found[name] = " or ".join(sorted(now))
    return found
