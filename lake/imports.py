"""Import a library without what it imports itself and is not used here: some seconds for each process that needs it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def absent(*modules: str) -> Iterator[None]:
    """Let what is imported in the block find that modules are not installed, unless they have been imported already."""
    with _in_place_of(dict.fromkeys(modules)):
        yield


@contextmanager
def empty(*modules: str) -> Iterator[None]:
    """Let what is imported in the block find modules that hold nothing, unless they have been imported already.

    For a library that cannot be imported without them. A module comes after the one that it is a part of.
    """
    made: dict[str, ModuleType | None] = {}
    for name in modules:
        module = made[name] = ModuleType(name)
        module.__spec__, module.__path__ = ModuleSpec(name, None), []
        package, _, last = name.rpartition(".")
        if package:
            setattr(made[package], last, module)
    with _in_place_of(made):
        yield


@contextmanager
def _in_place_of(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    stand_ins = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(stand_ins)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name, module) is module:
                sys.modules.pop(name, None)
