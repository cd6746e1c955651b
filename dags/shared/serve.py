"""The operators of the serving store: a check that a store is set, and a step of jobs.serve with its address."""

from typing import Any

from airflow.sdk import BaseOperator, Connection
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSkipException

from dags.shared.endings import checked_settings
from dags.shared.runs import ModelJob

CONNECTION = "meander_serving"
# Under Celery, of workers that alone have the password of the store; other executors have no queues.
QUEUE = "serve"


def store_url() -> str:
    """Return the address of the serving store, a secret: Airflow's connection, else our setting; empty if none."""
    own = checked_settings().serving_url
    try:
        uri = Connection.get(CONNECTION).get_uri()
    except AirflowNotFoundException:
        return own.get_secret_value()
    # Whatever type the connection has: without its provider, Airflow's form does not offer `postgres`.
    return f"postgresql://{uri.split('://', 1)[1]}"


class RequireStore(BaseOperator):
    """Skip the later tasks, with a reason, if no serving store is set: not every shop has applications to serve."""

    def __init__(self, **kwargs: Any):
        super().__init__(queue=QUEUE, **kwargs)

    def execute(self, context: Any) -> None:  # noqa: ARG002  Airflow's signature
        if not store_url():
            raise AirflowSkipException(
                f"no serving store is set; to have one, make the Airflow connection `{CONNECTION}`, or set "
                "MEANDER_SERVING_URL, see docs/serving.md"
            )


class ServeJob(ModelJob):
    """Run a step of jobs.serve; if the switch is not meant to happen, the task is *skipped*, with the reason."""

    def __init__(self, *, arguments: list[str], run: str, **kwargs: Any):
        super().__init__(module="jobs.serve", arguments=arguments, run=run, pool="default_pool", queue=QUEUE, **kwargs)

    def variables(self) -> dict[str, str]:
        """Return the address of the store as a variable: other users can read a command line, but no environment."""
        return {"MEANDER_SERVING_URL": store_url()}

    def execute(self, context: Any) -> dict[str, Any] | None:
        result = super().execute(context) or {}
        if result.get("outcome") == "kept":
            raise AirflowSkipException(result["why"])
        return result
