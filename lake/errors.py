"""The errors that a person on call may meet: each has a code, and each code a section in docs/runbook.md."""

import logging
import re
import sys
from collections.abc import Callable

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \S+: ")  # matches LOG_FORMAT up to the message


class MeanderError(Exception):
    """Base of Meander's errors; `code` names the section of docs/runbook.md with the repair."""

    code = "unexpected"

    def __str__(self) -> str:
        return f"{super().__str__()} [docs/runbook.md#{self.code}]"


class SettingsInvalid(MeanderError):
    """A `MEANDER_*` variable or a command-line argument has an invalid value."""

    code = "settings-invalid"


class SourceInvalid(MeanderError):
    """The YAML file of a source is missing or invalid."""

    code = "source-invalid"


class SourceMismatch(MeanderError):
    """A landing file does not have the columns that its source declares."""

    code = "source-mismatch"


class LandingMissing(MeanderError):
    """A day that is to be loaded has not landed."""

    code = "landing-missing"


class LandingUnreadable(MeanderError):
    """A landing file cannot be opened, decompressed or read as Parquet."""

    code = "landing-unreadable"


class SchemaMismatch(MeanderError):
    """A job computed rows whose columns are not those of lake/schemas.py."""

    code = "schema-mismatch"


class TableMissing(MeanderError):
    """A table, or the requested version or day of it, is not published yet."""

    code = "table-missing"


class ModelMissing(MeanderError):
    """No version was champion on the day, the requested version does not exist, or its files are missing."""

    code = "model-missing"


class HorizonIncomplete(MeanderError):
    """Examples were requested for a date whose labels are not available yet."""

    code = "horizon-incomplete"


class NotStaged(MeanderError):
    """The run has not staged the table."""

    code = "not-staged"


class AuditFailed(MeanderError):
    """Staged rows did not meet a critical expectation."""

    code = "audit-failed"


class PublishRefused(MeanderError):
    """A staging may not be published: not audited, failed, replaced by a newer one, or without its files."""

    code = "publish-refused"


class InputInvalid(MeanderError):
    """The training cannot use the published rows: a column, a shape, a size or a setting does not match."""

    code = "input-invalid"


class WorkerFailed(MeanderError):
    """A worker of a training ended with an error, was killed, or took too long; the others were ended."""

    code = "worker-failed"


class TrainingDiverged(MeanderError):
    """The loss became infinite or not a number."""

    code = "training-diverged"


class CommitContended(MeanderError):
    """Other publishes to the table won the commit in each try; nothing was published."""

    code = "commit-contended"


class ServingUnavailable(MeanderError):
    """The serving store is not set, cannot be reached, or does not grant the rights that Meander needs."""

    code = "serving-unavailable"


class ServingBusy(MeanderError):
    """Another load or switch held the serving store for too long."""

    code = "serving-busy"


class ServingRefused(MeanderError):
    """Predictions are not served: they failed a check, or a switch would change more than the settings allow."""

    code = "serving-refused"


class GenerationMissing(MeanderError):
    """The requested generation is not in the serving store."""

    code = "generation-missing"


def run_main(main: Callable[[], object]) -> None:
    """Run a job's `main` as a process: log to stderr; an error of Meander ends with one line and exit code 1."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    # The Delta and Spark Connect clients log each request at this level; a task log is for people.
    for chatty in ("pyspark", "py4j", "great_expectations", "urllib3", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main()
    except MeanderError as error:
        logging.getLogger("meander").error("%s: %s", type(error).__name__, error)
        sys.exit(1)
