"""Read a YAML file so that a mistake in it is told with its line, such as a key that is there twice; and write one."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

from lake.errors import SourceInvalid

TEXT = "tag:yaml.org,2002:str"
# Of a file, with all that its aliases stand for: a few hundred bytes of aliases of aliases would be billions of parts.
MOST_PARTS = 100_000
STEPS = list[str | int]


class YamlFile:
    """The content of one YAML file, and the line of each part of it.

    Attributes:
        content: what the file says, as Python's dictionaries, lists and values.
    """

    def __init__(self, name: str, data: bytes) -> None:
        """Read the bytes of a file.

        Raises:
            SourceInvalid: they are not UTF-8 or not YAML, a key is there twice, or is not text.
        """
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise SourceInvalid(
                f"{name}: line {line} has the byte 0x{data[error.start]:02x}, which is not UTF-8; "
                "save the file in the encoding UTF-8"
            ) from error
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            if sum(1 for _ in islice(_parts(self._root), MOST_PARTS + 1)) > MOST_PARTS:
                raise SourceInvalid(f"{name} has more than {MOST_PARTS:,} parts; write less, without aliases (`*name`)")
            _require_keys(name, self._root)
            self.content: Any = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none; an anchor inside of itself
            raise SourceInvalid(f"{name} is not YAML: {' '.join(str(error).split())}") from error

    def part(self, place: STEPS) -> yaml.Node | None:
        """Return the innermost part of the file on the way to a place such as `["time", "zone"]`."""
        node = self._root
        for step in place:
            inner = inside(node, step)
            if inner is None:
                break
            node = inner
        return node

    def line(self, place: STEPS) -> int:
        """Return the line, from 1, of the innermost part on the way to a place."""
        node = self.part(place)
        return node.start_mark.line + 1 if node else 1

    def remedy(self, place: STEPS) -> str:
        """Return how to write a value that YAML took for something else than text; empty if it is text."""
        node = self.part(place)
        if not isinstance(node, yaml.ScalarNode):
            return ""
        if node.style in ("|", ">") and not node.value.strip():
            return f"write '{node.style}' in quotes"
        return f"write '{node.value}' in quotes" if node.tag != TEXT and node.value else ""


def inside(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    """Return the value of a key of a mapping, or the element of a list at a place; None where there is none."""
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        element: yaml.Node = node.value[step]
        return element
    return None


def _parts(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """Yield a part of the file and all that is in it; what has aliases, once for each."""
    if node is not None:
        yield node
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    inner = [part for pair in pairs for part in pair]
    for each in inner or (node.value if isinstance(node, yaml.SequenceNode) else ()):
        yield from _parts(each)


def _require_keys(name: str, node: yaml.Node | None) -> None:
    """Check that each key is text, and there once."""
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SourceInvalid(f"{name}: line {line}: expected a word as key, found a list or a mapping")
            if key.tag != TEXT:
                raise SourceInvalid(
                    f"{name}: line {line}: YAML does not read {key.value} as text; write '{key.value}' in quotes"
                )
            if key.value in lines:
                raise SourceInvalid(
                    f"{name}: line {line}: the key {key.value} is also in line {lines[key.value]}; remove one of them"
                )
            lines[key.value] = line
            _require_keys(name, value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _require_keys(name, each)


class _Dumper(yaml.SafeDumper):
    """Writes texts so that they are read as they were, and so that an editor shows them."""


# In other styles an end of line that few know, such as U+0085, would be read as a blank.
_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar(TEXT, text, style=None if text.isprintable() else '"')
)


def dump(content: Any, **how: Any) -> str:
    r"""Return a content as YAML, in its order, from which any text is read as it was.

    >>> print(dump({"column": "\x85user"}), end="")
    column: "\Nuser"
    """
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **how))
