"""Airflow's web server also shows the data docs: every audit's page, to whoever is logged in to Airflow."""

from html import escape
from typing import Annotated, Any, ClassVar

from airflow.api_fastapi.core_api.security import requires_authenticated
from airflow.plugins_manager import AirflowPlugin
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse

from lake import storage
from lake.settings import settings

PREFIX = "/meander"
NEWEST = 200

# Pages quote rows of the log, which anyone may have written. In a sandbox without `allow-same-origin`, a
# script that hides in one has no access to Airflow. No page needs a second file of ours.
HEADERS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups",
    "X-Content-Type-Options": "nosniff",
}

# One path segment that is no way out of the folder: no slash, no leading dot.
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]

# Airflow mounts this without any protection of its own: every route depends on a login.
app = FastAPI(title="Meander", dependencies=[Depends(requires_authenticated())], openapi_url=None)


@app.get("/data-docs/", response_class=HTMLResponse)
def index() -> HTMLResponse:
    """List the newest pages."""
    fs, folder = storage.filesystem(settings().docs_folder)
    found = fs.find(folder, detail=True) if fs.exists(folder) else {}
    newest = sorted(found.items(), key=lambda item: str(item[1].get("mtime", "")), reverse=True)[:NEWEST]
    pages = ["/".join(path.rsplit("/", 2)[1:]) for path, _ in newest]
    items = "".join(f'<li><a href="{escape(page)}">{escape(page.removesuffix(".html"))}</a></li>' for page in pages)
    return HTMLResponse(f"<title>Data docs</title><h1>Data docs</h1><ul>{items}</ul>", headers=HEADERS)


@app.get("/data-docs/{run}/{page}", response_class=HTMLResponse)
def data_docs(run: Name, page: Name) -> HTMLResponse:
    """Return the page of one audit."""
    fs, path = storage.filesystem(storage.join(settings().docs_folder, run, page))
    if not page.endswith(".html") or not fs.isfile(path):
        raise HTTPException(404, f"there are no data docs {run}/{page}; they may have been removed with their run")
    return HTMLResponse(fs.cat_file(path), headers=HEADERS)


class MeanderPlugin(AirflowPlugin):
    """What Airflow finds under the entry point `airflow.plugins`."""

    name = "meander"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [{"app": app, "url_prefix": PREFIX, "name": "Meander"}]
    external_views: ClassVar[list[dict[str, Any]]] = [
        {"name": "Data docs", "href": f"{PREFIX}/data-docs/", "destination": "nav", "category": "browse"}
    ]
