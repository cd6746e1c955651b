"""`meander plan`: a person and a machine are told the same plan."""

import io
import json
from collections.abc import Iterator
from datetime import date, datetime

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dags.cli.backfill import for_a_machine, show
from dags.cli.main import app
from lake.backfill.costs import Costs
from lake.backfill.plan import BackfillPlan, DayRun, HistoryRange, Redo, Untouched
from tests.lake.daily_runs import DailyRuns
from tests.session_oracle import Landed

JAN = [date(2025, 1, n) for n in range(1, 32)]


def behavior(day: date, *tables: str, note: str = "") -> DayRun:
    return DayRun("behavior", day, tables, len(tables), 10, 3.0, note=note)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Iterator[None]:
    """Ann comes on each of four days, and on the last an event of the first lands; each job has taken 10 s."""
    folder = tmp_path_factory.mktemp("published")
    days = JAN[:4]
    log = [Landed("ann", datetime(2025, 1, day.day, 12), f"e{day.day}", day) for day in days]
    log.append(Landed("ann", datetime(2025, 1, 1, 13), "late", JAN[3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEANDER_LAKE", str(folder / "lake"))
        patch.setenv("MEANDER_LANDING", str(folder / "landing"))
        patch.setenv("MEANDER_LATE_DAYS", "1")
        shop = DailyRuns({day: [e for e in log if e.landed == day] for day in days})
        shop.took = 10.0
        for day in days:
            shop.day(day)
        yield


def invoke(*args: str) -> str:
    ran = CliRunner().invoke(app, ["plan", *args], catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout


def test_a_person_is_told_what_why_how_long_and_what_to_type(published):
    said = invoke("--reason", "late-data")
    why = "events of 2025-01-01 landed 2025-01-04, older than MEANDER_LATE_DAYS=1"
    assert f"sessions 2025-01-01 to 2025-01-02 2 {why}" in " ".join(said.split())
    assert "Estimated total: 10 s for staging and audit, from past runs." in said
    assert "airflow backfill create --dag-id behavior_daily --from-date 2025-01-01 --to-date 2025-01-01 " in said
    assert "interests of 2025-01-01 to 2025-01-03 (3) exclude events that arrived after their date" in said
    untouched = said.partition("Untouched partitions: ")[2].partition(".")[0].split(", ")
    assert {"events 4", "sessions 2", "interests 4"} <= set(untouched)


def test_a_machine_is_told_the_same(published):
    said = json.loads(invoke("--reason", "late-data", "--json"))
    why = "events of 2025-01-01 landed 2025-01-04, older than MEANDER_LATE_DAYS=1"
    assert said["redo"] == [
        {"table": "sessions", "day": day, "rows": 1, "why": why} for day in ("2025-01-01", "2025-01-02")
    ]
    (step,) = said["steps"]
    assert (step["what"], step["tables"], step["partitions"], step["seconds"]) == (
        "behavior_daily",
        ["sessions"],
        2,
        10.0,
    )
    assert (said["seconds"], said["instead"]) == (10.0, None)
    assert said["optional"][0]["commands"][0].startswith(
        "python -m jobs.interests --from 2025-01-01 --to 2025-01-03 --include-"
    )


def test_nothing_to_do_is_said_in_words(published):
    assert invoke("--reason", "late-data", "--to", "2025-01-03") == (
        "Nothing to reprocess for late-data from - to 2025-01-03: every table already includes all arrived events.\n"
    )
    assert "no affected partition is published" in invoke(
        "--reason", "bad-day", "--from", "2025-03-01", "--to", "2025-03-01"
    )


def said_of(plan: BackfillPlan) -> str:
    out = Console(width=300, file=io.StringIO())
    show(plan, out)
    return out.file.getvalue()


def test_a_long_plan_is_shown_in_part_and_says_so():
    redo = [Redo("sessions", JAN[n], 1, f"reason {n}") for n in range(0, 30)]
    plan = BackfillPlan("late-data", None, None, "events", redo=redo, untouched=[Untouched("sessions", 0, 0)])
    said = said_of(plan)
    assert "and 10 more" in said
    assert ("reason 19" in said, "reason 20" in said) == (True, False)
    assert "Untouched partitions: none." in said
    assert len(for_a_machine(plan)["redo"]) == 30
    assert (
        "more"
        not in said_of(BackfillPlan("late-data", None, None, "events", redo=redo[:20])).split("Estimated total")[0]
    )


def test_all_ways_to_make_a_plan_are_said_in_the_order_in_which_they_are_taken():
    everything = ("quarantine", "events", "sessions", "interests")
    plan = BackfillPlan(
        "bad-day",
        JAN[0],
        JAN[1],
        "events",
        redo=[
            Redo("events", JAN[0], 1_200, "again"),
            Redo("events", JAN[1], 34, "again"),
            Redo("events", JAN[2], 5, "b"),
        ],
        runs=[
            *(DayRun("behavior", day, everything, 4, 10, 100.0) for day in JAN[:2]),
            *(behavior(day, "sessions", note="nothing has landed" if day == JAN[3] else "") for day in JAN[3:5]),
        ],
        whole=HistoryRange(JAN[0], JAN[1], 1, 20, 130.0),
        optional=[DayRun("interests", JAN[5], ("interests",), 1, 10, 5.0, include_late=True)],
        untouched=[Untouched("events", 1_000, 5), Untouched("sessions", 2, 5)],
        costs=Costs({"sessions": [(10, 4.0)], "interests": [(10, 5.0)]}),
    )
    said = said_of(plan)
    table, _, steps_and_more = said.partition("step ")
    assert [" ".join(line.split()) for line in table.splitlines() if "2025" in line] == [
        "events 2025-01-01 to 2025-01-02 1,234 again",
        "events 2025-01-03 5 b",
    ]
    rows, _, rest = steps_and_more.partition("Estimated total: ")
    assert [" ".join(line.split()) for line in rows.splitlines() if "2025" in line] == [
        "1 behavior_daily 2 2025-01-01 to 2025-01-02 events, sessions, interests 8 20 3 min",
        "2 behavior_daily 2 2025-01-04 to 2025-01-05 sessions 2 20 6 s",
    ]
    backfill = "airflow backfill create --dag-id behavior_daily --from-date {} --to-date {} --max-active-runs 2"
    again = "--reprocess-behavior completed --dag-run-conf"
    alone = "plan--sessions--2025-01-04--2025-01-05"
    restated = "plan--interests--2025-01-06--2025-01-06"
    assert rest.splitlines() == [
        "3 min for staging and audit, from past runs. Airflow's scheduling delay is not included.",
        "Run the steps in order, each after the previous one has finished: Airflow runs one backfill of a DAG at a "
        "time.",
        "",
        f"""{backfill.format(JAN[0], JAN[1])} {again} '{{"tables": ["events", "sessions", "interests"]}}'""",
        "# nothing has landed",
        f"""{backfill.format(JAN[3], JAN[4])} {again} '{{"tables": ["sessions"]}}'""",
        "# or by one job, in 4 s instead of 6 s:",
        f"python -m jobs.sessionize --from 2025-01-04 --to 2025-01-05 --run-id {alone}",
        f"python -m expectations.audit --table sessions --run-id {alone}",
        f"python -m lake.publish --table sessions --run-id {alone}",
        "",
        "Faster, in 2 min: instead of the steps with events, a few large jobs over 2025-01-01 to 2025-01-02:",
        "",
        "airflow dags trigger behavior_history --conf "
        """'{"from": "2025-01-01", "to": "2025-01-02", "chunk_days": 90, "interests_every": 1}'""",
        "",
        "Optional (5 s): by design, interests of 2025-01-06 (1) exclude events that arrived after their date. "
        "To include the late events anyway:",
        "",
        f"python -m jobs.interests --from 2025-01-06 --to 2025-01-06 --include-late --run-id {restated}",
        f"python -m expectations.audit --table interests --run-id {restated}",
        f"python -m lake.publish --table interests --run-id {restated}",
        "",
        "Untouched partitions: events 1,000, sessions 2. Models and their training data do not change.",
    ]
    content = for_a_machine(plan)
    assert content["seconds"] == 206.0
    assert [step["what"] for step in content["steps"]] == ["behavior_daily", "behavior_daily"]
    assert content["instead"] in rest.splitlines()


def test_of_what_is_not_known_nothing_is_said_in_numbers():
    # The total is unknown too.
    redo, run = Redo("sessions", JAN[0], 1, "code"), DayRun("behavior", JAN[0], ("sessions",), 1, 1, None)
    plan = BackfillPlan("code", JAN[0], JAN[0], "sessions", redo=[redo], runs=[run])
    assert "Estimated total: unknown for staging and audit" in said_of(plan)
