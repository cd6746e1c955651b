"""What `make torture` says of its run; the rounds themselves are the property tests."""

import re
from json import dumps, loads
from pathlib import Path

import pytest

from tests import torture as torturing
from tests.torture import STATE, Torture, attacks, main, run, table

PROMISES = """| promise | how it is attacked | how often |
| --- | --- | --- |
| Nothing is lost ([0001](decisions/0001.md)) | `tests/a.py`, `tests/b.py` by kills | each `make test` |
| Nothing is told | `tests/other.py`: by reading | - |
"""


def test_a_promise_is_attacked_by_the_files_that_its_row_names():
    assert attacks(PROMISES, ["tests/a.py", "tests/b.py", "tests/c.py"]) == {
        "Nothing is lost": ["tests/a.py", "tests/b.py"]
    }


def test_the_table_adds_up_what_has_passed_and_leaves_no_file_out():
    done = Torture(7, 1, ["tests/a.py", "tests/b.py", "tests/c.py"], passed={"tests/a.py": 2, "tests/b.py": 40}, runs=2)
    assert table(done, PROMISES) == ["    42  Nothing is lost", "     0  (no promise names it) tests/c.py"]


def test_no_file_begins_after_the_time_and_each_round_has_its_own_seed():
    """A budget that a first round may exceed is none: a round takes most of an hour on a slow machine."""
    done = Torture(7, 1, ["tests/a.py", "tests/b.py"])
    seen = []
    while not done.is_over:
        seen.append((done.round, done.next, done.not_reached))
        done.runs += 1
        done.seconds += 20
    assert seen == [
        (0, "tests/a.py", ["tests/a.py", "tests/b.py"]),
        (0, "tests/b.py", ["tests/b.py"]),
        (1, "tests/a.py", []),
    ]
    assert Torture(7, 1, ["tests/a.py", "tests/b.py"], seconds=60).is_over is True


def test_each_file_of_tests_that_draws_at_random_is_named_by_a_promise():
    """What attacks no promise is in no row of the table that `make torture` prints."""
    tests = Path(__file__).parent
    draws = [
        str(file.relative_to(tests.parent))
        for file in sorted(tests.rglob("test_*.py"))
        if re.search(r"(?m)^\s*@given\(|mark\.torture\b", file.read_text()) and file != Path(__file__)
    ]
    assert len(draws) > 15
    lines = table(Torture(7, 1, draws), (tests.parent / "docs" / "promises.md").read_text())
    assert [line for line in lines if "(no promise names it)" in line] == []


def test_what_was_stopped_goes_on_with_its_next_file_and_a_failure_names_its_command(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "tests"
    folder.mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "promises.md").write_text(PROMISES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = torture: x\n")
    (tmp_path / "conftest.py").write_text(
        "import hypothesis\nhypothesis.settings.register_profile('torture', max_examples=5)\n"
    )
    (folder / "a.py").write_text("import pytest\n@pytest.mark.torture\ndef test_a():\n    pass\n")
    (folder / "b.py").write_text("import pytest\n@pytest.mark.torture\ndef test_b():\n    assert False\n")
    monkeypatch.setattr(torturing, "ROOT", tmp_path)
    monkeypatch.setattr(torturing, "STATE", tmp_path / "build" / STATE.name)
    assert run(Torture(7, 9, ["tests/a.py", "tests/b.py"])).endswith(
        "-m pytest -q -x -m 'hypothesis or torture' --hypothesis-profile torture --hypothesis-seed=7 tests/b.py"
    )
    (folder / "b.py").write_text("import pytest\n@pytest.mark.torture\ndef test_b():\n    pass\n")
    capsys.readouterr()
    # Of its nine minutes none is left once b.py has passed.
    asked_again = loads(torturing.STATE.read_text())
    torturing.STATE.write_text(dumps({**asked_again, "seconds": 539.99}))
    assert main(["--resume"]) == 0
    said = capsys.readouterr().out
    assert "tests/a.py, " not in said, "it had passed before"
    assert "seed 7: tests/b.py, 1 passed" in said
    assert "     2  Nothing is lost" in said
    assert "Not reached" not in said
    with pytest.raises(SystemExit):
        main(["--resume"])
    assert "the 9 minutes of the last one, with seed 7, are used up" in capsys.readouterr().err
    # It goes on, in the second round, for as long as it is told to.
    assert main(["--resume", "--minutes", "0.001"]) == 0
    said = capsys.readouterr().out
    assert "seed 8: tests/a.py, 1 passed" in said
    assert "     3  Nothing is lost" in said


def test_ctrl_c_ends_with_the_table_and_what_was_not_reached(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "promises.md").write_text(PROMISES)
    monkeypatch.setattr(torturing, "ROOT", tmp_path)
    monkeypatch.setattr(torturing, "STATE", tmp_path / "build" / STATE.name)
    torturing.keep(Torture(7, 9, ["tests/a.py", "tests/b.py"], seconds=60, passed={"tests/a.py": 4}, runs=1))

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(torturing.subprocess, "run", stopped)
    assert main(["--resume"]) == 130
    said = capsys.readouterr().out
    assert "     4  Nothing is lost" in said
    assert "Not reached: tests/b.py" in said
    assert "1 files of tests in 1 minutes, seeds 7 to 7. Stopped. --resume goes on with it" in said
