"""The paths of everything below the lake: each one is spelled here, and nowhere else.

<lake>/<table>/stage=<id>/    staged files of a table, see lake/staging.py
<lake>/audits/                the history of audits, see lake/audits.py
<lake>/_order/                the numbers of stagings, see lake/order.py
<lake>/_summaries/<kind>/     what was computed from blocks of landing days, see lake/summaries.py
<lake>/_runs/<run>/           manifests and verdicts of a run, and the landing files that it read
<lake>/_models/<run>/         all files of a training, see model/training/plan.py
<lake>/_mlflow/               the files of MLflow's runs and of registered versions, see model/versions/registry.py
<lake>/_monitor/              findings about each day, see model/monitor.py
<lake>/_alerts/               alerts that were sent or wait, see dags/shared/alerts.py
<lake>/_doctor/               the file by which `meander doctor` tests the lake
<lake>/_forgotten/            the list of forgotten users, see lake/privacy/forgotten.py
<lake>/_receipts/             what was done to forget them, see lake/privacy/forget.py

Data docs are in the folder `docs_folder` of the settings, which may be outside the lake. A run may be given by its id
or by its name in paths.

The address of the lake is read here, at each call, and not passed: it is to a process what its working directory is.
"""

import hashlib
import re
from datetime import date

from lake.settings import known_settings
from lake.storage import join

LONGEST_RUN_NAME = 200
PLAN, CARD = "plan.json", "card.json"


def below_lake(*parts: str) -> str:
    """Return a path in the lake."""
    return join(known_settings().lake, *parts)


# ---- tables ----


def table_path(table: str) -> str:
    """Return the folder or address of a table: any Delta reader can open it."""
    return below_lake(table)


def staged_folder(table: str, stage_id: str) -> str:
    """Return the folder of the files of one staging."""
    return join(table_path(table), f"stage={stage_id}")


def audits_path() -> str:
    """Return the folder or address of the history of audits."""
    return below_lake("audits")


def order_path() -> str:
    """Return the folder or address of the table in whose log the numbers of stagings are counted."""
    return below_lake("_order")


def summaries_folder(kind: str) -> str:
    """Return the folder of the summaries of one kind."""
    return below_lake("_summaries", kind)


# ---- runs ----


def run_name(run_id: str) -> str:
    """Return the name of a run in paths: one folder, whatever the id; Airflow's hold characters that no path should.

    >>> run_name("manual__2017-01-01"), run_name("a:b"), run_name(run_name("a:b")), run_name("..")
    ('manual__2017-01-01', 'a-b-6783a31e', 'a-b-6783a31e', '..-5ec1f7e7')
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "-", run_id)
    # Dots alone are the folder itself or the one above it, and file systems limit names to 255 bytes.
    if name == run_id and name.strip(".") and len(name) <= LONGEST_RUN_NAME:
        return name
    code = hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: LONGEST_RUN_NAME - 9]}-{code}"


def runs_folder() -> str:
    """Return the folder with a folder for each run."""
    return below_lake("_runs")


def run_folder(run_id: str) -> str:
    """Return the folder of a run's manifests and verdicts."""
    return join(runs_folder(), run_name(run_id))


def manifest_file(folder: str, table: str, stage_id: str) -> str:
    """Return the file that describes one staging for a table, in the folder of its run."""
    return join(folder, f"{table}.{stage_id}.json")


def is_manifest(name: str, table: str) -> bool:
    """Tell whether a file in the folder of a run describes a staging for a table.

    >>> [is_manifest(name, "events") for name in ("events.7-ab.json", "events.7-ab.audit.json", "sessions.7-ab.json")]
    [True, False, False]
    """
    # Before stagings were numbered, a run had one manifest for each table, events.json.
    return name.startswith(f"{table}.") and name.endswith(".json") and not name.endswith(".audit.json")


def verdict_beside(manifest: str) -> str:
    """Return the file that says what the audit found of the staging that a manifest describes."""
    return manifest.removesuffix(".json") + ".audit.json"


def deliveries_file(run_id: str, order: int) -> str:
    """Return the file that lists the landing files that the stagings of a number have read, beside their manifests."""
    return join(run_folder(run_id), f"landing.{order}.json")


def is_landing_list(name: str) -> bool:
    """Return whether a file in the folder of a run lists landing files; such a list can be long."""
    return name.startswith("landing.") and name.endswith(".json")


def docs_page(run_id: str, table: str) -> str:
    """Return the path of the data docs of an audit below the folder, or the address, of all of them."""
    return join(run_name(run_id), f"{table}.html")


# ---- models ----


def models_folder() -> str:
    """Return the folder with a folder for each training."""
    return below_lake("_models")


def model_folder(run_id: str) -> str:
    """Return the folder of all files of one training."""
    return join(models_folder(), run_name(run_id))


def plan_file(run_id: str) -> str:
    """Return the plan of a training: its tables, versions and dates."""
    return join(model_folder(run_id), PLAN)


def vocabulary_folder(run_id: str) -> str:
    """Return the folder of the vocabularies of a training."""
    return join(model_folder(run_id), "vocabulary")


def network_folder(run_id: str, name: str) -> str:
    """Return the folder of a network of a training: pretrained, finetuned, scratch, lora or candidate."""
    return join(model_folder(run_id), name)


def card_file(folder: str) -> str:
    """Return the file that describes the network in a folder."""
    return join(folder, CARD)


def checkpoints_folder(run_id: str, name: str) -> str:
    """Return the folder of the checkpoints of a training."""
    return join(model_folder(run_id), "checkpoints", name)


def evaluation_folder(run_id: str) -> str:
    """Return the folder of the evaluation of a training's model."""
    return join(model_folder(run_id), "evaluation")


def metrics_file(run_id: str) -> str:
    """Return the file of the numbers of all methods."""
    return join(evaluation_folder(run_id), "metrics.json")


def differences_file(run_id: str) -> str:
    """Return the file of the differences between two methods."""
    return join(evaluation_folder(run_id), "differences.json")


def decision_file(run_id: str) -> str:
    """Return the decision of the gate."""
    return join(evaluation_folder(run_id), "decision.json")


def report_file(run_id: str) -> str:
    """Return the report of the evaluation, a page for people."""
    return join(evaluation_folder(run_id), "report.html")


def registry_folder() -> str:
    """Return the folder of the files of MLflow's runs and of registered versions."""
    return below_lake("_mlflow")


# ---- the rest ----


def monitor_folder() -> str:
    """Return the folder with a file of findings for each day."""
    return below_lake("_monitor")


def monitor_file(day: date) -> str:
    """Return the file of the findings about a day."""
    return join(monitor_folder(), f"{day}.json")


def alerts_folder(memory: str) -> str:
    """Return the folder of sent and waiting alerts: in the lake, or, if that cannot be reached, in any other folder."""
    return join(memory, "_alerts")


def probe_file() -> str:
    """Return the file that is written, read and removed to test the lake."""
    return below_lake("_doctor", "probe.json")


def forgotten_path() -> str:
    """Return the folder or address of the list of forgotten users."""
    return below_lake("_forgotten")


def receipts_folder() -> str:
    """Return the folder of what was done to forget users."""
    return below_lake("_receipts")


def receipt_file(request: str) -> str:
    """Return the file that says what was done for a request to forget users."""
    return join(receipts_folder(), f"{request}.json")


def landed_file(request: str) -> str:
    """Return the file that says how many landed rows a request to forget users is about."""
    return join(receipts_folder(), f"{request}.landed.json")
