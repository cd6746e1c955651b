"""The state of the lake in words: the problems now, the rows that readers see meanwhile, and the safe repairs.

For an on-call engineer at night: the worst first, one entry for one cause, each with its section of docs/runbook.md.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from dags.page.airflow_state import PREDICT, AirflowState, FailedRun
from dags.page.state import FOR_READERS, NOT_AUDITED, NOT_LANDED, SHOWN, Cell, LakeSnapshot
from dags.page.words import counted, how_to_repair, tables_in_words, what_readers_see
from dags.shared.run_ids import DAILY, HISTORY, airflow_run
from lake.days import days_in_words
from lake.settings import known_settings
from lake.tables import TABLES, made_in

# Longer than any stage or audit takes: a run without Airflow that began earlier has stopped.
STOPPED_AFTER = timedelta(hours=6)
# An older warning has been seen by somebody, or by nobody who cares.
LATELY = timedelta(days=28)
# Days or manifests that one problem names.
MAX_NAMED = 10

SECTION_OF_TASK = (
    ("wait_for_landing", "landing-missing"),
    ("wait_for", "table-missing"),
    ("audit", "audit-failed"),
    ("all_days", "audit-failed"),
    ("publish", "publish-refused"),
)


@dataclass(frozen=True)
class Link:
    """A link of a problem: to a run or task in Airflow, data docs, or a section of the runbook.

    Attributes:
        kind: `run`, `docs` or `runbook`: the kind of `target`.
        target: (DAG, run id, task or None) of a run; the address of data docs; the name of a section.
    """

    kind: str
    words: str
    target: tuple[str, str, tuple[str, int] | None] | str


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        what: the event, and its days.
        why: the reasons that the audit gave, a line each.
        readers: the rows that readers see meanwhile.
        safe: the safe repair.
    """

    what: str
    why: tuple[str, ...]
    readers: str
    safe: str
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Freshness:
    """The freshness of a table.

    Attributes:
        day: its newest published day; None when it has none.
        published: the time of that publish.
        days_late: days behind the expected day; None where no day is expected.
    """

    table: str
    day: date | None
    published: datetime | None
    days_late: int | None


def expected_day(now: datetime, scheduled: bool) -> date | None:
    """Return the newest day whose tables should be published by now; None when no schedule runs.

    >>> from datetime import UTC
    >>> str(expected_day(datetime(2025, 3, 2, 7, tzinfo=UTC), scheduled=True))
    '2025-03-01'
    >>> str(expected_day(datetime(2025, 3, 2, 5, tzinfo=UTC), scheduled=True))
    '2025-02-28'
    """
    if not scheduled:
        return None
    return (now - timedelta(hours=known_settings().expected_hours)).date() - timedelta(days=1)


def freshness(lake: LakeSnapshot) -> list[Freshness]:
    """Return one entry for each table that belongs to every day."""
    tables = []
    for table in SHOWN:
        if table == "examples":  # computed weekly, once the horizon has ended
            continue
        newest = max(lake.current[table], default=None)
        # A table that was never published is not late: there may be no model yet.
        late = max(0, (lake.expected - newest).days) if lake.expected and newest else None
        tables.append(Freshness(table, newest, lake.current[table][newest].published if newest else None, late))
    return tables


def readers_see(lake: LakeSnapshot) -> str:
    """Return a sentence with the newest day of each table."""
    parts = []
    for fresh in freshness(lake):
        if fresh.day and fresh.table in FOR_READERS:
            version = lake.current[fresh.table][fresh.day].counts.get("model_version")
            by = f" by version {version} of the model" if version else ""
            parts.append(f"{fresh.table} up to {fresh.day}{by}")
    if not parts:
        return "Readers see nothing yet: no table has been published."
    return f"Readers see {', '.join(parts)}: complete, audited days only."


def problems(lake: LakeSnapshot, airflow: AirflowState, findings: Sequence[Mapping[str, Any]] = ()) -> list[Problem]:
    """Return the problems, the worst first.

    Args:
        lake: the tables.
        airflow: the runs.
        findings: the findings of monitor_daily that need attention.
    """
    cells = [cell for days in lake.cells.values() for cell in days.values()]
    entries = _failed(cells)
    entries += _unfinished(cells, lake, airflow)
    entries += _failed_runs(lake, airflow)
    entries += _not_landed(cells)
    entries += _not_loaded(cells, lake, airflow)
    entries += _changed(lake)
    entries += _unreadable(lake)
    if lake.late:
        entries.append(_late(lake))
    return entries + [_finding(finding) for finding in findings]


def notes(lake: LakeSnapshot, airflow: AirflowState) -> list[str]:
    """Return sentences about the state of the lake and Airflow that are no problems."""
    lines = []
    if not airflow.scheduled:
        lines.append("No day runs by schedule: the schedule is off or behavior_daily is paused.")
    if airflow.busy:
        lines.append(f"{counted(len(airflow.busy), 'run')} in progress or queued.")
    waiting = _waiting(lake)
    if waiting and not airflow.scheduled:
        days = days_in_words(waiting)
        lines.append(f"Landed, but not loaded yet: {days}. To load them, backfill behavior_daily.")
    # What is made from other tables is overtaken whenever days run at once: that is said with the day alone.
    for table in (name for name in SHOWN if lake.refused[name] and not TABLES[name].reads):
        days = days_in_words(lake.refused[table])
        lines.append(f"Rows of {table} for {days} were refused: readers see those of a run that began later.")
    gone = [day for day, difference in lake.changed.items() if not difference.has_more]
    if gone:
        days = days_in_words(gone)
        lines.append(f"Files that were read for {days} are gone from the landing; readers keep their rows.")
    for table, warned in warned_lately(lake).items():
        lines.append(f"The audit warned of {table} of {days_in_words(warned)}; readers see the rows.")
    if lake.landed is None:
        lines.append("The landing cannot be read from here, so the page cannot tell whether a missing day has landed.")
    return lines


def warned_lately(lake: LakeSnapshot) -> dict[str, list[date]]:
    """Return, by table, the days among the last of the lake whose rows readers see and the audit has warned of."""
    since = (lake.last or date.max) - LATELY
    warned = {
        table: [day for day, cell in days.items() if cell.state == "warned" and day > since]
        for table, days in lake.cells.items()
    }
    return {table: days for table, days in warned.items() if days}


def cells_needing_attention(lake: LakeSnapshot, limit: int) -> list[list[Cell]]:
    """Return the cells that need attention, those of one run, table and state together, the newest first."""
    alike: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for table, days in lake.cells.items():
        for cell in days.values():
            if cell.state != "published":
                alike[(table, cell.state, cell.run_id, *cell.reasons)].append(cell)
    groups = [sorted(cells, key=lambda cell: cell.day, reverse=True) for cells in alike.values()]
    return sorted(groups, key=lambda cells: (-cells[0].day.toordinal(), SHOWN.index(cells[0].table)))[:limit]


# ---- one function for each kind of problem ----


def _failed(cells: list[Cell]) -> list[Problem]:
    entries = []
    for run_id, broken in _by_run(cells, "failed"):
        entries.append(
            Problem(
                what=f"{tables_in_words(broken)} of {days_in_words(cell.day for cell in broken)} failed the audit",
                why=tuple(dict.fromkeys(reason for cell in broken for reason in cell.reasons)),
                readers=what_readers_see(broken),
                safe=how_to_repair(broken),
                links=(*_run_link(run_id), *_docs_links(broken), Link("runbook", "audit-failed", "audit-failed")),
            )
        )
    return entries


def _unfinished(cells: list[Cell], lake: LakeSnapshot, airflow: AirflowState) -> list[Problem]:
    entries = []
    for run_id, unfinished in _by_run(cells, "unfinished"):
        run = airflow_run(run_id)
        began = max(
            datetime.fromisoformat(s.staged.started)
            for table in {cell.table for cell in unfinished}
            for s in lake.stagings[table]
            if s.staged.run_id == run_id
        )
        # Without Airflow nobody can say whether a process lives: believe it for a while.
        # A clock that was far ahead says nothing about it.
        if run in airflow.busy or (run is None and abs(lake.now - began) < STOPPED_AFTER):
            continue
        group = TABLES[unfinished[0].table].group
        task = f"{group}.{'audit' if unfinished[0].reasons == (NOT_AUDITED,) else 'publish'}"
        what = f"{unfinished[0].reasons[0]}, and the run is not in progress"
        entries.append(
            Problem(
                what=f"{tables_in_words(unfinished)} of {days_in_words(cell.day for cell in unfinished)}: {what}",
                why=(),
                readers=what_readers_see(unfinished),
                safe=f"Clear {task} of that run with downstream. Publishing twice changes nothing.",
                links=(*_run_link(run_id), Link("runbook", "publish-refused", "publish-refused")),
            )
        )
    return entries


def _failed_runs(lake: LakeSnapshot, airflow: AirflowState) -> list[Problem]:
    reported = {
        airflow_run(cell.run_id) for days in lake.cells.values() for cell in days.values() if cell.state == "failed"
    }
    return [
        _failed_run(run)
        for run in sorted(airflow.failed, key=lambda run: run.ended, reverse=True)
        if (run.dag_id, run.run_id) not in reported and not _repaired(run, lake)
    ]


def _repaired(run: FailedRun, lake: LakeSnapshot) -> bool:
    """Return whether another run has published the day since."""
    tables = made_in(run.dag_id) if run.dag_id in (DAILY, PREDICT) else ()
    publishes = [lake.current[table].get(run.day) for table in tables] if run.day else []
    return bool(publishes) and all(commit and commit.published > run.ended for commit in publishes)


def _failed_run(run: FailedRun) -> Problem:
    section = next((code for task, _ in run.tasks for part, code in SECTION_OF_TASK if part in task), "")
    links = [Link("run", f"log of {task}", (run.dag_id, run.run_id, (task, index))) for task, index in run.tasks[:3]]
    links.append(Link("run", "the run", (run.dag_id, run.run_id, None)))
    links.append(Link("runbook", section or "where to begin", section))
    day = f" of {run.day}" if run.day else ""
    # A person can mark a run as failed while none of its tasks has failed.
    tasks = f" in {', '.join(task for task, _ in run.tasks)}" if run.tasks else ""
    return Problem(
        what=f"{run.dag_id}{day} failed{tasks}",
        why=(),
        readers="The rows that are published, also by this run: a publish that withheld days has published the others.",
        safe="Read the end of the task's log: its last line names a section of the runbook. Then clear the task "
        "with downstream.",
        links=tuple(links),
    )


def _not_landed(cells: list[Cell]) -> list[Problem]:
    days = [cell.day for cell in cells if cell.table == "events" and cell.reasons == (NOT_LANDED,)]
    if not days:
        return []
    return [
        Problem(
            what=f"not landed: {days_in_words(days)}",
            why=(),
            readers="No rows for these days; other days are not affected.",
            safe="Ask the shop for the files; once they land, the waiting run continues by itself, or clear "
            "wait_for_landing with downstream. If there was nothing that day, make an empty folder for it.",
            links=(Link("runbook", "landing-missing", "landing-missing"),),
        )
    ]


def _waiting(lake: LakeSnapshot) -> set[date]:
    """Return the landed days without a run that are newer than all loaded days."""
    events = lake.cells["events"]
    touched = [day for day, cell in events.items() if cell.state != "missing"]
    return {day for day, cell in events.items() if cell.state == "missing" and day > max(touched)} & (
        lake.landed or frozenset()
    )


def _not_loaded(cells: list[Cell], lake: LakeSnapshot, airflow: AirflowState) -> list[Problem]:
    if any(dag_id == HISTORY for dag_id, _ in airflow.busy):
        return []  # it publishes ranges; the days that it does not load are reported when it has ended
    # No problem: days whose run is in progress, and, where no schedule runs, newer days that wait for a person.
    excluded = {day for (dag_id, _), day in airflow.busy.items() if dag_id in (DAILY, PREDICT)}
    if not airflow.scheduled:
        excluded |= _waiting(lake)
    loaded = set(lake.current["events"])
    entries = []
    for group in FOR_READERS:
        missing = {c.day for c in cells if c.table == group and c.state == "missing" and c.reasons != (NOT_LANDED,)}
        days = {day for day in missing - excluded if lake.expected is None or day <= lake.expected}
        if group != "events":
            days &= loaded  # for a day without events, only `events` are reported
        if days:
            entries.append(
                Problem(
                    what=f"{group} for {days_in_words(days)} are missing: their input "
                    f"{'has landed' if group == 'events' else 'is published'}, but no run has produced them",
                    why=(),
                    readers=f"No rows of {group} for these days; other days are not affected.",
                    safe=f"Run {TABLES[group].made_in} for the day (Airflow's backfill), or clear its run. "
                    "Days may run in any order.",
                    links=(Link("runbook", "a daily run waits", "a-daily-run-waits-and-waits"),),
                )
            )
    return entries


def _changed(lake: LakeSnapshot) -> list[Problem]:
    more = {day: difference for day, difference in lake.changed.items() if difference.has_more}
    if not more:
        return []
    return [
        Problem(
            what=f"the landing of {days_in_words(more)} has files that no run has read",
            why=tuple(f"{day}: {difference}" for day, difference in list(more.items())[-MAX_NAMED:]),
            readers="The rows that were read when the day was loaded.",
            safe="Run the `late-data` commands from the plan below: they load the days again.",
            links=(Link("runbook", "landing-changed", "landing-changed"),),
        )
    ]


def _unreadable(lake: LakeSnapshot) -> list[Problem]:
    if not lake.unreadable:
        return []
    return [
        Problem(
            what=f"{counted(len(lake.unreadable), 'manifest')} of runs cannot be read: damaged, or written by a newer "
            "version of Meander",
            why=tuple(lake.unreadable[:MAX_NAMED]),
            readers="The published rows. Of these stagings nothing can be audited or published.",
            safe="Clear the stage task of these runs with downstream, or update this Meander.",
            links=(Link("runbook", "not-staged", "not-staged"),),
        )
    ]


def _late(lake: LakeSnapshot) -> Problem:
    oldest = min(late.landed[0] for late in lake.late)
    # The plan below shows those of which the landing day was loaded since; this one shows all.
    plan = "the plan below" if oldest >= lake.first else f"`meander plan --reason late-data --from {oldest}`"
    return Problem(
        what=f"sessions of {days_in_words(late.day for late in lake.late)} do not include late events",
        why=(),
        readers="`events` includes the late events; `sessions` of those days does not yet.",
        safe=f"Run the `late-data` commands from {plan}. It can wait until the morning.",
        links=(Link("runbook", "late-data", "late-data"),),
    )


def _finding(finding: Mapping[str, Any]) -> Problem:
    return Problem(
        what=f"{finding['kind']}: {finding['why']}",
        why=(),
        readers="The published rows; nothing was taken back.",
        safe="It can wait until the morning. The runbook lists possible causes.",
        links=(Link("runbook", finding["section"], finding["section"]),),
    )


# ---- runs and links ----


def _by_run(cells: list[Cell], state: str) -> list[tuple[str, list[Cell]]]:
    """Return the cells in a state by run, the run with the newest day first."""
    by_run: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.state == state:
            by_run[cell.run_id].append(cell)
    return sorted(by_run.items(), key=lambda entry: max(cell.day for cell in entry[1]), reverse=True)


def _run_link(run_id: str) -> tuple[Link, ...]:
    run = airflow_run(run_id)
    return (Link("run", "the run", (*run, None)),) if run else ()


def _docs_links(cells: list[Cell]) -> tuple[Link, ...]:
    docs = {cell.table: cell.docs for cell in cells if cell.docs}
    return tuple(Link("docs", f"data docs: {table}", address) for table, address in docs.items())
