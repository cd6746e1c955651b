"""Runs and model versions in MLflow: what was trained on what, which version is a candidate, and who was champion when.

MLflow is imported when it is first needed, because that takes seconds, and is spoken to through its client alone: its
fluent API keeps a current run and a current store for the whole process. The store is `MEANDER_MLFLOW_URI`; the files
of runs and versions lie below `<lake>/_mlflow`:

    runs/<mlflow run>/artifacts/        plots, reports
    versions/<hash of the content>/     the files of a registered version, written once and never changed
"""

import fcntl
import functools
import hashlib
import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lake import storage
from lake.errors import ModelMissing
from lake.places import registry_folder
from lake.settings import settings
from model.data.lineage import SETTINGS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

# MLflow reports usage to its makers, and asks them what to report, unless told not to before its first import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# It announces each new store and run in lines that are not for people.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

REPO = Path(__file__).resolve().parents[2]
CHAMPION, CANDIDATE = "champion", "candidate"
# A version keeps one tag for each date from which it was champion; the value is when it was promoted.
SINCE = "champion_since."
BATCH = 100  # MLflow takes at most as many parameters at once


# ---- the store ----


def client() -> "MlflowClient":
    """Return a client of the store in force now; a SQLite store that is not there yet is made first (seconds)."""
    return _client(settings().tracking_uri)


@functools.cache
def _client(uri: str) -> "MlflowClient":
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a line for each of some sixty migrations
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        create_sqlite(Path(uri.removeprefix("sqlite:///")))
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def create_sqlite(path: Path) -> None:
    """Create an empty MLflow store unless there is one; many may try at once, and be killed while they do.

    MLflow itself makes the tables of a new store without a lock, and one that was half made stays broken. So the store
    is made under another name by one process at a time, and renamed when it is whole.
    """
    if path.exists():
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        unfinished = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
        log.info("making the MLflow store %s", path)
        uri = f"sqlite:///{unfinished}"
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models(max_results=1)
        unfinished.replace(path)


def artifact_root() -> str:
    """Return the address of all files of runs and versions; a local one is absolute, for processes in other folders."""
    root = registry_folder()
    return root if "://" in root else str(Path(root).resolve())


def experiment_id() -> str:
    """Return the experiment in which all runs lie, made at the first call."""
    from mlflow.exceptions import MlflowException

    name, root = settings().model_name, storage.join(artifact_root(), "runs")
    found = client().get_experiment_by_name(name)
    if found is None:
        try:
            return str(client().create_experiment(name, root if "://" in root else Path(root).as_uri()))
        except MlflowException:
            # Another process was first, or the store has a complaint that the next line repeats.
            found = client().get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


# ---- runs ----


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run: what a command logs to.

    Attributes:
        id: MLflow's id of it.
        run_id: ours, which the commands of one training share.
        kind: pretrain, finetune, evaluate.
    """

    id: str
    run_id: str
    kind: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep settings of the run; a parameter that is known already keeps its first value."""
        from mlflow.entities import Param

        known = client().get_run(self.id).data.params
        fresh = [Param(_key(name), str(value)[:6000]) for name, value in params.items() if _key(name) not in known]
        for some in _batches(fresh):
            client().log_batch(self.id, params=some)

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep numbers of one step, all in one request. MLflow takes no `@` in names: it becomes `_at_`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(_key(name), float(value), now, step) for name, value in metrics.items()]
        for some in _batches(rows):
            client().log_batch(self.id, metrics=some)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Keep facts about the run that may change."""
        from mlflow.entities import RunTag

        for some in _batches([RunTag(_key(name), str(value)[:5000]) for name, value in tags.items()]):
            client().log_batch(self.id, tags=some)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as `name`, such as report.html, which MLflow's pages show."""
        client().log_text(self.id, text, name)


@contextmanager
def start_run(
    run_id: str, kind: str, params: Mapping[str, Any] | None = None, tables: Mapping[str, int] | None = None
) -> Iterator[TrackedRun]:
    """Open the MLflow run of one command, and close it as finished or failed.

    A command that did not finish and is run again goes on in its old MLflow run, so that a resumed training has one
    curve; unless its parameters differ, which makes a new one.

    Args:
        run_id: ours; several kinds share it.
        kind: pretrain, finetune or evaluate.
        params: settings of the run.
        tables: versions of the tables that it reads.
    """
    wanted = {_key(name): str(value)[:6000] for name, value in (params or {}).items()}
    tracked = _unfinished(run_id, kind, wanted) or _new_run(run_id, kind)
    tracked.log_params(wanted)
    tracked.log_tags({**provenance(), **{f"table.{name}": version for name, version in (tables or {}).items()}})
    status = "FAILED"
    try:
        yield tracked
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client().set_terminated(tracked.id, status)


def _new_run(run_id: str, kind: str) -> TrackedRun:
    tags = {"meander.run_id": run_id, "meander.kind": kind}
    return TrackedRun(
        client().create_run(experiment_id(), tags=tags, run_name=f"{kind} {run_id}").info.run_id, run_id, kind
    )


def _unfinished(run_id: str, kind: str, params: dict[str, str]) -> TrackedRun | None:
    found = client().search_runs(
        [experiment_id()],
        f"tags.`meander.run_id` = {_quoted(run_id)} and tags.`meander.kind` = {_quoted(kind)}",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not found or found[0].info.status == "FINISHED":
        return None
    if any(found[0].data.params.get(name) != value for name, value in params.items()):
        return None
    client().update_run(found[0].info.run_id, status="RUNNING")
    return TrackedRun(found[0].info.run_id, run_id, kind)


def provenance() -> dict[str, str]:
    """Return what code and packages this process runs: `code` and `environment`, a hash of the lock and main versions.

    Unlike a list of all packages, the hash says at once whether two runs had the same ones.
    """
    lock = REPO / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12] if lock.is_file() else "none"
    versions = [f"{name} {_installed(name)}" for name in ("tensorflow", "keras", "pyspark")]
    return {
        "code": code_version(),
        "environment": f"lock {digest}, python {platform.python_version()}, {', '.join(versions)}",
    }


def code_version() -> str:
    """Return the git commit of this code, with `+changes` if files differ; without git the package's version."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPO), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != REPO:
            raise FileNotFoundError  # installed somewhere below another repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return f"meander {_installed('meander')}"


# ---- versions ----


def register(folder: str, card: Mapping[str, Any], tracked: TrackedRun) -> int:
    """Make the artifact in `folder` a version of the registered model, and return its number.

    The files are copied to an address named by their content, so that no later training changes them. Registering the
    same files again for the same run returns the version that they have.

    Args:
        folder: address of an artifact.
        card: what the model says of itself; its scalar entries and table versions become tags.
        tracked: the MLflow run that it comes from.
    """
    name, digest = settings().model_name, content_hash(folder)
    for known in _versions():
        if known.tags.get("artifact") == digest and known.tags.get("run_id") == tracked.run_id:
            return int(known.version)
    _create_model(name)
    address = storage.join(artifact_root(), "versions", digest)
    _copy(folder, address)
    tags = {key: str(value) for key, value in card.items() if isinstance(value, str | int | float | bool)}
    tags |= {f"table.{table}": str(version) for table, version in dict(card.get("tables", {})).items()}
    tags |= {"artifact": digest, "run_id": tracked.run_id}
    source = address if "://" in address else Path(address).as_uri()
    made = client().create_model_version(name, source, run_id=tracked.id, tags=tags)
    log.info("registered version %s of %s: %s", made.version, name, address)
    return int(made.version)


def set_candidate(version: int) -> None:
    """Let the alias `candidate` point at a version."""
    client().set_registered_model_alias(settings().model_name, CANDIDATE, str(_version(version).version))


def promote(version: int, since: date) -> int:
    """Record that a version is champion from date `since` on, and return the version to which the alias points then.

    The alias goes to the version with the newest date. So a promotion for a past day, in a backfill, counts for that
    day and does not take the place of a champion that came after it. Promoting an older version again from a later date
    goes back to it.
    """
    name = settings().model_name
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    _version(version)
    # The history first: killed between the lines, a promotion is whole when it is run again.
    for key, value in {f"{SINCE}{since}": now, "champion_since": str(since), "promoted_at": now}.items():
        client().set_model_version_tag(name, str(version), key, value)
    newest = max(_promotions())[2]
    client().set_registered_model_alias(name, CHAMPION, str(newest))
    log.info("version %d is champion since %s; the alias champion is at version %d", version, since, newest)
    return newest


def champion() -> int | None:
    """Return the version with the alias `champion`, or None when there is none yet."""
    return _by_alias(CHAMPION)


def candidate() -> int | None:
    """Return the version with the alias `candidate`, or None when there is none yet."""
    return _by_alias(CANDIDATE)


def find_champion(day: date) -> int | None:
    """Return the version that was champion on a day as `champion_at` does, or None when there was none."""
    until = [entry for entry in _promotions() if entry[0] <= day]
    return max(until)[2] if until else None


def champion_at(day: date) -> int:
    """Return the version that was champion on a day: the one with the newest date up to it, then the last promoted.

    Raises:
        ModelMissing: no version was champion by then.
    """
    found = find_champion(day)
    if found is not None:
        return found
    name = settings().model_name
    champions = ", ".join(f"version {version} since {since}" for since, _, version in sorted(_promotions()))
    known = ", ".join(str(v.version) for v in _versions())
    have = f"champions are {champions}" if champions else f"none has been promoted yet; versions are {known or 'none'}"
    raise ModelMissing(
        f"no version of {name} was champion on {day}: {have}; give --model-version to score with another, "
        "or run the training for that day first"
    )


def artifact_folder(version: int) -> str:
    """Return the address of a version's files, which never change.

    The address is made from the lake in force now, so that a lake may be moved with the registry beside it.

    Raises:
        ModelMissing: there is no such version, or its files are gone.
    """
    address = storage.join(artifact_root(), "versions", _version(version).tags["artifact"])
    if not storage.exists(address):
        raise ModelMissing(
            f"the files of version {version} of {settings().model_name} are gone: there is no {address}; "
            "restore them, or choose another version"
        )
    return address


def version_of(run_id: str) -> int:
    """Return the newest version that a run of ours registered.

    Raises:
        ModelMissing: it registered none.
    """
    own = [int(known.version) for known in _versions() if known.tags.get("run_id") == run_id]
    if not own:
        raise ModelMissing(f"run {run_id!r} has registered no version of {settings().model_name}; run model.evaluate")
    return max(own)


def settings_of(version: int) -> dict[str, int]:
    """Return {name: value} of the settings that a version was trained with, `SETTINGS` of model/data/lineage.py.

    Raises:
        ModelMissing: there is no such version.
    """
    tags = describe(version)
    return {name: int(tags[name]) for name in SETTINGS if name in tags}


def describe(version: int) -> dict[str, str]:
    """Return the tags of a version: its card's scalars, table versions, since when it was champion."""
    return dict(_version(version).tags)


# ---- parts ----


def content_hash(folder: str) -> str:
    """Return a hash of all files of a folder, names and contents, 32 hex digits.

    Raises:
        ModelMissing: there are no files.
    """
    names = list(storage.list_files(folder))
    if not names:
        raise ModelMissing(f"there is no model at {folder}: it holds no file; run model.finetune first")
    total = hashlib.sha256()
    for name in names:
        fs, inner = storage.filesystem(storage.join(folder, name))
        with fs.open(inner, "rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{part}\n".encode())
    return total.hexdigest()[:32]


def _copy(folder: str, address: str) -> None:
    """Copy files that are not there yet; those that are there are equal, because the address is a hash of them."""

    def copy(name: str, size: int) -> None:
        source, inner = storage.filesystem(storage.join(folder, name))
        target, place = storage.filesystem(storage.join(address, name))
        if target.exists(place) and target.size(place) == size:
            return
        target.makedirs(target._parent(place), exist_ok=True)
        with source.open(inner, "rb") as read, target.open(place, "wb") as write:
            while chunk := read.read(16 * 2**20):
                write.write(chunk)

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda entry: copy(*entry), storage.list_files(folder).items()))


def _create_model(name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions() -> list["ModelVersion"]:
    """Return all versions, oldest first."""
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = client().search_model_versions(f"name = {_quoted(settings().model_name)}", page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda known: int(known.version))


def _promotions() -> list[tuple[date, str, int]]:
    """Return all promotions as (since, promoted at, version)."""
    return [
        (date.fromisoformat(key.removeprefix(SINCE)), promoted, int(known.version))
        for known in _versions()
        for key, promoted in known.tags.items()
        if key.startswith(SINCE)
    ]


def _version(version: int) -> "ModelVersion":
    found = {int(known.version): known for known in _versions()}
    if version not in found:
        raise ModelMissing(
            f"there is no version {version} of {settings().model_name} in {settings().tracking_place}; "
            f"it holds {', '.join(map(str, found)) or 'none'}"
        )
    return found[version]


def _by_alias(alias: str) -> int | None:
    from mlflow.exceptions import MlflowException

    try:
        return int(client().get_model_version_by_alias(settings().model_name, alias).version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _installed(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "none"


def _key(name: str) -> str:
    return name.replace("@", "_at_")


def _quoted(text: str) -> str:
    # MLflow's filters know two quotes, and no way to escape either.
    return f"'{text}'" if '"' in text else f'"{text}"'


def _batches(entries: list[Any]) -> Iterable[list[Any]]:
    return (entries[at : at + BATCH] for at in range(0, len(entries), BATCH))
