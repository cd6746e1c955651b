"""What Airflow loads of ours: pages in its web server, links to them, and our kind of deadline."""

from functools import cached_property
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from dags import PREFIX
from dags.shared.deadlines import ScheduledDayEnd
from dags.shared.run_ids import of_dag


class MeanderPlugin(AirflowPlugin):
    """What Airflow finds under the entry point `airflow.plugins`."""

    name = "meander"
    deadline_references: ClassVar[list[type]] = [ScheduledDayEnd]
    # Without a slash in front, an address is relative to Airflow's own, whatever its base path.
    external_views: ClassVar[list[dict[str, Any]]] = [
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
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The pages, for the web server alone: every task loads this plugin, and with them would take 2 s more."""
        from dags.page.app import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Meander"}]
