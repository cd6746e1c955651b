"""The routes of the page, below /meander/page: one that answers at once, and parts that the page fetches after it.

Everything here may be seen by whoever may see the runs of `behavior_daily`: dags/page/app.py sees to that. All
addresses are relative, so that they hold under any base path that Airflow has.
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
from dags.page.airflow_state import AirflowState, link, look
from dags.page.cache import Cache
from dags.page.problems import Link, expected_day, freshness, notes, problems, readers_see, worth_a_look
from dags.page.state import COMPUTED, SHOWN, STATES, Cell, Lake, Staging
from dags.page.watched import newest_findings, outcomes, watched
from dags.shared import backfill as planning
from dags.shared import evaluation
from dags.shared.run_ids import DAILY, airflow_run
from lake.backfill.costs import total
from lake.backfill.plan import CODE, REASONS
from lake.backfill.planner import make
from lake.errors import MeanderError
from lake.labels import LABELS
from lake.landing import days_between

HERE = Path(__file__).parent
RUNBOOK = HERE.parents[1] / "docs" / "runbook.md"
# Days of the charts of rows, and rows of the list under the calendar.
DAYS, LISTED = 120, 12

# Its own script, style and parts, and nothing else: what a log has brought in cannot run even if it were not escaped.
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
    """Return what Airflow knows; a dependency, so that the page can be tried without Airflow's database."""
    return look(session, datetime.now(UTC))


def cache_of_app(request: Request) -> Cache:
    """Return the one cache of the web server, which dags/page/app.py makes."""
    return request.app.state.cache


AirflowDep = Annotated[AirflowState, Depends(airflow_state)]
CacheDep = Annotated[Cache, Depends(cache_of_app)]
# A year before or after it has to be a date as well.
Until = Annotated[date | None, Query(ge=date(1970, 1, 1), le=date(9000, 1, 1))]


class Paths:
    """Addresses as seen from one of our pages.

    Args:
        depth: how many folders the page lies below Airflow's address.
    """

    def __init__(self, depth: int):
        self.root = "../" * depth

    def link(self, to: Link) -> str:
        """Return the address of a run, of data docs, or of a section of the runbook."""
        if to.kind == "run":
            return self.root + link(*to.target)
        return self.docs(to.target) if to.kind == "docs" else f"{self.root}meander/page/runbook#{to.target}"

    def run(self, run_id: str) -> str:
        """Return the address of a run of ours; empty when Airflow does not know it."""
        run = airflow_run(run_id)
        return self.root + link(*run) if run else ""

    def docs(self, address: str) -> str:
        """Return the address of data docs: below Airflow's own address when they are served here; empty for any other.

        A lake without a web server for its docs notes a path or a storage address, which no browser opens.
        """
        if address.startswith(f"{PREFIX}/"):
            return self.root + address.removeprefix("/")
        return address if address.startswith(("http://", "https://")) else ""


def page(template: str, depth: int = 2, **values: Any) -> HTMLResponse:
    """Fill a template."""
    return HTMLResponse(templates.get_template(template).render(to=Paths(depth), **values), headers=HEADERS)


def failure(request: Request, error: Exception) -> HTMLResponse:  # noqa: ARG001  FastAPI's signature
    """Show one of our own failures to whoever is allowed to see the page, and has to mend it."""
    text = templates.get_template("empty.html").render(text=f"The lake could not be read. {error}")
    return HTMLResponse(text, 503, headers=HEADERS)


def look_at_lake(cache: Cache, airflow: AirflowState) -> Lake:
    """Look at the lake now."""
    now = datetime.now(UTC)
    return Lake.look(cache, now, expected_day(now, airflow.scheduled))


@router.get("/")
def overview(airflow: AirflowDep, cache: CacheDep, until: Until = None) -> HTMLResponse:
    """Say what is wrong, what readers see and what is safe; then freshness, late data and the calendar."""
    lake = look_at_lake(cache, airflow)
    last = until or lake.last or lake.now.date()
    weeks = lake.weeks(last)
    return page(
        "overview.html",
        lake=lake,
        airflow=airflow,
        problems=problems(lake, airflow, newest_findings()),
        notes=notes(lake, airflow),
        readers=readers_see(lake),
        freshness=freshness(lake),
        look=worth_a_look(lake, LISTED),
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
    lake = look_at_lake(cache, airflow)
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
    """Show what a DAG run staged, what the audit said and what readers see of it: the tab *Lake* of the run."""
    lake = Lake.look(cache, datetime.now(UTC))
    return page("run.html", dag=dag, stagings=staged_by(lake, dag, run))


@router.get("/rows")
def rows(airflow: AirflowDep, cache: CacheDep, until: Until = None) -> HTMLResponse:
    """Draw what became of the input rows, and the rows of each table, day by day."""
    lake = look_at_lake(cache, airflow)
    last = until or lake.last
    if last is None:
        return page("empty.html", text="No day has been loaded yet.")
    days = days_between(last - timedelta(days=DAYS - 1), last)
    counts = landed_counts(lake)
    outcomes = ("events", "duplicates", "ignored", "quarantined")
    reasons = sorted({reason for day in days for reason in counts.get(day, {}).get("rejected", {})})
    charts = [
        (
            "Input rows of each landing day, by what became of them",
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


@router.get("/plan")
def plan(
    reason: str = "late-data",
    table: str = "events",
    first: Annotated[str, Query(alias="from")] = "",
    last: Annotated[str, Query(alias="to")] = "",
) -> HTMLResponse:
    """Say what has to be reprocessed for a reason, why, what it costs, and the commands; as `meander plan` does."""
    asked = {"reason": reason, "table": table, "first": first, "last": last}
    choices = {"reasons": REASONS, "tables": CODE}
    try:
        backfill = make(reason, *(date.fromisoformat(day) if day else None for day in (first, last)), table)
    except (MeanderError, ValueError) as error:
        return page("plan.html", **asked, **choices, refused=str(error).split(" [docs/")[0])
    todo, optional = (planning.steps(runs, backfill.costs) for runs in (backfill.runs, backfill.optional))
    why = {
        name: list(planning.merged(list(group))) for name, group in groupby(backfill.redo, lambda entry: entry.table)
    }
    return page(
        "plan.html",
        **asked,
        **choices,
        refused="",
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
    """Draw how interest flows between categories: as predicted on a day, and as it came."""
    known = flows.days_known()
    if not known:
        return page("empty.html", text="There are no predictions and no examples yet.")
    day = day or known[0]
    predicted, actual = flows.predicted(cache, day), flows.actual(cache, day)
    # The same categories in both, in the same order and colours, so that they can be compared.
    kept = drawing.greatest([*predicted, *actual])
    left = f"main interest on {day}"
    charts = [
        (what, drawing.sankey(moves, kept, left, right), flows.movers(moves)[:8])
        for what, moves, right in (
            ("Predicted", predicted, "next, expected users"),
            ("Actual", actual, "next, users"),
        )
        if moves
    ]
    return page("interest.html", day=day, known=known, charts=charts)


@router.get("/model")
def model(cache: CacheDep) -> HTMLResponse:
    """Show the champion, its worth against the baselines over time, and how its predictions drift."""
    judged = models.judged()
    if not judged:
        return page("empty.html", text="No model has been judged yet: model_weekly does that.")
    days = days_between(judged[0].day - timedelta(days=3), judged[-1].day + timedelta(days=3))
    methods = sorted(judged[-1].values, key=lambda name: (name != "model", -judged[-1].values[name]))
    # As many as there are colours; the best baselines are those that matter.
    best = methods[: drawing.COLOURS]
    series = {name: {one.day: one.values[name] for one in judged if name in one.values} for name in best}
    drift = flows.drift(cache)
    charts = []
    looked_at = watched()
    for metric in ("recall@5", "roc_auc churned"):
        came_true = outcomes(looked_at, metric)
        if came_true:
            known = sorted(day for values in came_true.values() for day in values)
            span = days_between(known[0] - timedelta(days=3), known[-1] + timedelta(days=3))
            title = f"Observed {metric} by prediction day, compared with the offline evaluation"
            charts.append((title, drawing.lines(span, came_true, top=1.0)))
    if drift:
        span = days_between(drift[0]["dt"], drift[-1]["dt"])
        means = {f"mean probability of {one.score}": {row["dt"]: row[one.score] for row in drift} for one in LABELS}
        charts.append(("Mean probabilities of each day's predictions", drawing.lines(span, means, top=1.0)))
        unseen = unseen_share(cache)
        charts.append(
            ("Share of events whose item the model does not know", drawing.lines(span, {"unseen events": unseen}))
        )
    return page(
        "model.html",
        champion=models.champion(),
        judged=list(reversed(judged))[:10],
        metric=models.METRIC[0],
        chart=drawing.lines(days, series, top=1.0)
        if len(judged) > 1
        else drawing.legend({name: f"{judged[0].values[name]:.3f}" for name in best}),
        drift=charts,
    )


def staged_by(lake: Lake, dag: str, run: str) -> list[tuple[Staging, list[Cell]]]:
    """Return what a DAG run staged, with what the page says now of each of its days."""
    return [
        (staging, [lake.cells[table][day] for day in staging.staged.owns])
        for table, stagings in lake.stagings.items()
        for staging in stagings
        if airflow_run(staging.staged.run_id) == (dag, run)
    ]


def unseen_share(cache: Cache) -> dict[date, float]:
    """Return for each predicted day the share of events whose item the model did not know, from the commits."""
    lake = Lake.look(cache, datetime.now(UTC))
    shares = {}
    for day, commit in lake.current["predictions"].items():
        if commit.counts.get("events"):
            shares[day] = commit.counts["unseen_events"] / commit.counts["events"]
    return shares


def landed_counts(lake: Lake) -> dict[date, dict[str, Any]]:
    """Return for each published landing day what became of its input rows."""
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
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))  # made by an escaping renderer


def anchor(heading: str) -> str:
    """Return the name of a heading as GitHub makes it.

    >>> anchor("A task stays *scheduled*"), anchor("`promote` was skipped")
    ('a-task-stays-scheduled', 'promote-was-skipped')
    """
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


@router.get("/static/{name}")
def static(name: str) -> FileResponse:
    """Return our style or script."""
    kinds = {"page.css": "text/css", "page.js": "text/javascript"}
    if name not in kinds:
        raise HTTPException(404, f"there is no {name}")
    return FileResponse(
        HERE / "static" / name, media_type=kinds[name], headers={**HEADERS, "Cache-Control": "no-cache"}
    )
