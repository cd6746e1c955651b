"""A run id leads back to the run of Airflow from which it was made, whatever that one is called."""

from datetime import date, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dags.shared.run_ids import NAMED_DAGS, airflow_run, of_chunk, of_dag, of_days, of_person, of_plan
from lake.places import run_folder

JAN_1, JAN_2 = date(2025, 1, 1), date(2025, 1, 2)
# Whoever triggers a run may give it any id; Airflow itself begins those of its own with a kind of run.
ANY_RUN = st.one_of(
    st.sampled_from(["scheduled__2025-03-01T00:00:00+00:00", "manual__2025-01-01", "a--b", "--", "run--2025-01-01"]),
    st.text(min_size=1),
)


@given(st.sampled_from(NAMED_DAGS), ANY_RUN)
def test_a_run_of_a_dag_that_is_named_is_found_again(dag_id, run):
    assert airflow_run(of_dag(dag_id, run)) == (dag_id, run)


@given(ANY_RUN, st.dates())
def test_a_chunk_leads_to_its_run_of_history(run, first):
    # These beginnings belong to others.
    assume(not f"{run}--".startswith(("cli-", "plan--", *(f"{dag_id}--" for dag_id in NAMED_DAGS))))
    assert airflow_run(of_chunk(run, first)) == ("behavior_history", run)


@pytest.mark.parametrize("kind", ["scheduled", "backfill", "manual", "asset_triggered"])
def test_an_id_of_airflows_own_is_that_of_a_run_of_behavior_daily(kind):
    run = f"{kind}__2025-03-01T00:00:00+00:00"
    assert airflow_run(run) == ("behavior_daily", run)


@pytest.mark.parametrize(
    "run_id",
    [
        of_days(JAN_1, JAN_2),
        of_person(),
        of_plan("sessions", JAN_1, JAN_2),
        # Nor does Airflow know these.
        "r",
        "predict_daily--",
        "--2025-01-01",
        "behavior_daily",
        "manual_2025-01-01",
        "r--2025-1-1",
    ],
    # The first two hold the time or are random, and every process of the tests has to know a test by the same name.
    ids=["days", "person", "plan", "plain", "no run", "no dag", "a dag", "one underscore", "no date"],
)
def test_of_what_was_run_without_airflow_there_is_no_run(run_id):
    assert airflow_run(run_id) is None


@pytest.mark.parametrize("make", [lambda: of_days(JAN_1, JAN_2), of_person], ids=["days", "person"])
def test_what_a_person_runs_has_another_id_each_time(make):
    ids = [make() for _ in range(20)]
    assert len(set(ids)) == 20


def test_what_runs_at_once_is_kept_apart(lake):
    run = "manual__2025-04-01T00:00:00+00:00"
    ids = [run, of_chunk(run, JAN_1), of_chunk(run, JAN_1 + timedelta(days=1)), of_dag("predict_daily", run)]
    ids += [of_dag("monitor_daily", run), of_plan("sessions", JAN_1, JAN_2), of_plan("interests", JAN_1, JAN_2)]
    assert len({run_folder(run_id) for run_id in ids}) == len(ids)
