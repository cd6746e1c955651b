"""The lists of `make mutants` fit the code: each change can be made, and leaves a file that Python can read."""

import ast
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants import Mutant, all_mutants
from tests.mutants.__main__ import HARMLESS, KILLED, SURVIVED, UNCLEAR, Copy, judge

ROOT = Path(__file__).parents[1]
MUTANTS = all_mutants()
ONE = Mutant("one", "lake/reach.py", "a = 1", "a = 2", "tests/lake/test_reach.py")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_its_tests_are_there(mutant: Mutant):
    changed = mutant.applied_to((ROOT / mutant.file).read_text())
    if mutant.file.endswith(".py"):
        ast.parse(changed)
    files = [part.partition("::")[0] for part in mutant.tests.split() if not part.startswith("-")]
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert files


def test_no_two_mutants_have_one_name():
    assert [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1] == []


def test_a_mutant_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"mutant one: its old text has to stand once in lake/reach.py; found 2 times"):
        ONE.applied_to("a = 1\na = 1\n")
    assert ONE.applied_to("a = 1\nb = 1\n") == "a = 2\nb = 1\n"


def test_what_became_of_a_mutant_is_told_by_what_its_tests_did():
    harmless = Mutant("two", "f", "a", "b", "t", harmless="it is only a word")
    assert judge(0, "3 passed", ONE)[0] == SURVIVED
    assert judge(0, "3 passed", harmless) == (HARMLESS, "it is only a word")
    assert judge(1, "FAILED tests/t.py::test_a - assert 1 == 2\n1 failed", ONE) == (KILLED, "tests/t.py::test_a")
    named = "ERROR tests/t.py::test_a[two words] - assert 1 == 2\n1 error"
    assert judge(1, named, ONE) == (KILLED, "tests/t.py::test_a[two words]")
    assert judge(1, "FAILED tests/t.py::test_a\n", harmless)[0] == KILLED, "it was noticed all the same"
    # A change that nothing can import says nothing about the tests, nor does a test that is not there.
    assert judge(2, "ERROR tests/t.py\n1 error", ONE)[0] == UNCLEAR
    assert judge(None, "", ONE)[0] == KILLED
    assert judge(-signal.SIGSEGV, "", ONE) == (KILLED, "its tests ended with SIGSEGV")
    assert judge(-signal.SIGKILL, "", ONE)[0] == UNCLEAR, "memory may have been short"


def test_python_takes_in_a_change_of_the_same_size_at_once(tmp_path):
    copy = Copy(tmp_path / "copy", imported=())
    copy.write("tests/test_small.py", "from lake.small import a\n\ndef test_a():\n    assert a == 1\n")
    statuses = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        copy.write("lake/small.py", text)
        statuses.append(copy.test("tests/test_small.py")[0])
    copy.close()
    assert statuses == [0, 1, 0]
