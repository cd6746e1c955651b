"""How a task ends that does not succeed: failed, with or without another try, or skipped."""

import re
import signal

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lake.errors import SettingsInvalid
from lake.settings import Settings, settings

# The class of an error of Python, Java or a library, before its message, which may quote what a row holds.
CLASS = re.compile(r"(?:[\w$]+\.)*[A-Z]\w*(?:Error|Exception|Invalid|Interrupt|Exit)\b")
# How a message of Meander ends. Further inside of a line it may be a text of a row.
SECTION = re.compile(r"\[docs/runbook\.md#([a-z-]+)\]\s*$")
# Codes of errors that another try may resolve: a conflict with other runs, a machine or connection that was lost, or a
# landing that was still being written.
RETRYABLE_CODES = {
    "commit-contended",
    "worker-failed",
    "serving-busy",
    "serving-unavailable",
    "upkeep-failed",
    "landing-changed",
    "table-unreadable",
}


def raise_without_retry(error: Exception) -> None:
    """Raise an exception that Airflow does not retry if `error` names a section of the runbook, unless it is retryable.

    Such an error needs a person. Returns if `error` names none.
    """
    actionable = [
        line
        for line in str(error).splitlines()
        if (section := SECTION.search(line)) and section[1] not in RETRYABLE_CODES
    ]
    if actionable:
        raise AirflowFailException(actionable[-1].strip()) from error


def checked_settings() -> Settings:
    """Return the settings of a task.

    The process that a task starts gets no variable that is not on the list of lake/environment.py, so a setting with a
    typing error in its name is found here or nowhere.

    Raises:
        AirflowFailException: a variable has an invalid value or is no setting; another try would end in the same way.
    """
    try:
        return settings()
    except SettingsInvalid as error:
        raise_without_retry(error)
        raise


def without_values(line: str) -> str:
    """Return what may leave the machine of the last line that a failed process has printed.

    A message of Meander ends with a section of the runbook, and quotes no row; of other errors, only the class is told.

    >>> without_values("TableMissing: examples has none [docs/runbook.md#table-missing]")
    'TableMissing: examples has none [docs/runbook.md#table-missing]'
    >>> without_values("pyarrow.lib.ArrowInvalid: Could not convert 'ann'"), without_values("ann, 4 Main Street")
    ('pyarrow.lib.ArrowInvalid; its message is in the log of the task', 'what it said is in the log of the task')
    >>> without_values("ValueError: ann [docs/runbook.md#table-missing] Street")
    'ValueError; its message is in the log of the task'
    """
    if SECTION.search(line):
        return line
    found = CLASS.match(line)
    return f"{found[0]}; its message is in the log of the task" if found else "what it said is in the log of the task"


def skip_unless(wanted: str) -> None:
    """Skip this task, and with it the tasks that need its result, unless a rendered condition is true.

    Raises:
        AirflowSkipException: `wanted` is anything but `True`.
    """
    if wanted != "True":
        raise AirflowSkipException("this table is not in the parameter `tables` of the run")


def describe_exit(code: int) -> str:
    """Describe the end of a process that failed.

    >>> describe_exit(2), describe_exit(-9)
    ('ended with exit code 2', 'was killed by SIGKILL (often out of memory)')
    """
    if code > 0:
        return f"ended with exit code {code}"
    often = " (often out of memory)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{often}"
