"""The Meander page in a real browser, inside a running Airflow that has a base path, on a year of days."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect, sync_playwright

from dags.local.client import ANSWER_SECONDS, USER
from dags.local.standalone import HANGS_SECONDS, LocalAirflow
from lake.days import days_between
from lake.table import Table
from tests.dags.page_lake import OTHERS, event, prediction, put, put_day, put_events, put_predictions, run_of
from tests.waiting import until

pytestmark = pytest.mark.e2e

FIRST, LAST = date(2024, 3, 4), date(2025, 3, 2)
DAILY_FROM = LAST - timedelta(days=9)
FAILED, WARNED, RESTATED, GAP = (LAST - timedelta(days=n) for n in (0, 2, 4, 6))
SCRIPT = "<script>window.hacked = 1</script>"
# Ids that Airflow takes from a person.
FAILED_RUN, ENDED_RUN = "manual__failed", "manual__ended"
# Somebody whom Airflow knows and who may do nothing.
TOKEN_OF_NOBODY = """
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
print(create_auth_manager().generate_jwt(SimpleAuthManagerUser(username="nobody", role=None)))
"""

# What a person waits for comes when the machine has time for it.
expect.set_options(timeout=HANGS_SECONDS * 1000)


def write_history(days: list[date]) -> None:
    """What one run of `behavior_history` leaves: a commit a table."""
    run = {"run": f"manual__history--{days[0]}", "owns": days}
    put("quarantine", days[0], [], **run)
    put("events", days[0], [event(day, n) for day in days for n in range(3)], **run)
    version = Table("events").version
    rows = {
        "sessions": [{"session_id": str(day), "dt": day} for day in days],
        "interests": [{"user_id": user, "dt": day} for day in days for user in ("ann", "bob")],
        **{table: [{"dt": day} for day in days] for table in OTHERS},
    }
    for table, some in rows.items():
        put(table, days[0], some, **run, basis=version, inputs={"events": version})


def write_lake(landing: Path) -> None:
    """A year of days, the last weeks of it day by day: all is well except on the days named above."""
    for day in days_between(FIRST, LAST):
        if day != GAP:
            (landing / f"dt={day}").mkdir(parents=True)
    write_history(days_between(FIRST, DAILY_FROM - timedelta(days=1)))
    for day in days_between(DAILY_FROM, LAST):
        if day == GAP:
            continue
        if day == FAILED:
            put_events(day, audited="failed", run=FAILED_RUN, rejected={SCRIPT: 2})
        else:
            put_day(day, audited="warned" if day == WARNED else "passed", rejected={"missing_user": 1})
        rows = [prediction("ann", SCRIPT, {"hats": 0.75, "belts": 0.25}), prediction("bob", "hats", {"hats": 1.0})]
        if day < FAILED:
            put_predictions(day, rows)
    put("sessions", RESTATED, [], run="manual__again", basis=Table("events").version)
    # A run named by somebody who means harm.
    put("sessions", FAILED, [], run=SCRIPT, audited="failed")


def waits(local: LocalAirflow, run_id: str) -> bool:
    """Tell whether a run has looked for its landing, and will look again."""
    return any(task["state"] == "up_for_reschedule" for task in local.tasks("behavior_daily", run_id))


@pytest.fixture(scope="module", autouse=True)
def _history(airflow: LocalAirflow) -> None:
    """A year in the lake, and two runs that Airflow knows: one has failed, one waits."""
    write_lake(Path(airflow.settings["MEANDER_LANDING"]))
    # Both wait for days that will never land, until a person ends one of them.
    for run_id, end in ((FAILED_RUN, "2001-01-02"), (ENDED_RUN, "2001-01-03")):
        run = {"dag_run_id": run_id, "logical_date": f"{end}T00:00:00Z"}
        airflow.api("POST", "dags/behavior_daily/dagRuns", json=run)
    until("both runs to wait", lambda: waits(airflow, FAILED_RUN) and waits(airflow, ENDED_RUN), every=1)
    # The task, and not the run: a scheduler that is just looking at the run would set its state once more.
    waiting = f"dags/behavior_daily/dagRuns/{ENDED_RUN}/taskInstances/wait_for_landing"
    airflow.api("PATCH", waiting, json={"new_state": "failed"})
    until(
        "the run to have failed", lambda: "failed" in {run["state"] for run in airflow.runs("behavior_daily")}, every=1
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # Without its own sandbox: tests may run as root in a container, and open nothing but our own pages.
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def logged_in(airflow: LocalAirflow, browser: Browser) -> Iterator[BrowserContext]:
    """A browser in which the admin has logged in."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    context.set_default_timeout(HANGS_SECONDS * 1000)
    page = context.new_page()
    page.goto(f"{airflow.url}/auth/login")
    page.locator("input[name=username]").fill(USER)
    page.locator("input[name=password]").fill(airflow.state["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/auth/" not in url)
    page.close()
    yield context
    context.close()


@pytest.fixture
def window(logged_in: BrowserContext) -> Iterator[Page]:
    """A window of that browser."""
    page = logged_in.new_page()
    yield page
    page.close()


def frame(window: Page, airflow: LocalAirflow) -> FrameLocator:
    """Open the page as people do, from Airflow's menu."""
    window.goto(airflow.url)
    window.get_by_role("link", name="Meander").or_(window.get_by_role("button", name="Meander")).first.click()
    inside = window.frame_locator("iframe[title=Meander]")
    expect(inside.locator("h1")).to_be_visible()
    # Text can be there before the style sheet is.
    expect(inside.locator("body")).not_to_have_css("background-color", "rgba(0, 0, 0, 0)")
    return inside


def test_only_who_may_see_the_runs_sees_our_pages(airflow: LocalAirflow):
    address = f"{airflow.url}/meander/page/"
    assert requests.get(address, timeout=ANSWER_SECONDS).status_code == 401
    made = subprocess.run(
        [sys.executable, "-c", TOKEN_OF_NOBODY], env=airflow.environment, capture_output=True, text=True, check=True
    )
    nobody = {"Authorization": f"Bearer {made.stdout.split()[-1]}"}
    beside = ("../data-docs/", "../data-docs/run/page.html", "../models/r/evaluation/report.html", "../model/?run=r")
    for part in ("", "days/2025-03-02", "rows", "interest", "model", "runbook", "static/page.js", *beside):
        assert requests.get(address + part, headers=nobody, timeout=ANSWER_SECONDS).status_code == 403, part
    admin = {"Authorization": f"Bearer {airflow.token}"}
    assert requests.get(address, headers=admin, timeout=ANSWER_SECONDS).status_code == 200


def test_the_menu_leads_to_what_is_wrong_and_from_there_to_the_run(airflow: LocalAirflow, window: Page):
    inside = frame(window, airflow)
    expect(inside.locator("h2").first).to_contain_text(f"quarantine and events of {LAST} failed the audit")
    expect(inside.get_by_text(f"not landed: {GAP}")).to_be_visible()
    # What the lake cannot know: a run that failed before it staged anything, and one at work.
    expect(inside.get_by_text("behavior_daily of 2001-01-02 failed")).to_be_visible()
    expect(inside.get_by_text("1 run in progress or queued")).to_be_visible()
    inside.get_by_role("link", name="Runbook: audit-failed").first.click()
    expect(inside.locator("h2#audit-failed")).to_be_visible()
    inside.get_by_role("link", name="Back").click()
    inside.locator(".problem").first.get_by_role("link", name="the run").click()
    # The whole window goes there, not the frame, and Airflow knows the run.
    window.wait_for_url(f"**/team/airflow/dags/behavior_daily/runs/{FAILED_RUN}**")
    expect(window.locator("iframe[title=Meander]")).to_have_count(0)
    expect(window.get_by_text("wait_for_landing").first).to_be_visible()
    # A tab of the run tells what it staged.
    window.goto(f"{window.url.split('?')[0].rstrip('/')}/plugin/lake")
    expect(window.frame_locator("iframe[title=Lake]").locator("table")).to_contain_text("quarantine")


def test_a_cell_leads_to_counts_run_and_data_docs(airflow: LocalAirflow, window: Page):
    inside = frame(window, airflow)
    inside.locator(f'a.cell[title^="{WARNED} events"]').click()
    panel = inside.locator("#day")
    expect(panel).to_contain_text("Landed: 5 rows = 3 events + 1 duplicates + 0 ignored + 1 quarantined")
    expect(panel.locator(".word.warned").first).to_be_visible()
    run = quote(run_of(WARNED), safe="")
    links = [link.evaluate("a => a.href") for link in panel.get_by_role("link").all()]
    assert f"{airflow.url}/dags/behavior_daily/runs/{run}" in links
    expect(inside.locator(f'a.cell.again[title^="{RESTATED} sessions"]')).to_have_count(1)
    expect(inside.locator(f'a.cell.missing[title^="{GAP} events"]')).to_have_count(1)


def test_the_parts_come_after_it_without_a_complaint_and_run_nothing_from_the_log(airflow: LocalAirflow, window: Page):
    complaints: list[str] = []
    window.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    window.goto(f"{airflow.url}/meander/page/")
    expect(window.locator("svg.sankey")).to_have_count(1)
    expect(window.locator("svg.sankey")).to_contain_text(SCRIPT[:20])
    expect(window.get_by_text("No model has been evaluated yet")).to_be_visible()
    expect(window.locator("svg.chart").first).to_be_visible()
    expect(window.locator("[data-part=plan] form")).to_be_visible()
    assert window.evaluate("window.hacked") is None
    assert window.locator("script").count() == 1, "our own"
    # Another day is fetched when it is chosen.
    window.locator("[data-part=interest] select").select_option(str(DAILY_FROM))
    expect(window.locator("svg.sankey")).to_contain_text(f"main interest on {DAILY_FROM}")
    assert complaints == []


def test_it_is_readable_in_light_and_dark_as_airflow_is_set(airflow: LocalAirflow, window: Page):
    for scheme in ("light", "dark"):
        window.emulate_media(color_scheme=scheme)
        inside = frame(window, airflow)
        # Airflow's own choice, which may differ from that of the system.
        window.evaluate("scheme => { document.documentElement.style.colorScheme = scheme }", scheme)
        body = inside.locator("body")
        paper = brightness(body.evaluate("b => getComputedStyle(b).backgroundColor"))
        text = brightness(body.evaluate("b => getComputedStyle(b).color"))
        assert (paper > 200 and text < 60) if scheme == "light" else (paper < 40 and text > 200)


def brightness(colour: str) -> float:
    numbers = [float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3]]
    return sum(numbers) / 3


def test_a_year_of_days_is_there_with_the_page_and_fits_a_laptop(airflow: LocalAirflow, window: Page):
    window.goto(f"{airflow.url}/meander/page/")
    # A cell for each day and each of the four tables of behavior, without the day that has not landed.
    assert window.locator("a.cell").count() >= 4 * (len(days_between(FIRST, LAST)) - 1)
    assert window.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a laptop needs no sideways scrolling"
