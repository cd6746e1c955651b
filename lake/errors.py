"""Every failure that the on-call engineer may see: each has a code, and each code a section in docs/runbook.md."""

import gc
import logging
import re
import sys
from collections.abc import Callable

from lake.text import visible

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \S+: ")  # the part before a message


class MeanderError(Exception):
    """Base of Meander's own failures; `code` names the section of docs/runbook.md that describes what to do."""

    code = "unexpected"

    @property
    def message(self) -> str:
        """What happened, without the section of the runbook."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.message} [docs/runbook.md#{self.code}]"


class SettingsInvalid(MeanderError):
    """A `MEANDER_*` variable or a command-line argument has an invalid value."""

    code = "settings-invalid"


class SourceInvalid(MeanderError):
    """The YAML file of a source is missing or invalid."""

    code = "source-invalid"


class SourceMismatch(MeanderError):
    """Landing files do not have the columns that their source declares."""

    code = "source-mismatch"


class LandingMissing(MeanderError):
    """A day to load has not landed."""

    code = "landing-missing"


class LandingUnreadable(MeanderError):
    """A landing file cannot be opened or decompressed."""

    code = "landing-unreadable"


class LandingChanged(MeanderError):
    """The files of a landing day changed while a run read them; nothing was staged."""

    code = "landing-changed"


class DeliveredTwice(MeanderError):
    """Two files of a landing day are equal, so each of its rows would count twice."""

    code = "delivered-twice"


class DeliveryShrunk(MeanderError):
    """A landing day has lost files or rows that readers see."""

    code = "delivery-shrunk"


class SchemaMismatch(MeanderError):
    """A job tried to stage rows whose columns are not those declared in lake/schemas.py."""

    code = "schema-mismatch"


class TableMissing(MeanderError):
    """A table, or the version or day asked for, has not been published yet."""

    code = "table-missing"


class TableUnreadable(MeanderError):
    """The log of a table is damaged or gone, or the storage does not give it."""

    code = "table-unreadable"


class ModelMissing(MeanderError):
    """The requested model version is not registered, or its files are gone."""

    code = "model-missing"


class HeadsDiffer(MeanderError):
    """A model answers other questions than those of lake/labels.py."""

    code = "heads-differ"


class HorizonIncomplete(MeanderError):
    """Examples were requested at a date whose labels are not available yet."""

    code = "horizon-incomplete"


class NotStaged(MeanderError):
    """Nothing is staged for this table under this run id."""

    code = "not-staged"


class AuditFailed(MeanderError):
    """Staged rows broke a critical expectation."""

    code = "audit-failed"


class PublishRefused(MeanderError):
    """Staged rows may not be published: not audited, failed, or staged again since."""

    code = "publish-refused"


class PseudonymsDiffer(MeanderError):
    """Users would have pseudonyms by two keys, or pseudonyms and the shop's own ids, in one lake."""

    code = "pseudonyms-differ"


class IdentityUnknown(MeanderError):
    """A user's id cannot be turned into a pseudonym, or back, by whoever asks."""

    code = "identity-unknown"


class ForgetIncomplete(MeanderError):
    """Users were forgotten in all files but some that cannot be read."""

    code = "forget-incomplete"


class InputInvalid(MeanderError):
    """Rows cannot be read as a training requires: a column, a shape or a size does not fit."""

    code = "input-invalid"


class WorkerFailed(MeanderError):
    """A worker of a training exited with an error, was killed, or took too long; the other workers were stopped."""

    code = "worker-failed"


class TrainingDiverged(MeanderError):
    """The loss is no longer a finite number."""

    code = "training-diverged"


class CommitContended(MeanderError):
    """Other commits to the same table kept coming first; nothing of this one was committed."""

    code = "commit-contended"


class UpkeepFailed(MeanderError):
    """Upkeep could not maintain a table, or files that readers may open are missing."""

    code = "upkeep-failed"


class ServingUnavailable(MeanderError):
    """The serving store is not set, cannot be reached, or denies a permission."""

    code = "serving-unavailable"


class ServingBusy(MeanderError):
    """Another load or switch held the serving store for too long."""

    code = "serving-busy"


class ServingRefused(MeanderError):
    """Rows are not served: too many violate a check, they differ too much from those served, or PostgreSQL objects."""

    code = "serving-refused"


class GenerationMissing(MeanderError):
    """The requested generation is not in the serving store."""

    code = "generation-missing"


class TextFormatter(logging.Formatter):
    """Shows what a log says as text: names of its columns and files may have characters that a terminal acts on."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def run_main(main: Callable[[], object]) -> None:
    """Run a job's `main` as a process: log to stderr; its failures end in exit code 1, its own ones in one line."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # The Delta and Spark Connect clients log each request at this level; a task log is for people.
    for chatty in ("pyspark", "py4j", "great_expectations", "urllib3", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main()
    except MeanderError as error:
        logging.getLogger("meander").error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    except Exception:
        # Not left to Python, which would print what a row holds as it is.
        logging.getLogger("meander").exception("unexpected")
        sys.exit(1)
    finally:
        end_at_once()


def end_at_once() -> None:
    """Let Python end without a last look for garbage: it all goes with the process.

    Among the objects of Great Expectations or TensorFlow, that look takes 0.7 s of the three of an import.
    """
    gc.freeze()
