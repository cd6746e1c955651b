"""The operators around a model: how the gate's word is shown."""

import json
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from dags.shared.assets import CHAMPION
from dags.shared.model import Promote
from lake import storage

RUN = "model_weekly--scheduled__2025-03-09T00:00:00+00:00"


class Told:
    """A task instance that keeps what is pushed to it."""

    run_id = RUN

    def __init__(self):
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


def promote(job, **decision):
    decision = {"version": 3, "champion": 2, "reasons": ["better on A", "worse on B"], **decision}
    context = {"ti": Told(), "outlet_events": {CHAMPION: SimpleNamespace(extra={})}}
    return job(f"print({json.dumps(decision)!r})", Promote), context, decision


def test_a_refused_candidate_makes_the_task_skipped_with_every_reason_and_is_told(job, lake):
    task, context, decision = promote(job, promoted=False)
    with pytest.raises(
        AirflowSkipException, match="refused version 3, champion stays version 2: better on A; worse on B"
    ):
        task.execute(context)
    assert context["ti"].pushed == {"return_value": decision}
    (told,) = (storage.read_json(str(file))["text"] for file in (lake / "lake" / "_alerts").glob("*.json"))
    assert "For information" in told
    assert "the gate has refused version 3: better on A; worse on B" in told
    assert "Predictions go on with the champion." in told


@pytest.mark.usefixtures("lake")
def test_a_refused_first_candidate_leaves_no_champion(job):
    task, context, _ = promote(job, promoted=False, champion=None)
    with pytest.raises(AirflowSkipException, match="refused version 3, there is no champion"):
        task.execute(context)


def test_a_promotion_is_told_to_the_asset(job):
    task, context, decision = promote(job, promoted=True, champion=3)
    assert task.execute(context) == decision
    assert context["outlet_events"][CHAMPION].extra == {"run_id": RUN, **decision}
    assert task.outlets == [CHAMPION]


def test_a_promotion_without_a_word_is_a_failure(job):
    with pytest.raises(AirflowException, match="did not print its decision"):
        job("print('hello')", Promote).execute({})
