"""Which failures Airflow tries again, and what it tells of the others."""

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.shared.endings import raise_without_retry
from lake import errors
from lake.errors import (
    AuditFailed,
    CommitContended,
    InputInvalid,
    LandingChanged,
    MeanderError,
    PublishRefused,
    ServingBusy,
    ServingUnavailable,
    TableUnreadable,
    UpkeepFailed,
    WorkerFailed,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MeanderError)]


# Others were at work, or a machine, a store or a worker was lost: the next try may well succeed.
RETRYABLE = {
    *(CommitContended, LandingChanged, TableUnreadable, WorkerFailed),
    *(ServingBusy, ServingUnavailable, UpkeepFailed),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_may_pass_is_tried_again_and_what_needs_a_person_is_not(kind):
    said = AirflowException(f"Cannot execute.\n12:00 INFO hello\n12:01 ERROR meander: {kind('why')}\nbye")
    if kind in RETRYABLE:
        raise_without_retry(kind("why"))
        raise_without_retry(said)
        return
    for error in (kind("why"), said):
        with pytest.raises(AirflowFailException, match=rf"why \[docs/runbook.md#{kind.code}\]$"):
            raise_without_retry(error)


def test_the_cause_decides_whether_there_is_another_try_and_the_last_one_named_is_told():
    # A worker that ended because of what needs a person: another try ends as this one.
    lost = WorkerFailed(f"worker 1 ended with exit code 1; its last lines:\n    {InputInvalid('no column')}\n")
    with pytest.raises(AirflowFailException, match=r"^no column \[docs/runbook.md#input-invalid\]$"):
        raise_without_retry(lost)
    with pytest.raises(AirflowFailException, match="publish-refused"):
        raise_without_retry(AirflowException(f"{AuditFailed('first')}\nand so\n{PublishRefused('then')}"))
    raise_without_retry(AirflowException("Error code is: 137"))
