"""How a task ends that does not succeed: failed, to be tried again or for good, or skipped."""

import re
import signal

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

# Others were first, or a machine was lost: the next try may well succeed.
MAY_PASS = {"commit-contended", "worker-failed", "serving-busy", "serving-unavailable"}


def fail_for_good(error: Exception) -> None:
    """Raise what Airflow does not retry when `error` names a section of the runbook: that needs a person."""
    actionable = [
        line
        for line in str(error).splitlines()
        for section in re.findall(r"\[docs/runbook\.md#([a-z-]+)\]", line)
        if section not in MAY_PASS
    ]
    if actionable:
        raise AirflowFailException(actionable[-1].strip()) from error


def skip_unless(wanted: str) -> None:
    """Skip this task, and with it what needs its work, when a rendered condition says so.

    Raises:
        AirflowSkipException: `wanted` is anything but `True`.
    """
    if wanted != "True":
        raise AirflowSkipException("this table is not among those that the run was asked to make")


def how_it_ended(code: int) -> str:
    """Say in words how a process ended.

    >>> how_it_ended(2), how_it_ended(-9)
    ('ended with exit code 2', 'was ended by SIGKILL (often: the memory was used up)')
    """
    if code > 0:
        return f"ended with exit code {code}"
    often = " (often: the memory was used up)" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{often}"
