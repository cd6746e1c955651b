"""Every failure a person on call may meet: each has a code, and the code a section in docs/runbook.md."""

import logging
import re
import sys
from collections.abc import Callable

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \S+: ")  # what it puts before a message


class MeanderError(Exception):
    """Base of our own failures; `code` names the section of docs/runbook.md that says what to do."""

    code = "unexpected"

    def __str__(self) -> str:
        return f"{super().__str__()} [docs/runbook.md#{self.code}]"


class SettingsInvalid(MeanderError):
    """A `MEANDER_*` variable or a command-line argument has a value we cannot take."""

    code = "settings-invalid"


class SourceInvalid(MeanderError):
    """The YAML file of a source is missing, or says something we do not understand."""

    code = "source-invalid"


class SourceMismatch(MeanderError):
    """Landing files do not have the columns that their source promises."""

    code = "source-mismatch"


class LandingMissing(MeanderError):
    """A day that is to be loaded has not landed."""

    code = "landing-missing"


class LandingUnreadable(MeanderError):
    """A landing file cannot be opened or decompressed."""

    code = "landing-unreadable"


class SchemaMismatch(MeanderError):
    """A job tried to stage rows whose columns are not those declared in lake/schemas.py."""

    code = "schema-mismatch"


class TableMissing(MeanderError):
    """A table, or the version or day asked for, has not been published yet."""

    code = "table-missing"


class ModelMissing(MeanderError):
    """No registered model version fits what was asked for, or its files are gone."""

    code = "model-missing"


class HorizonIncomplete(MeanderError):
    """Examples were asked for at a date whose labels cannot be known yet."""

    code = "horizon-incomplete"


class NotStaged(MeanderError):
    """There is nothing staged under this run id for this table."""

    code = "not-staged"


class AuditFailed(MeanderError):
    """Staged rows broke a critical expectation."""

    code = "audit-failed"


class PublishRefused(MeanderError):
    """Staged rows may not be published: not audited, failed, or staged again since."""

    code = "publish-refused"


class InputInvalid(MeanderError):
    """Rows cannot be read as a training asks: a column, a shape or a size does not fit."""

    code = "input-invalid"


class WorkerFailed(MeanderError):
    """A worker of a training ended with an error, was killed, or took too long; the others were ended."""

    code = "worker-failed"


class TrainingDiverged(MeanderError):
    """The loss is no longer a finite number."""

    code = "training-diverged"


class CommitContended(MeanderError):
    """Other publishes kept winning the commit; nothing was published."""

    code = "commit-contended"


class ServingUnavailable(MeanderError):
    """The serving store is not set, cannot be reached, or does not let us do what we have to."""

    code = "serving-unavailable"


class ServingBusy(MeanderError):
    """Another load or switch held the serving store for too long."""

    code = "serving-busy"


class ServingRefused(MeanderError):
    """Rows are not served: too many break a check, they differ too much from what is served, or PostgreSQL objects."""

    code = "serving-refused"


class GenerationMissing(MeanderError):
    """The serving store has no generation such as was asked for."""

    code = "generation-missing"


def run_main(main: Callable[[], object]) -> None:
    """Run a job's `main` as a process: log to stderr, and end our own failures with one line and exit code 1."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    # The Delta and Spark Connect clients log each request at this level; a task log is for people.
    for chatty in ("pyspark", "py4j", "great_expectations", "urllib3", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main()
    except MeanderError as error:
        logging.getLogger("meander").error("%s: %s", type(error).__name__, error)
        sys.exit(1)
