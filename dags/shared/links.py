"""The buttons on a task that open the results of its run: data docs, the report of an evaluation, runs in MLflow."""

from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf


def below_base(address: str) -> str:
    """Return the address of a page of Meander for a browser: Airflow may itself be below a path of its server.

    >>> below_base("https://docs.example.org/x.html"), below_base("")
    ('https://docs.example.org/x.html', '')
    """
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return base + address if address.startswith("/") else address


class DataDocs(BaseOperatorLink):
    """The button on a task that opens the data docs of one table that its run staged."""

    def __init__(self, table: str):
        self.table = table

    @property
    def name(self) -> str:
        return f"Data docs: {self.table}"

    @property
    def xcom_key(self) -> str:
        return f"data_docs_{self.table}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address that the audit recorded; Airflow calls this on the worker, when the task has ended."""
        from lake.staging import read_verdict

        verdict = read_verdict(self.table, operator.run)
        return below_base(verdict.docs) if verdict else ""


class EvaluationReport(BaseOperatorLink):
    """The button on a task that opens the evaluation report of its run's model."""

    name = "Evaluation report"
    xcom_key = "evaluation_report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address at which dags/page/app.py shows the report, once there is one."""
        from dags.shared.evaluation import Evaluation

        return below_base(Evaluation.of(operator.run).report_link)


class MlflowRuns(BaseOperatorLink):
    """The button on a task that opens its run in MLflow: parameters, curves, table versions, plots."""

    name = "MLflow"
    xcom_key = "mlflow"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002  Airflow's signature
        """Return the address in MLflow's UI, once there is an evaluation; a request to MLflow takes seconds."""
        from dags.shared.evaluation import Evaluation, mlflow_link

        return mlflow_link(operator.run) if Evaluation.of(operator.run).decision else ""
