"""Change single keys of a YAML file that a person has written, and leave all other lines as they are."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import yaml

from jobs.yaml_file import STEPS, dump, inside


def with_key(text: str, place: STEPS, value: Any) -> str | None:
    r"""Return the text of a YAML file in which the key at a place has a value; None if it cannot be written there.

    A key that is not there yet comes behind the last key of its mapping.

    Args:
        text: of the file.
        place: the way to the key, such as `["time", "format"]`; all but its last step is in the file.
        value: a text, a number, true, false, or a list or mapping of such values.

    >>> print(with_key("time: {column: at}  # theirs\nformat: csv\n", ["time", "format"], "epoch_s"), end="")
    time: {column: at, format: epoch_s}  # theirs
    format: csv
    >>> print(with_key("format: csv\ndelimiter: ','  # ours\n", ["delimiter"], ";"), end="")
    format: csv
    delimiter: ;  # ours
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    mapping = _at(root, place[:-1])
    if not isinstance(mapping, yaml.MappingNode) or not mapping.value:
        return None
    key = str(place[-1])
    node = next((of for name, of in mapping.value if name.value == key), None)
    if node is None:
        changed = _with_new_key(text, mapping, key, value)
    elif isinstance(node, yaml.ScalarNode) and node.style in (None, "'", '"') and node.end_mark.index > 0:
        changed = _with_scalar(text, node, in_one_line(value))
    elif isinstance(node, yaml.CollectionNode) and node.flow_style:
        changed = text[: node.start_mark.index] + in_one_line(value) + text[node.end_mark.index :]
    else:
        return None
    return changed if _says(changed, text, place, value) else None


def renamed(text: str, places: list[STEPS], names: Mapping[str, str]) -> str | None:
    r"""Return the text of a YAML file in which some names have others, wherever they stand alone at some places.

    Args:
        text: of the file.
        places: the ways to a name, or to a list of names; those that are not in the file do not count.
        names: old names, each with the new one.

    >>> print(renamed("user_id: User\nmay_lack: [User, x]\n", [["user_id"], ["may_lack"]], {"User": "user"}), end="")
    user_id: user
    may_lack: [user, x]
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found: dict[int, yaml.ScalarNode] = {}
    for place in places:
        for node in _scalars(_at(root, place)):
            if node.value in names and node.style in (None, "'", '"'):
                found[node.start_mark.index] = node
    # From the end, so that the marks of those before stay right.
    for _, node in sorted(found.items(), reverse=True):
        text = _with_scalar(text, node, in_one_line(names[node.value]))
    return text if found else None


def _at(node: yaml.Node | None, place: STEPS) -> yaml.Node | None:
    for step in place:
        node = inside(node, step)
    return node


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        yield from (each for each in node.value if isinstance(each, yaml.ScalarNode))


def in_one_line(value: Any) -> str:
    """Return a value as it stands in one line."""
    # Inside of a list, so that a text which only there needs quotes has them.
    return dump([value], default_flow_style=True, width=10**6).strip()[1:-1]


def _with_scalar(text: str, node: yaml.ScalarNode, written: str) -> str:
    return text[: node.start_mark.index] + written + text[node.end_mark.index :]


def _with_new_key(text: str, mapping: yaml.MappingNode, key: str, value: Any) -> str:
    written = f"{in_one_line(key)}: {in_one_line(value)}"
    if mapping.flow_style:
        at = mapping.value[-1][1].end_mark.index
        return f"{text[:at]}, {written}{text[at:]}"
    lines = text.splitlines(keepends=True)
    last = mapping.value[-1][1].end_mark
    n = last.line + (last.column > 0)
    # What stands below the last value, such as comments, is no part of it.
    while n > mapping.start_mark.line + 1 and (not lines[n - 1].strip() or lines[n - 1].lstrip().startswith("#")):
        n -= 1
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    if not lines[n - 1].endswith(("\n", "\r")):
        lines[n - 1] += end
    lines.insert(n, f"{' ' * mapping.value[0][0].start_mark.column}{written}{end}")
    return "".join(lines)


def _says(changed: str, text: str, place: STEPS, value: Any) -> bool:
    """Return whether a text says what another one does, but for the value at a place."""
    with suppress(yaml.YAMLError):
        expected, part = yaml.safe_load(text), None
        for step in place[:-1]:
            part = (expected if part is None else part)[step]
        (expected if part is None else part)[place[-1]] = value
        return bool(yaml.safe_load(changed) == expected)
    return False
