"""The routes of the page, below /meander/page: one that answers quickly, and parts that the page fetches after it.

dags/page/app.py admits users who may see the runs of `behavior_daily`. All addresses are relative, so that they hold
under any base path that Airflow has.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from dags import PREFIX
from dags.page import drawing, flows, models
from dags.page.airflow_state import AirflowState, link, load_airflow_state
from dags.page.cache import Cache
from dags.page.findings import load_findings, newest_findings, outcomes
from dags.page.problems import (
    Link,
    cells_needing_attention,
    expected_day,
    freshness,
    notes,
    problems,
    readers_see,
    warned_lately,
)
from dags.page.state import (
    COMPUTED,
    SHOWN,
    STATES,
    WEEKS,
    LakeSnapshot,
    Staging,
    commits_of,
    listed_landing,
    read_stagings,
)
from dags.shared import backfill as planning
from dags.shared import evaluation
from dags.shared.run_ids import DAILY, airflow_run
from lake.backfill.costs import total
from lake.backfill.history import landing_differences
from lake.backfill.plan import CODE, REASONS, BackfillPlan
from lake.backfill.planner import plan_backfill
from lake.days import days_between
from lake.errors import MeanderError
from lake.labels import LABELS
from lake.landing import Landing
from lake.looking_back import nothing_before, span, window
from lake.settings import known_settings
from lake.table import Table

HERE = Path(__file__).parent
RUNBOOK = HERE.parents[1] / "docs" / "runbook.md"
# Days of the charts of rows, and rows of the list under the calendar.
CHART_DAYS, MAX_LISTED = 120, 12

# Its own script, style and parts, and nothing else: text from a log could not run even if it were not escaped.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

may_see = requires_access_dag("GET", DagAccessEntity.RUN, DAILY)
router = APIRouter(prefix="/page")

templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters["number"] = drawing.number
templates.filters["metric"] = evaluation.number
templates.filters["minutes"] = planning.minutes


def airflow_state(session: SessionDep) -> AirflowState:
    """Return the state of Airflow; a dependency, so that tests need no database of Airflow."""
    return load_airflow_state(session, datetime.now(UTC))


def cache_of_app(request: Request) -> Cache:
    """Return the one cache of the web server, which dags/page/app.py creates."""
    cache: Cache = request.app.state.cache
    return cache


AirflowDep = Annotated[AirflowState, Depends(airflow_state)]
CacheDep = Annotated[Cache, Depends(cache_of_app)]
# A year before or after it has to be a date as well.
Until = Annotated[date | None, Query(ge=date(1970, 1, 1), le=date(9000, 1, 1))]


class Paths:
    """Addresses relative to a page.

    Args:
        depth: the number of folders between Airflow's address and the page.
    """

    def __init__(self, depth: int):
        self.root = "../" * depth

    def link(self, to: Link) -> str:
        """Return the address of a run, of data docs, or of a section of the runbook."""
        if not isinstance(to.target, str):
            return self.root + link(*to.target)
        return self.docs(to.target) if to.kind == "docs" else f"{self.root}meander/page/runbook#{to.target}"

    def run(self, run_id: str) -> str:
        """Return the address of a run; empty for a run without Airflow."""
        run = airflow_run(run_id)
        return self.root + link(*run) if run else ""

    def docs(self, address: str) -> str:
        """Return the address of data docs: below Airflow's own address when they are served here; empty for any other.

        A lake without a web server for its docs records a path or a storage address, which no browser opens.
        """
        if address.startswith(f"{PREFIX}/"):
            return self.root + address.removeprefix("/")
        return address if address.startswith(("http://", "https://")) else ""


def page(template: str, depth: int = 2, **values: Any) -> HTMLResponse:
    """Fill a template."""
    return HTMLResponse(templates.get_template(template).render(to=Paths(depth), **values), headers=HEADERS)


def failure(request: Request, error: Exception) -> HTMLResponse:  # noqa: ARG001  FastAPI's signature
    """Show an error of Meander, with its section of the runbook."""
    text = templates.get_template("empty.html").render(text=f"The lake could not be read. {error}")
    return HTMLResponse(text, 503, headers=HEADERS)


def load_lake_snapshot(cache: Cache, airflow: AirflowState, first: date | None = None) -> LakeSnapshot:
    """Return the state of the lake now; also of days from `first` on, however old they are."""
    now = datetime.now(UTC)
    return LakeSnapshot.load(cache, now, expected_day(now, airflow.scheduled), first)


@router.get("/")
def overview(airflow: AirflowDep, cache: CacheDep, until: Until = None) -> HTMLResponse:
    """Show problems, the rows that readers see and safe repairs; then freshness, late data and the calendar."""
    lake = load_lake_snapshot(cache, airflow, until and until - timedelta(weeks=WEEKS))
    last = until or lake.last or lake.now.date()
    weeks = lake.weeks(last)
    return page(
        "overview.html",
        lake=lake,
        airflow=airflow,
        problems=problems(lake, airflow, newest_findings()),
        notes=notes(lake, airflow),
        warned=bool(warned_lately(lake)),
        readers=readers_see(lake),
        freshness=freshness(lake),
        attention=cells_needing_attention(lake, MAX_LISTED),
        weeks=weeks,
        last=last,
        earlier=weeks[0][0] - timedelta(days=1),
        later=min(lake.last, last + timedelta(days=7 * len(weeks))) if lake.last and last < lake.last else None,
        tables=[table for table in SHOWN if lake.cells[table]],
        states=STATES,
    )


@router.get("/days/{day}")
def one_day(day: date, airflow: AirflowDep, cache: CacheDep) -> HTMLResponse:
    """Show every table on one day: state, counts, the run and the data docs."""
    lake = load_lake_snapshot(cache, airflow, day)
    counts = landed_counts(lake).get(day)
    return page(
        "day.html",
        depth=3,
        day=day,
        cells=[lake.cells[table][day] for table in SHOWN if day in lake.cells[table]],
        counts=counts,
        late=[late for late in lake.late if late.day == day],
    )


@router.get("/run")
def one_run(dag: str, run: str, cache: CacheDep) -> HTMLResponse:
    """Show the stagings of a DAG run, their verdicts and the state of their days: the tab *Lake* of the run."""
    now = datetime.now(UTC)
    lake = LakeSnapshot.load(cache, now)
    stagings = staged_by(lake.stagings, dag, run)
    # Of a run of long ago nothing is found at first, nor of one that has staged nothing: of that, the manifests tell.
    known = stagings or staged_by(read_stagings(cache, None)[0], dag, run)
    if min((day for staging in known for day in staging.staged.owns), default=date.max) < lake.first:
        lake = LakeSnapshot.load(cache, now, None, date.min)
        stagings = staged_by(lake.stagings, dag, run)
    cells = [[lake.cells[staging.staged.table][day] for day in staging.staged.owns] for staging in stagings]
    return page("run.html", dag=dag, stagings=list(zip(stagings, cells, strict=True)))


@router.get("/rows")
def rows(airflow: AirflowDep, cache: CacheDep, until: Until = None) -> HTMLResponse:
    """Draw the input rows by outcome, and the rows of each table, day by day."""
    lake = load_lake_snapshot(cache, airflow, until and until - timedelta(days=CHART_DAYS))
    last = until or lake.last
    if last is None:
        return page("empty.html", text="No day has been loaded yet.")
    days = days_between(last - timedelta(days=CHART_DAYS - 1), last)
    counts = landed_counts(lake)
    outcomes = ("events", "duplicates", "ignored", "quarantined", "forgotten")
    reasons = sorted({reason for day in days for reason in counts.get(day, {}).get("rejected", {})})
    charts = [
        (
            "Input rows of each landing day, by outcome",
            drawing.stacked(days, {name: {d: counts[d][name] for d in days if d in counts} for name in outcomes}),
        ),
    ]
    if reasons:
        by_reason = {r: {d: counts[d]["rejected"].get(r, 0) for d in days if d in counts} for r in reasons}
        charts.append(("Quarantined rows, by reason", drawing.stacked(days, by_reason, 90)))
    charts += [
        (f"Rows of {table}", drawing.stacked(days, {table: lake.rows[table]}, 70))
        for table in COMPUTED
        if lake.rows[table]
    ]
    recent = [(day, counts[day]) for day in reversed(days) if day in counts][:14]
    tables = {table: lake.rows[table] for table in COMPUTED}
    return page("rows.html", charts=charts, recent=recent, tables=tables, first=days[0], last=last)


def planned(cache: Cache, reason: str, first: date | None, last: date | None, table: str) -> BackfillPlan:
    """Return a plan, which is the same for as long as no table has a new version: each look at the page asks for it.

    What has landed since it was read is in no version, and has a part in a plan for late data.
    """
    config, events = known_settings(), Table.find("events")
    if events is None:
        return plan_backfill(config, reason, first, last, table)
    versions = {name: found.version for name in SHOWN if (found := Table.find(name))}
    rules = config.session_gap_minutes, config.late_days, config.history_days
    landed = {}
    if reason == "late-data":
        days = window(config, events, first, last, lambda since: commits_of(cache, events, since))
        commits = commits_of(cache, events, nothing_before(days.first))
        landed = landing_differences(Landing.of(config), commits, listed_landing(cache, days.first), days)
    question = f"plan {reason} {first} {last} {table} {versions} {rules} {landed}"
    return cache.of_version(events, question, lambda: plan_backfill(config, reason, first, last, table, landed))


@router.get("/plan")
def plan(
    cache: CacheDep,
    reason: str = "late-data",
    table: str = "events",
    first: Annotated[str, Query(alias="from")] = "",
    last: Annotated[str, Query(alias="to")] = "",
) -> HTMLResponse:
    """Show the reprocessing plan, as `meander plan` prints it."""
    form: dict[str, Any] = {"reason": reason, "table": table, "first": first, "last": last}
    form |= {"reasons": REASONS, "tables": CODE}
    try:
        begins, ends = (date.fromisoformat(day) if day else None for day in (first, last))
        backfill = planned(cache, reason, begins, ends, table)
    except (MeanderError, ValueError) as error:
        return page("plan.html", **form, invalid=str(error).split(" [docs/")[0])
    todo, optional = (planning.steps(runs, backfill.costs) for runs in (backfill.runs, backfill.optional))
    why = {
        name: list(planning.merged(list(group))) for name, group in groupby(backfill.redo, lambda entry: entry.table)
    }
    return page(
        "plan.html",
        **form,
        invalid="",
        scope=backfill.scope,
        why={name: (lines[: planning.MAX_LINES], len(lines) - planning.MAX_LINES) for name, lines in why.items()},
        todo=todo,
        optional=optional,
        whole=backfill.whole,
        history=planning.history(backfill) if backfill.whole else "",
        estimate=planning.minutes(total(step.seconds for step in todo)),
        untouched={entry.table: entry.partitions for entry in backfill.untouched if entry.partitions},
    )


@router.get("/interest")
def interest(cache: CacheDep, day: Annotated[date | None, Query()] = None) -> HTMLResponse:
    """Draw the flow of interest between categories: predicted on a day, and actual."""
    days = flows.available_days()
    if not days:
        return page("empty.html", text="There are no predictions and no examples yet.")
    day = day or days[0]
    least = known_settings().min_group
    predicted, actual = flows.predicted(cache, day, least), flows.actual(cache, day, least)
    # The same categories in both, in the same order and colours, so that they can be compared.
    kept = drawing.greatest([predicted, actual])
    left = f"main interest on {day}"
    charts = [
        (what, drawing.sankey(moves, kept, left, right), flows.movers(moves)[:8])
        for what, moves, right in (
            ("Predicted", predicted, "next, expected users"),
            ("Actual", actual, "next, users"),
        )
        if moves.now
    ]
    return page("interest.html", day=day, days=days, charts=charts)


@router.get("/model")
def model(cache: CacheDep) -> HTMLResponse:
    """Show the champion, the evaluations compared with the baselines over time, and the drift of its predictions."""
    evaluations = models.load_evaluations()
    if not evaluations:
        return page("empty.html", text="No model has been evaluated yet; model_weekly evaluates one each week.")
    newest = evaluations[-1]
    days = days_between(evaluations[0].day - timedelta(days=3), newest.day + timedelta(days=3))
    methods = sorted(newest.values, key=lambda name: (name != "model", -newest.values[name]))
    # One for each colour: the model and the best baselines.
    best = methods[: drawing.COLOURS]
    series = {name: {one.day: one.values[name] for one in evaluations if name in one.values} for name in best}
    drift = flows.drift(cache, span(known_settings()), known_settings().min_group)
    charts = []
    monitored = load_findings()
    for metric in ("recall@5", *(f"roc_auc {one.name}" for one in LABELS)):
        observed = outcomes(monitored, metric)
        if observed:
            dates = sorted(day for values in observed.values() for day in values)
            shown = days_between(dates[0] - timedelta(days=3), dates[-1] + timedelta(days=3))
            title = f"Observed {metric} by prediction day, compared with the offline evaluation"
            charts.append((title, drawing.lines(shown, observed, top=1.0)))
    if drift:
        shown = days_between(drift[0]["dt"], drift[-1]["dt"])
        # A listening log has nobody who buys: what is never true is not drawn.
        asked = [one for one in LABELS if one.name not in newest.evaluation.not_judged]
        means = {f"mean probability of {one.score}": {row["dt"]: row[one.score] for row in drift} for one in asked}
        charts.append(("Mean probabilities of each day's predictions", drawing.lines(shown, means, top=1.0)))
        unseen = unseen_share(cache, drift[0]["dt"])
        charts.append(
            ("Share of events with an item outside the vocabulary", drawing.lines(shown, {"unseen events": unseen}))
        )
    return page(
        "model.html",
        champion=models.champion(),
        evaluations=list(reversed(evaluations))[:10],
        metric=models.METRIC[0],
        chart=drawing.lines(days, series, top=1.0)
        if len(evaluations) > 1
        else drawing.legend({name: f"{newest.values[name]:.3f}" for name in best}),
        drift=charts,
    )


def staged_by(stagings: Mapping[str, list[Staging]], dag: str, run: str) -> list[Staging]:
    """Return the stagings of a DAG run, of those of each table."""
    return [
        staging for some in stagings.values() for staging in some if airflow_run(staging.staged.run_id) == (dag, run)
    ]


def unseen_share(cache: Cache, first: date) -> dict[date, float]:
    """Return for each predicted day from `first` on the share of events with an item outside the vocabulary."""
    lake = LakeSnapshot.load(cache, datetime.now(UTC), None, first)
    shares = {}
    for day, commit in lake.current["predictions"].items():
        if commit.counts.get("events"):
            shares[day] = commit.counts["unseen_events"] / commit.counts["events"]
    return shares


def landed_counts(lake: LakeSnapshot) -> dict[date, dict[str, Any]]:
    """Return for each published landing day the counts of its input rows by outcome."""
    published = lake.rows["events"]
    by_day: dict[date, dict[str, Any]] = {}
    for day, commit in lake.current["events"].items():
        counted: Mapping[str, Any] | None = commit.counts.get("by_day", {}).get(str(day))
        if counted:
            events = published.get(day, 0)
            by_day[day] = {
                "input": counted["input"],
                "events": events,
                "duplicates": counted["accepted"] - events,
                "ignored": counted["ignored"],
                "quarantined": sum(counted["rejected"].values()),
                "forgotten": counted.get("forgotten", 0),
                "rejected": counted["rejected"],
            }
    return by_day


@router.get("/runbook")
def runbook() -> HTMLResponse:
    """Show docs/runbook.md, so that its sections can be linked."""
    if not RUNBOOK.is_file():
        raise HTTPException(404, f"there is no {RUNBOOK}: this Airflow has Meander installed without its docs")
    return page("runbook.html", text=rendered_runbook())


@cache
def rendered_runbook() -> Markup:
    """Return the runbook as HTML: each heading has the name by which GitHub links it, and raw HTML is shown as text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(RUNBOOK.read_text(encoding="utf-8"))
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[at + 1].content))
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # the renderer escapes


def anchor(heading: str) -> str:
    """Return the name by which GitHub links a heading.

    >>> anchor("A task stays *scheduled*"), anchor("`promote` was skipped")
    ('a-task-stays-scheduled', 'promote-was-skipped')
    """
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


@router.get("/static/{name}")
def static(name: str) -> FileResponse:
    """Return the style or script of the page."""
    kinds = {"page.css": "text/css", "page.js": "text/javascript"}
    if name not in kinds:
        raise HTTPException(404, f"there is no {name}")
    return FileResponse(
        HERE / "static" / name, media_type=kinds[name], headers={**HEADERS, "Cache-Control": "no-cache"}
    )
