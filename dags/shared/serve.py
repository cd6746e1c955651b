"""The operators of the serving store: whether there is one, and a step of jobs.serve with its address."""

from typing import Any

from airflow.sdk import BaseOperator, Connection
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowSkipException

from dags.shared.runs import ModelJob

CONNECTION = "meander_serving"


def store_url() -> str:
    """Return the address of the serving store, a secret: Airflow's connection, else our setting; empty if none."""
    from lake.settings import settings

    try:
        uri = Connection.get(CONNECTION).get_uri()
    except AirflowNotFoundException:
        return settings().serving_url.get_secret_value()
    # Whatever type the connection has: without its provider, Airflow's form does not offer `postgres`.
    return f"postgresql://{uri.split('://', 1)[1]}"


class RequireStore(BaseOperator):
    """Skip what follows, and say so, where there is no serving store: not everybody has applications to serve."""

    def execute(self, context: Any) -> None:  # noqa: ARG002  Airflow's signature
        if not store_url():
            raise AirflowSkipException(
                f"no serving store is set; to have one, make the Airflow connection `{CONNECTION}`, or set "
                "MEANDER_SERVING_URL, see docs/serving.md"
            )


class ServeJob(ModelJob):
    """Run a step of jobs.serve; a switch that is left out on purpose makes the task *skipped*, with the reason."""

    def __init__(self, *, arguments: list[str], run: str, **kwargs: Any):
        super().__init__(module="jobs.serve", arguments=arguments, run=run, pool="default_pool", **kwargs)

    def variables(self) -> dict[str, str]:
        """Return the address of the store: in the environment, which no other user can read, and not in the command."""
        return {"MEANDER_SERVING_URL": store_url()}

    def execute(self, context: Any) -> dict[str, Any] | None:
        done = super().execute(context) or {}
        if done.get("outcome") == "kept":
            raise AirflowSkipException(done["why"])
        return done
