"""Meander's part of Airflow's web server: the page, data docs, evaluations, gate decisions.

It is for users who may see the runs of `behavior_daily`.
"""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import HTMLResponse

from dags.page.cache import Cache
from dags.page.views import failure, may_see, router, templates
from dags.shared.evaluation import Evaluation, verdict
from lake import storage
from lake.errors import MeanderError
from lake.settings import known_settings

# Pages of data docs that are listed, the newest.
MAX_PAGES = 200


def headers(policy: str) -> dict[str, str]:
    """Return the headers of a page that loads no second file, from here or from anywhere else."""
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; {policy}",
        "X-Content-Type-Options": "nosniff",
    }


# These pages quote rows of the log, which anyone may have written, and earlier versions of Meander have written some of
# them. In a sandbox without `allow-same-origin`, a script that hides in one has no access to Airflow. Data docs have no
# script; the report of an evaluation draws its plots.
DOCS_HEADERS = headers("sandbox")
REPORT_HEADERS = headers("script-src 'unsafe-inline'; img-src data: blob:; sandbox allow-scripts allow-popups")
# Pages that this module writes contain no script, and nothing that is not escaped. Airflow shows them in a frame, and
# from a page without an origin, the browser would follow their links without the login.
OWN_HEADERS = headers("sandbox allow-same-origin allow-popups")

# One path segment that is no way out of the folder: no slash, no leading dot.
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]

# Airflow mounts this without any protection of its own: every route depends on the right to see the runs.
app = FastAPI(title="Meander", dependencies=[Depends(may_see)], openapi_url=None)
app.state.cache = Cache()
app.include_router(router)
app.add_exception_handler(MeanderError, failure)


def own_page(template: str, **values: Any) -> HTMLResponse:
    """Fill a template of a page that holds no script."""
    return HTMLResponse(templates.get_template(template).render(**values), headers=OWN_HEADERS)


@app.get("/data-docs/", response_class=HTMLResponse)
def index() -> HTMLResponse:
    """List the newest pages."""
    fs, folder = storage.filesystem(known_settings().docs_folder)
    files = fs.find(folder, detail=True) if fs.exists(folder) else {}
    newest = sorted(files.items(), key=lambda item: str(item[1].get("mtime", "")), reverse=True)[:MAX_PAGES]
    return own_page("data_docs.html", pages=["/".join(path.rsplit("/", 2)[1:]) for path, _ in newest])


@app.get("/data-docs/{run}/{page}", response_class=HTMLResponse)
def data_docs(run: Name, page: Name) -> HTMLResponse:
    """Return the page of one audit."""
    fs, path = storage.filesystem(storage.join(known_settings().docs_folder, run, page))
    if not page.endswith(".html") or not fs.isfile(path):
        raise HTTPException(404, f"there are no data docs {run}/{page}; they may have been removed with their run")
    return HTMLResponse(fs.cat_file(path), headers=DOCS_HEADERS)


@app.get("/models/{run}/evaluation/report.html", response_class=HTMLResponse)
def report(run: Name) -> HTMLResponse:
    """Return the evaluation report of one run of model_weekly."""
    fs, path = storage.filesystem(Evaluation(run).report)
    if not fs.isfile(path):
        raise HTTPException(404, f"there is no evaluation of {run}; it may have been removed with its run")
    return HTMLResponse(fs.cat_file(path), headers=REPORT_HEADERS)


@app.get("/model/", response_class=HTMLResponse)
def model(run: str) -> HTMLResponse:
    """Show the gate's decision on the model of a DAG run, and its reasons: the tab *Model* of the run."""
    evaluation = Evaluation.of(run)
    decision = evaluation.decision
    return own_page(
        "gate.html",
        decision=decision,
        verdict=verdict(decision) if decision else "",
        slug=evaluation.slug,
        headings=[heading for heading, *_ in evaluation.columns],
        rows=evaluation.rows(),
        not_judged=evaluation.not_judged,
    )
