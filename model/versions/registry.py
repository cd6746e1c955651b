"""Runs and model versions in MLflow: what was trained on what, which version is a candidate, and who was champion when.

MLflow is imported when it is first needed, because that takes seconds. Only its client is used: its fluent API keeps a
current run and a current store for the whole process. A command makes a `Registry` from the settings and passes it on.
The store is `MEANDER_MLFLOW_URI`; the files of runs and versions lie below `<lake>/_mlflow`:

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
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lake import storage
from lake.errors import ModelMissing, SettingsInvalid
from lake.places import registry_folder
from lake.settings import Settings
from model.data.lineage import BEFORE, SETTINGS, Value, value_of

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


# ---- runs ----


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run: what a command logs to.

    Attributes:
        client: of the store.
        id: MLflow's id of it.
        run_id: ours, which the commands of one training share.
        kind: pretrain, finetune, evaluate.
    """

    client: "MlflowClient" = field(repr=False)
    id: str
    run_id: str
    kind: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep settings of the run; a parameter that has a value already keeps it."""
        from mlflow.entities import Param

        logged = self.client.get_run(self.id).data.params
        fresh = [Param(_key(name), str(value)[:6000]) for name, value in params.items() if _key(name) not in logged]
        for batch in _batches(fresh):
            self.client.log_batch(self.id, params=batch)

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep numbers of one step, all in one request. MLflow takes no `@` in names: it becomes `_at_`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(_key(name), float(value), now, step) for name, value in metrics.items()]
        for batch in _batches(rows):
            self.client.log_batch(self.id, metrics=batch)

    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Keep facts about the run that may change."""
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(_key(name), str(value)[:5000]) for name, value in tags.items()]):
            self.client.log_batch(self.id, tags=batch)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as `name`, such as report.html, which MLflow's pages show."""
        self.client.log_text(self.id, text, name)


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


# ---- the registry ----


@dataclass(frozen=True)
class Registry:
    """One MLflow store with the versions of one registered model, and where their files lie.

    Making one opens nothing: the store is opened, and MLflow imported, by the first method that needs them.

    Attributes:
        uri: address of the store; a secret if it holds a password.
        place: the same for people and logs, without a password.
        name: of the experiment and of the registered model.
        root: address of all files of runs and versions; a local one is absolute, for processes in other folders.
    """

    uri: str = field(repr=False)
    place: str
    name: str
    root: str

    @staticmethod
    def of(config: Settings) -> "Registry":
        """Return the registry that the settings name, with its files in the lake.

        Raises:
            SettingsInvalid: the lake is not a local path and no store is set.
        """
        root = registry_folder()
        root = root if "://" in root else str(Path(root).resolve())
        return Registry(config.tracking_uri, config.tracking_place, config.model_name, root)

    @property
    def client(self) -> "MlflowClient":
        """A client of the store; a SQLite store that is not there yet is made first (seconds)."""
        return _client(self.uri)

    @property
    def experiment_id(self) -> str:
        """The experiment in which all runs lie, made when it is first needed."""
        from mlflow.exceptions import MlflowException

        root = storage.join(self.root, "runs")
        experiment = self.client.get_experiment_by_name(self.name)
        if experiment is None:
            try:
                return str(self.client.create_experiment(self.name, root if "://" in root else Path(root).as_uri()))
            except MlflowException:
                # Another process was first, or the store has a complaint that the next line repeats.
                experiment = self.client.get_experiment_by_name(self.name)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    # ---- runs ----

    @contextmanager
    def start_run(
        self,
        run_id: str,
        kind: str,
        params: Mapping[str, Any] | None = None,
        tables: Mapping[str, int] | None = None,
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
        tracked = self._unfinished(run_id, kind, wanted) or self._new_run(run_id, kind)
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
            self.client.set_terminated(tracked.id, status)

    def _new_run(self, run_id: str, kind: str) -> TrackedRun:
        tags = {"meander.run_id": run_id, "meander.kind": kind}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{kind} {run_id}")
        return TrackedRun(self.client, run.info.run_id, run_id, kind)

    def _unfinished(self, run_id: str, kind: str, params: dict[str, str]) -> TrackedRun | None:
        matching_runs = self.client.search_runs(
            [self.experiment_id],
            f"tags.`meander.run_id` = {_quoted(run_id)} and tags.`meander.kind` = {_quoted(kind)}",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if not matching_runs or matching_runs[0].info.status == "FINISHED":
            return None
        newest = matching_runs[0]
        if any(newest.data.params.get(name) != value for name, value in params.items()):
            return None
        self.client.update_run(newest.info.run_id, status="RUNNING")
        return TrackedRun(self.client, newest.info.run_id, run_id, kind)

    # ---- versions ----

    def register(self, folder: str, card: Mapping[str, Any], tracked: TrackedRun) -> int:
        """Make the artifact in `folder` a version of the registered model, and return its number.

        The files are copied to an address named by their content, so that no later training changes them. Registering
        the same files again for the same run returns the version that they have.

        Args:
            folder: address of an artifact.
            card: what the model says of itself; its scalar entries and table versions become tags.
            tracked: the MLflow run that it comes from.
        """
        digest = content_hash(folder)
        for version in self._versions():
            if version.tags.get("artifact") == digest and version.tags.get("run_id") == tracked.run_id:
                return int(version.version)
        self._create_model()
        address = storage.join(self.root, "versions", digest)
        copy_files(folder, address)
        tags = {key: str(value) for key, value in card.items() if isinstance(value, str | int | float | bool)}
        tags |= {f"table.{table}": str(number) for table, number in dict(card.get("tables", {})).items()}
        tags |= {"artifact": digest, "run_id": tracked.run_id}
        source = address if "://" in address else Path(address).as_uri()
        registered = self.client.create_model_version(self.name, source, run_id=tracked.id, tags=tags)
        log.info("registered version %s of %s: %s", registered.version, self.name, address)
        return int(registered.version)

    def set_candidate(self, version: int) -> None:
        """Let the alias `candidate` point at a version."""
        self.client.set_registered_model_alias(self.name, CANDIDATE, str(self._version(version).version))

    def promote(self, version: int, since: date) -> int:
        """Record that a version is champion from date `since` on, and return the version that has the alias then.

        The alias goes to the version with the newest date. So a promotion for a past day, in a backfill, counts for
        that day and does not take the place of a champion that came after it. Promoting an older version again from a
        later date goes back to it.

        Raises:
            ModelMissing: there is no such version.
            SettingsInvalid: the version has learnt from what came after that date.
        """
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        learnt_until = self.describe(version).get("as_of")
        if learnt_until and since < date.fromisoformat(learnt_until):
            raise SettingsInvalid(
                f"version {version} has learnt from what was known on {learnt_until}, so it cannot be champion since "
                f"{since}: predictions of the days between, and trainings that start from it, would know their future; "
                f"give --since {learnt_until} or a later day"
            )
        # The history first: killed between the lines, a promotion is whole when it is run again.
        for key, value in {f"{SINCE}{since}": now, "champion_since": str(since), "promoted_at": now}.items():
            self.client.set_model_version_tag(self.name, str(version), key, value)
        newest = max(self._promotions())[2]
        self.client.set_registered_model_alias(self.name, CHAMPION, str(newest))
        log.info("version %d is champion since %s; the alias champion is at version %d", version, since, newest)
        return newest

    def champion(self) -> int | None:
        """Return the version with the alias `champion`, or None when there is none yet."""
        return self._by_alias(CHAMPION)

    def candidate(self) -> int | None:
        """Return the version with the alias `candidate`, or None when there is none yet."""
        return self._by_alias(CANDIDATE)

    def find_champion(self, day: date, other_than: str | None = None) -> int | None:
        """Return the version that was champion on a day as `champion_at` does, or None when there was none.

        Args:
            day: a date.
            other_than: a run whose own versions do not count: when it is prepared or evaluated again, what it meets is
                the champion that it had met before.
        """
        until = [entry for entry in self._promotions(other_than) if entry[0] <= day]
        return max(until)[2] if until else None

    def champion_at(self, day: date) -> int:
        """Return the version that was champion on a day: the one with the newest date up to it, then the last promoted.

        Raises:
            ModelMissing: no version was champion by then.
        """
        champion = self.find_champion(day)
        if champion is not None:
            return champion
        champions = ", ".join(f"version {version} since {since}" for since, _, version in sorted(self._promotions()))
        versions = ", ".join(str(version.version) for version in self._versions()) or "none"
        have = f"champions are {champions}" if champions else f"none has been promoted yet; versions are {versions}"
        raise ModelMissing(
            f"no version of {self.name} was champion on {day}: {have}; give --model-version to score with another, "
            "or run the training for that day first"
        )

    def artifact_folder(self, version: int) -> str:
        """Return the address of a version's files, which never change.

        The address is below `root`, not what MLflow noted, so that a lake may be moved with the registry beside it.

        Raises:
            ModelMissing: there is no such version, or its files are gone.
        """
        address = storage.join(self.root, "versions", self._version(version).tags["artifact"])
        if not storage.exists(address):
            raise ModelMissing(
                f"the files of version {version} of {self.name} are gone: there is no {address}; "
                "restore them, or choose another version"
            )
        return address

    def version_of(self, run_id: str) -> int:
        """Return the newest version that a run of ours registered.

        Raises:
            ModelMissing: it registered none.
        """
        own = [int(version.version) for version in self._versions() if version.tags.get("run_id") == run_id]
        if not own:
            raise ModelMissing(f"run {run_id!r} has registered no version of {self.name}; run model.evaluate")
        return max(own)

    def settings_of(self, version: int) -> dict[str, Value]:
        """Return {name: value} of the settings that a version was trained with, `SETTINGS` of model/data/lineage.py.

        Raises:
            ModelMissing: there is no such version.
        """
        tags = self.describe(version)
        # A card that knows the others and no weights is from before there was a choice.
        tags = {**BEFORE, **tags} if SETTINGS.keys() & tags.keys() else tags
        return {name: value_of(name, tags[name]) for name in SETTINGS if name in tags}

    def describe(self, version: int) -> dict[str, str]:
        """Return the tags of a version: its card's scalars, table versions, since when it was champion."""
        return dict(self._version(version).tags)

    def _create_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _versions(self) -> list["ModelVersion"]:
        """Return all versions, oldest first."""
        versions: list[ModelVersion] = []
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name = {_quoted(self.name)}", page_token=token)
            versions += page
            token = page.token
            if not token:
                return sorted(versions, key=lambda version: int(version.version))

    def _promotions(self, other_than: str | None = None) -> list[tuple[date, str, int]]:
        """Return all promotions as (since, promoted at, version), but those of versions of one run."""
        return [
            (date.fromisoformat(key.removeprefix(SINCE)), promoted, int(version.version))
            for version in self._versions()
            if other_than is None or version.tags.get("run_id") != other_than
            for key, promoted in version.tags.items()
            if key.startswith(SINCE)
        ]

    def _version(self, version: int) -> "ModelVersion":
        by_number = {int(entry.version): entry for entry in self._versions()}
        if version not in by_number:
            raise ModelMissing(
                f"there is no version {version} of {self.name} in {self.place}; "
                f"it holds {', '.join(map(str, by_number)) or 'none'}"
            )
        return by_number[version]

    def _by_alias(self, alias: str) -> int | None:
        from mlflow.exceptions import MlflowException

        try:
            return int(self.client.get_model_version_by_alias(self.name, alias).version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None


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


def copy_files(folder: str, address: str) -> None:
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
