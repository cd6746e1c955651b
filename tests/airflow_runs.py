"""What became of runs of a DAG, as Airflow's API tells."""

from collections.abc import Callable
from typing import Any

from dags.local.standalone import LocalAirflow
from tests.waiting import until


def done(run: dict[str, Any]) -> bool:
    """Tell whether a run has ended."""
    return run["state"] in ("success", "failed")


def ended(
    airflow: LocalAirflow, dag_id: str, over: Callable[[dict[str, Any]], bool] = done, days: tuple[str, str] = ("", "~")
) -> list[dict[str, Any]]:
    """Wait until all runs of a DAG are over, and return them by the day they process.

    To look more often would take as much of Airflow's web server as the tasks themselves do.

    Args:
        airflow: where they run.
        dag_id: the DAG, of which there has to be a run.
        over: tells whether a run is.
        days: only runs whose interval begins between these two, both included.
    """

    def runs() -> list[dict[str, Any]]:
        return [run for run in airflow.runs(dag_id) if days[0] <= (run["data_interval_start"] or "")[:10] <= days[1]]

    def all_over() -> list[dict[str, Any]]:
        found = runs()
        return found if all(map(over, found)) else []

    return until(
        lambda: str([(run["dag_run_id"], run["state"]) for run in runs()]),
        all_over,
        every=3,
        moves=lambda: [states(airflow, run) for run in runs()],
    )


def states(airflow: LocalAirflow, run: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return {task: (state, tries)} of a run."""
    found = airflow.tasks(run["dag_id"], run["dag_run_id"])
    return {task["task_id"]: (task["state"], task["try_number"]) for task in found}
