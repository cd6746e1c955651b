"""`meander serve`: what a person sees and can do, and that nothing shows the password of the store."""

import json

import pytest
from typer.testing import CliRunner

from dags.cli.doctor import check_serving
from dags.cli.main import app
from lake.errors import MeanderError, ServingRefused
from tests.lake.predicted import DAY_1, DAY_2, prediction, publish_rows, publish_users
from tests.postgres import PASSWORD

TEN = [f"u{n}" for n in range(10)]


def serve(*args: str) -> str:
    """Run a command and return what it printed; a failure is raised as it is."""
    return CliRunner().invoke(app, ["serve", *args], catch_exceptions=False).stdout


def test_a_day_is_loaded_looked_at_served_and_gone_back_from(serving):
    publish_users(DAY_1, *TEN)
    publish_users(DAY_2, *TEN[:6], version=2)
    assert "generation 1: 10 users of 2025-01-01 by model version 1; took" in serve("load", "--day", "2025-01-01")
    assert "was loaded before" in serve("load", "--day", "2025-01-01")
    assert "generation 1 (day 2025-01-01, model version 1) is current" in serve("switch", "--day", "2025-01-01")
    serve("load", "--day", "2025-01-02")
    said = serve("diff")
    assert "share gone" in said
    assert "A switch would be refused: share_gone 0.400, MEANDER_SERVING_MAX_USERS is 0.3" in said
    assert json.loads(serve("diff", "--day", "2025-01-02", "--json"))["users_gone"] == 4
    with pytest.raises(ServingRefused, match="meander serve switch --day 2025-01-02 --force"):
        serve("switch", "--day", "2025-01-02")
    serve("switch", "--day", "2025-01-02", "--force")
    said = serve("status")
    served = [line.split()[:3] for line in said.splitlines() if "<- applications" in line]
    assert served == [["2", "ready", "2025-01-02"]]
    assert "forced: share_gone 0.400" in said
    assert "generation 1 (day 2025-01-01, model version 1) is current, in the place of" in serve("rollback")
    status = json.loads(serve("status", "--json"))
    assert [each["current"] for each in status["generations"]] == [False, True]
    assert [each["generation"] for each in status["switches"]] == [1, 2, 1]


def test_rows_that_are_set_aside_are_shown_with_their_generation(serving, monkeypatch):
    monkeypatch.setenv("MEANDER_SERVING_MAX_SET_ASIDE", "0.2")
    faults = [{"user_id": "a\0"}, {"segment": "[bold]vip[/]"}]
    publish_rows([prediction(f"u{n}", DAY_1) | fault for n, fault in enumerate([*faults, *[{}] * 8])], DAY_1)
    publish_users(DAY_2, *TEN)
    counts = "a text is not UTF-8, or has a NUL: 1 rows; the segment is unknown: 1 rows"
    assert "8 users of 2025-01-01 by model version 1; took" in (printed := serve("load", "--day", "2025-01-01"))
    assert f"; set aside: {counts}. Next: meander serve switch" in printed
    assert "set aside" not in serve("load", "--day", "2025-01-02")
    printed = serve("status")
    rows = [line.split() for line in printed.splitlines() if "ready" in line]
    assert [(row[0], row[4], row[6]) for row in rows] == [("2", "10", "0"), ("1", "8", "2")]
    assert f"set aside from generation 1: {counts}" in printed
    status = json.loads(serve("status", "--json"))
    expected = dict(part.split(": ") for part in counts.replace(" rows", "").split("; "))
    assert [each["set_aside"] for each in status["generations"]] == [{}, {why: int(n) for why, n in expected.items()}]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["status"], "holds nothing in its schema meander"),
        (["diff"], "holds nothing in its schema meander"),
        (["rollback"], "holds nothing in its schema meander"),
        (["load"], "needs --day T"),
        (["switch"], "needs --day T"),
    ],
)
def test_what_cannot_be_done_is_said(serving, args, said):
    with pytest.raises(MeanderError, match=said):
        serve(*args)


def test_the_sql_for_the_administrator_is_printed_without_a_store(lake):
    printed = serve("grants", "--writer", "loader", "--reader", "shop app")
    assert 'create role "shop app" login;' in printed
    assert 'grant select on "meander".predictions, "meander".served to "shop app";' in printed


def test_the_doctor_and_the_settings_tell_of_the_store_and_not_its_password(serving, monkeypatch):
    assert "applications see nothing yet" in check_serving()
    publish_users(DAY_1, "ann")
    serve("load", "--day", "2025-01-01")
    serve("switch", "--day", "2025-01-01")
    listed = (CliRunner().invoke(app, args).stdout for args in (["settings"], ["settings", "--json"]))
    told = [check_serving(), *listed]
    assert "applications see generation 1" in told[0]
    assert "MEANDER_SERVING_URL" in told[1]
    assert [text for text in told if PASSWORD in text or "p%40ss" in text] == []
    monkeypatch.setenv("MEANDER_SERVING_URL", "")
    assert "no store for applications is set" in check_serving()
