"""The commands of the serving store: each does what its arguments say, and prints it for a machine to read."""

import json

import pytest

from jobs import serve
from lake.errors import ServingRefused
from tests.lake.predicted import DAY_1, DAY_2, DAY_3, publish_users

TEN = [f"u{n}" for n in range(10)]


def test_a_day_is_loaded_switched_to_and_gone_back_from(serving, capsys, monkeypatch):
    # Numbers of generations, versions and days are never in the same order.
    publish_users(DAY_1, *TEN)
    publish_users(DAY_2, *TEN[:6], version=3)
    publish_users(DAY_3, *TEN[:6], version=2)

    def run(*arguments, run_id="r"):
        serve.main([*map(str, arguments), "--run-id", run_id])
        return json.loads(capsys.readouterr().out)

    def seen():
        (day,) = serving.execute("select distinct dt from meander.predictions").fetchone()
        return day

    loaded = run("load", "--day", DAY_1, "--workers", 1)
    assert (loaded["generation"], loaded["users"]) == (1, 10)
    assert serving.execute("select count(*) from meander.predictions").fetchone() == (0,)
    switched = run("switch", "--day", DAY_1)
    assert (switched["outcome"], switched["dropped"], seen()) == ("switched", [], DAY_1)

    run("load", "--day", DAY_2)
    with pytest.raises(ServingRefused, match="share_gone"):
        run("switch", "--day", DAY_2)
    assert (run("switch", "--day", DAY_2, "--force")["outcome"], seen()) == ("switched", DAY_2)
    assert (run("switch", "--day", DAY_1, "--if-newer")["outcome"], seen()) == ("kept", DAY_2)
    run("load", "--day", DAY_3)
    assert (run("switch", "--day", DAY_3, "--if-newer")["outcome"], seen()) == ("switched", DAY_3)

    for back, day in (
        (["--model-version", 3], DAY_2),
        (["--day", DAY_3], DAY_3),
        (["--generation", 1], DAY_1),
        (["--generation", 3], DAY_3),
        ([], DAY_2),
    ):
        assert (run("rollback", *back, run_id=f"back {back}")["outcome"], seen()) == ("switched", day)
    assert (run("rollback", run_id="back []")["outcome"], seen()) == ("already", DAY_2), "a run goes back once"

    # A switch drops what is old by then, which the loads before it had to keep.
    monkeypatch.setenv("MEANDER_SERVING_KEEP", "1")
    assert run("switch", "--day", DAY_3)["dropped"] == [1]
