"""Wrong changes to the door to storage."""

from tests.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "reach_gap_lt",
        "lake/reach.py",
        "early=first - midnight <= gap",
        "early=first - midnight < gap",
        "tests/lake/test_reach.py",
    ),
]
