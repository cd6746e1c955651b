"""The sensors: wait until a day has landed, a table of it is published, or earlier days have published theirs."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSensorTimeout

from dags.shared.endings import skip_unless


class Wait(BaseSensorOperator):
    """A sensor that says what it has waited for, and where to read on, when its time is over."""

    # The table that has to hold the day first; dags.shared.alerts tells once what several tasks have waited for.
    awaits = ""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            hours = timedelta(seconds=self.timeout) // timedelta(hours=1)
            raise AirflowSensorTimeout(f"waited for {hours} hours: {self.lacks()}") from error

    def lacks(self) -> str:
        """Return what did not come, with its section of the runbook."""
        raise NotImplementedError


class WaitForLanding(Wait):
    """Wait until the shop has delivered a day; skipped when the run is not to read it."""

    template_fields = ("day", "wanted")
    awaits = "events"

    def __init__(self, *, day: str, wanted: str, **kwargs: Any):
        # `reschedule` gives the worker back between two looks.
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=5), **kwargs)
        self.day = day
        self.wanted = wanted

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.landing import Landing
        from lake.settings import settings

        skip_unless(self.wanted)
        return Landing.of(settings()).has_landed(date.fromisoformat(self.day))

    def lacks(self) -> str:
        return f"{self.day} has not landed, or not wholly [docs/runbook.md#landing-missing]"


class WaitForPublished(Wait):
    """Wait until a table's partition of a day is published: by time and not by asset, so that it can be backfilled."""

    template_fields = ("day",)

    def __init__(self, *, table: str, day: str, **kwargs: Any):
        super().__init__(mode="reschedule", poke_interval=timedelta(minutes=1), **kwargs)
        self.table = self.awaits = table
        self.day = day

    def lacks(self) -> str:
        return f"{self.table} of {self.day} are not published [docs/runbook.md#tables-late]"

    def poke(self, context: Any) -> bool:  # noqa: ARG002  Airflow's signature
        from lake.table import Table

        published = Table.find(self.table)
        # Not the rows: a day without any counts as well, once a run has published that.
        return published is not None and published.basis(date.fromisoformat(self.day)) is not None


class WaitForEarlierDays(Wait):
    """Wait until no earlier day, of those that Airflow is working on, can still publish events.

    The state at the end of a day counts everything that had landed by then. A day whose run has failed, has
    not begun or still lacks its landing is not waited for: that could take for ever, and the audit of `interests` warns
    of missing days.
    """

    # Airflow works on a few days at once; none of them is further apart than this.
    HORIZON = 31
    ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")

    template_fields = ("day",)

    def __init__(self, *, day: str, begins_with: str, publishes: str, **kwargs: Any):
        # Mostly there is nothing to wait for, or seconds.
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
            # A day that has not landed yet keeps nobody waiting: it may never come, and the audit warns of it.
            if states.get(self.begins_with) not in (None, "up_for_reschedule")
            and states.get(self.publishes) not in self.ENDED
        ]
        if busy:
            self.log.info("waiting for %s", ", ".join(sorted(busy)))
        return not busy

    def lacks(self) -> str:
        return "earlier days are still at work, the log says which [docs/runbook.md#tables-late]"
