"""Plausible wrong changes to the code, by part, and `make mutants`, which makes each of them and runs its tests."""

import importlib
import pkgutil

from tests.mutants.mutant import Mutant

NOT_LISTS = ("__main__", "forks", "mutant")


def all_mutants() -> list[Mutant]:
    """Return the mutants of all lists of this folder, list by list."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in NOT_LISTS)
    return [mutant for name in names for mutant in importlib.import_module(f"{__name__}.{name}").MUTANTS]
