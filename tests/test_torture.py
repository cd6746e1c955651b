"""What `make torture` says of its run; the rounds themselves are the property tests."""

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


def test_a_round_ends_before_the_time_is_looked_at_and_each_has_its_own_seed():
    done = Torture(7, 0, ["tests/a.py", "tests/b.py"])
    seen = []
    while not done.is_over:
        seen.append((done.round, done.next))
        done.runs += 1
    assert seen == [(0, "tests/a.py"), (0, "tests/b.py")]
    assert Torture(7, 1, ["tests/a.py"], seconds=59.9, runs=3).is_over is False
    assert Torture(7, 1, ["tests/a.py"], seconds=60, runs=3).is_over is True


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
    assert run(Torture(7, 0, ["tests/a.py", "tests/b.py"])).endswith(
        "-m pytest -q -x -m 'hypothesis or torture' --hypothesis-profile torture --hypothesis-seed=7 tests/b.py"
    )
    (folder / "b.py").write_text("import pytest\n@pytest.mark.torture\ndef test_b():\n    pass\n")
    capsys.readouterr()
    assert main(["--resume"]) == 0
    said = capsys.readouterr().out
    assert "tests/a.py, " not in said, "it had passed before"
    assert "seed 7: tests/b.py, 1 passed" in said
    assert "     2  Nothing is lost" in said
    with pytest.raises(SystemExit):
        main(["--resume"])
    assert "seed 7, was not stopped" in capsys.readouterr().err
