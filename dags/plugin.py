"""Meander's plugin for Airflow: pages in its web server, links to them, and the reference of the deadlines."""

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from dags import PREFIX
from dags.shared.deadlines import ScheduledDayEnd
from dags.shared.run_ids import of_dag


class MeanderPlugin(AirflowPlugin):
    """The plugin of the entry point `airflow.plugins`."""

    name = "meander"
    deadline_references: list[type] = [ScheduledDayEnd]  # noqa: RUF012  Airflow's declaration
    # Without a slash in front, an address is relative to Airflow's own, whatever its base path.
    external_views: list[dict[str, Any]] = [  # noqa: RUF012
        {
            "name": "Meander",
            "href": f"{PREFIX.strip('/')}/page/",
            "destination": "nav",
            "url_route": "meander",
            "nav_top_level": True,
        },
        {"name": "Data docs", "href": f"{PREFIX.strip('/')}/data-docs/", "destination": "nav", "category": "browse"},
        {
            "name": "Lake",
            "href": f"{PREFIX.strip('/')}/page/run?dag={{DAG_ID}}&run={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "lake",
        },
        # A tab of every DAG run: Airflow lets no task write a note on its run.
        {
            "name": "Model",
            "href": f"{PREFIX.strip('/')}/model/?run={of_dag('{DAG_ID}', '{RUN_ID}')}",
            "destination": "dag_run",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow only reads it
        """The pages, for the web server alone: every task loads this plugin, and with them would take 2 s more."""
        from dags.page.app import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Meander"}]
