"""The sensors: wait until a day has landed, a table is published for it, or earlier days have published theirs."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSensorTimeout

from dags.shared.endings import checked_settings, skip_unless


class Wait(BaseSensorOperator):
    """A sensor whose timeout names the missing input and its section of the runbook."""

    # The table that is needed for the day; by it, dags.shared.alerts sends one alert for all tasks that wait for it.
    awaits = ""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            hours = timedelta(seconds=self.timeout) // timedelta(hours=1)
            raise AirflowSensorTimeout(f"waited for {hours} hours: {self.timeout_message()}") from error

    def timeout_message(self) -> str:
        """Return the missing input, with its section of the runbook."""
        raise NotImplementedError


class WaitForLanding(Wait):
    """Wait until the shop has delivered a day; skipped unless `wanted`."""

    template_fields = ("day", "wanted")
    awaits = "events"

    def __init__(self, *, day: str, wanted: str, **kwargs: Any):
        # `reschedule` frees the worker between two polls.
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=5), **kwargs)
        self.day = day
        self.wanted = wanted

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.landing import Landing

        skip_unless(self.wanted)
        return Landing.of(checked_settings()).has_landed(date.fromisoformat(self.day))

    def timeout_message(self) -> str:
        return f"{self.day} has not landed, or is incomplete [docs/runbook.md#landing-missing]"


class WaitForPublished(Wait):
    """Wait until a table's partition of a day is published: by date and not by asset, so that it can be backfilled."""

    template_fields = ("day",)

    def __init__(self, *, table: str, day: str, **kwargs: Any):
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=1), **kwargs)
        self.table = self.awaits = table
        self.day = day

    def timeout_message(self) -> str:
        return f"{self.table} of {self.day} are not published [docs/runbook.md#tables-late]"

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.table import Table

        # Or it would wait at another lake, without an end.
        checked_settings()
        published = Table.find(self.table)
        # Not the rows: a day without rows counts too, once a run has published it.
        return published is not None and published.basis(date.fromisoformat(self.day)) is not None


class WaitForEarlierDays(Wait):
    """Wait until no run in progress of an earlier day can still publish events.

    Interests at the end of a day include all events that arrived by then. It does not wait for a day whose run has
    failed, has not begun, or waits for its landing: that could take for ever, and the audit of `interests` warns of
    missing days.
    """

    # Airflow runs a few days in parallel; none of them is further apart than this.
    HORIZON = 31
    ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")

    template_fields = ("day",)

    def __init__(self, *, day: str, begins_with: str, publishes: str, **kwargs: Any):
        # Mostly it waits for nothing, or for seconds.
        super().__init__(mode="reschedule", poke_interval=timedelta(seconds=15), **kwargs)
        self.day = day
        self.begins_with = begins_with
        self.publishes = publishes

    def poke(self, context: Any) -> bool:
        midnight = datetime.combine(date.fromisoformat(self.day), time(), UTC)
        runs = context["ti"].get_task_states(
            dag_id=self.dag_id,
            task_ids=[self.begins_with, self.publishes],
            logical_dates=[midnight - timedelta(days=n) for n in range(1, self.HORIZON + 1)],
        )
        busy = [
            run_id
            for run_id, states in runs.items()
            # A day that has not landed blocks no other day: it may never land, and the audit warns of it.
            if states.get(self.begins_with) not in (None, "up_for_reschedule")
            and states.get(self.publishes) not in self.ENDED
        ]
        if busy:
            self.log.info("waiting for runs of earlier days: %s", ", ".join(sorted(busy)))
        return not busy

    def timeout_message(self) -> str:
        return "runs of earlier days are still in progress, the log names them [docs/runbook.md#tables-late]"
