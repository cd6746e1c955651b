"""A lake for the Meander page, written by the lake's own code: days as our DAGs leave them."""

from datetime import date, timedelta
from typing import Any

from lake.labels import PROBABILITIES
from lake.publish import publish
from lake.staging import Staged
from lake.table import Table
from tests.lake.stagings import stage_files
from tests.tables import of_dag

ONE_DAY = timedelta(days=1)
# Of these no test looks at the rows.
OTHERS = [name for name in of_dag("behavior_daily") if name not in ("quarantine", "events", "sessions", "interests")]


def run_of(day: date) -> str:
    """Return the run id that Airflow's schedule gives to the run of a day."""
    return f"scheduled__{day + ONE_DAY}T00:00:00+00:00"


def put(
    table: str,
    day: date,
    rows: list[dict[str, Any]],
    *,
    run: str = "",
    owns: list[date] | None = None,
    audited: str = "passed",
    visible: bool = True,
    basis: int = 1,
    counts: dict[str, Any] | None = None,
    inputs: dict[str, int] | None = None,
) -> Staged:
    """Stage rows of one day, leave a verdict, and publish them unless the audit failed or nobody went on to it."""
    run = run or run_of(day)
    made = {"counts": counts or {}, "inputs": inputs or {}}
    staged = stage_files(table, run, rows, owns or [day], basis, audited=audited, **made)
    if visible and audited in ("passed", "warned"):
        publish(table, run)
    return staged


def event(day: date, n: int, landed: date | None = None) -> dict[str, Any]:
    return {"event_id": f"{day}-{n}", "user_id": "ann", "behavior": "view", "dt": day, "landed": landed or day}


def put_events(day: date, *, events: int = 3, rejected: dict[str, int] | None = None, **how: Any) -> None:
    """Put events and quarantine of one landing day, of which one row was a duplicate."""
    rejected = rejected or {}
    outcome = {"input": events + 1 + sum(rejected.values()), "accepted": events + 1, "ignored": 0, "rejected": rejected}
    counts = {"accepted": events + 1, "ignored": 0, "by_day": {str(day): outcome}}
    rows = [
        {"reason": reason, "raw": "?", "file": "f", "source": "test", "dt": day}
        for reason, n in rejected.items()
        for _ in range(n)
    ]
    put("quarantine", day, rows, counts=counts, **how)
    put("events", day, [event(day, n) for n in range(events)], counts=counts, **how)


def put_day(day: date, **how: Any) -> None:
    """Put all that one run of `behavior_daily` publishes."""
    put_events(day, **how)
    version = Table("events").version
    known = {"basis": version, "inputs": {"events": version}}
    put("sessions", day, [{"session_id": str(day), "dt": day}], counts={"postponed": []}, **known)
    put("interests", day, [{"user_id": user, "dt": day} for user in ("ann", "bob")], **known)
    for table in OTHERS:
        put(table, day, [{"dt": day}], **known)


def prediction(user: str, current: str | None, next_ones: dict[str, float]) -> dict[str, Any]:
    return {
        "user_id": user,
        "model_version": 1,
        "current_category": current,
        "category_ids": list(next_ones),
        "category_probabilities": list(next_ones.values()),
        **dict.fromkeys(PROBABILITIES, 0.5),
        "purchase_probability": 0.25,
        "churn_probability": 0.1,
    }


def put_predictions(day: date, rows: list[dict[str, Any]], **how: Any) -> None:
    counts = {"model_version": 1, "as_of": str(day), "events": 100, "unseen_events": 7}
    run = f"predict_daily--{run_of(day)}"
    states = Table.find("interests")
    inputs = {"interests": states.version if states else 0}
    put("predictions", day, [{**row, "dt": day} for row in rows], run=run, counts=counts, inputs=inputs, **how)
