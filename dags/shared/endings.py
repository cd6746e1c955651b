"""How a task ends that does not succeed: failed, with or without another try, or skipped."""

import re
import signal

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

# Codes of errors that another try may resolve: a conflict with other runs, a machine or connection that was lost, or a
# landing that was still being written.
RETRYABLE_CODES = {
    "commit-contended",
    "worker-failed",
    "serving-busy",
    "serving-unavailable",
    "upkeep-failed",
    "landing-changed",
}


def raise_without_retry(error: Exception) -> None:
    """Raise an exception that Airflow does not retry if `error` names a section of the runbook, unless it is retryable.

    Such an error needs a person. Returns if `error` names none.
    """
    actionable = [
        line
        for line in str(error).splitlines()
        for section in re.findall(r"\[docs/runbook\.md#([a-z-]+)\]", line)
        if section not in RETRYABLE_CODES
    ]
    if actionable:
        raise AirflowFailException(actionable[-1].strip()) from error


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
