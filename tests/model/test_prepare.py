"""Planning a training: which dates and events it may know, in a small lake of weekly dates."""

import shutil
from datetime import date, datetime, timedelta

import pytest

from lake import storage
from lake.errors import InputInvalid, SettingsInvalid, TableMissing
from lake.publish import publish
from lake.settings import settings
from lake.table import Table
from model import prepare
from model.data.vocabulary import Vocabulary
from model.training.plan import TrainingPlan
from tests.lake.stagings import stage_files
from tests.model.standin_artifact import registry, save

# D, with a horizon of a week: what people did until February 19th is known.
AS_OF = date(2025, 2, 19)
JANUARY = [date(2025, 1, day) for day in (1, 8, 15, 22, 29)]
LATE_JANUARY, FEB_5, FEB_6, FEB_12, FEB_13 = date(2025, 1, 30), *(date(2025, 2, day) for day in (5, 6, 12, 13))


@pytest.fixture
def tables(lake, monkeypatch):
    """Publish examples and interests of these dates, and events that tell which of them a vocabulary knows."""
    monkeypatch.setenv("MEANDER_HORIZON_DAYS", "7")

    def table(name, run_id, rows, owns):
        stage_files(name, run_id, rows, owns, basis=1)
        publish(name, run_id)

    # Weekly dates, and three between them. On the 20th nobody was there, but a run has looked.
    with_examples = [*JANUARY, LATE_JANUARY, FEB_5, FEB_6, FEB_12, FEB_13]
    table("examples", "x", [{"user_id": "u", "dt": day} for day in with_examples], [*with_examples, date(2025, 1, 20)])
    # Of the 15th the states were never made; of the 13th, on which no training may look, they were.
    states = [day for day in with_examples if day != date(2025, 1, 15)]
    table("interests", "i", [{"user_id": "u", "dt": day} for day in states], states)

    def events(item, category, day, landed=None, times=5):
        return [
            {
                "event_id": f"{item} {n}",
                "user_id": "u",
                "event_time": datetime(day.year, day.month, day.day, 12),
                "item_id": item,
                "category_id": category,
                "dt": day,
                "landed": landed or day,
            }
            for n in range(times)
        ]

    log = [
        *events("early", "c1", date(2024, 12, 1), times=6),
        *events("rare", "c2", date(2025, 1, 3), times=4),  # one event too few for an item
        *events("on the last day", "c3", FEB_5),
        *events("of the validation", "c4", FEB_6),
        *events("of the test", "c5", FEB_13),
        *events("landed too late", "c6", FEB_5, landed=FEB_6),
    ]
    table("events", "e", log, sorted({row["landed"] for row in log}))


def planned(as_of=AS_OF, alike_from=None):
    return prepare.plan("r", as_of, 1, 1, settings(), alike_from=alike_from, warm_start=None, seed=5)


def test_a_plan_has_the_newest_dates_for_the_test_and_none_whose_labels_are_not_whole(tables):
    assert planned() == TrainingPlan(
        run_id="r",
        as_of=AS_OF,
        tables={"examples": 1, "interests": 1, "events": 1},
        # No labels are used of them, so they may lie in the gap before validation; never after it has begun.
        pretrain=[*(day for day in JANUARY if day != date(2025, 1, 15)), LATE_JANUARY, FEB_5],
        # The week after January 30th reaches into the validation, that after February 6th into the test.
        train=JANUARY,
        valid=[FEB_5],
        # The week after the 12th ends on D; that after the 13th does not.
        test=[FEB_12],
        horizon_days=7,
        lookback_days=30,
        min_events=5,
        sequence_length=50,
        warm_start=None,
        seed=5,
    )


def test_a_plan_on_an_earlier_day_knows_nothing_of_later_dates(tables):
    plan = planned(AS_OF - timedelta(days=7))
    # On the 12th the labels of February 5th had just become whole.
    assert (plan.test, plan.valid, plan.train) == ([FEB_5], [date(2025, 1, 29)], JANUARY[:4])
    assert plan.pretrain == [date(2025, 1, 1), date(2025, 1, 8), date(2025, 1, 22), date(2025, 1, 29)]
    with pytest.raises(SettingsInvalid, match="too few to train on: 1 from 2025-01-01 to 2025-01-01"):
        planned(date(2025, 1, 8))
    with pytest.raises(TableMissing, match="no examples whose horizon of 7 days ends by 2025-01-07"):
        planned(date(2025, 1, 7))


def restaged(table, arguments, run_id):
    """Return the commands that make some dates of a table again."""
    steps = f"--table {table} --run-id {run_id}"
    return (
        f"python -m jobs.{table} {arguments} --run-id {run_id} && "
        f"python -m expectations.audit {steps} && python -m lake.publish {steps}"
    )


def made_again(table, run_id, days, basis, interests=None, **settings_made_with):
    """Publish a table for some dates again, by a job that had these settings."""
    counts = {"as_of": [str(day) for day in days], "include_late": False, **settings_made_with}
    inputs = {} if interests is None else {"interests": interests}
    rows = [{"user_id": "u", "dt": day} for day in days]
    stage_files(table, run_id, rows, days, basis, counts=counts, inputs=inputs)
    publish(table, run_id)


def test_examples_by_other_weights_are_refused_with_the_commands_that_make_interests_and_examples_again(
    tables, monkeypatch
):
    made_again("examples", "by those that a shop begins with", JANUARY, 2)
    monkeypatch.setenv("MEANDER_BEHAVIOR_WEIGHTS", "view=2")
    with pytest.raises(InputInvalid) as refused:
        planned()
    in_force, run = "view=2,search=1,favorite=2,cart=3,purchase=4", "behavior_weights-view-2-search-1-favorite-2"
    assert "were made with MEANDER_BEHAVIOR_WEIGHTS=view=1,search=1,favorite=2,cart=3,purchase=4, and" in str(
        refused.value
    )
    assert f"Make them again with MEANDER_BEHAVIOR_WEIGHTS={in_force}: " in str(refused.value)
    made = [str(refused.value).index(f"python -m jobs.{table} ") for table in ("interests", "examples")]
    assert made == sorted(made), "interests first"
    assert f"--run-id {run}-cart-3-purchase-4-" in str(refused.value)


@pytest.mark.parametrize(("name", "other"), [("horizon_days", 14), ("min_events", 3)])
def test_examples_of_two_kinds_are_refused_with_both_values_and_the_command_that_makes_them_alike(tables, name, other):
    in_force = {"horizon_days": 7, "min_events": 5}
    made_again("examples", "as set", JANUARY[:2], 2, **in_force)
    planned()
    made_again("examples", "otherwise", JANUARY[2:], 3, **(in_force | {name: other}))
    with pytest.raises(InputInvalid) as refused:
        planned()
    variable = f"MEANDER_{name.upper()}"
    assert str(refused.value).startswith(
        f"the examples at 2025-01-15, 2025-01-22, 2025-01-29 were made with {variable}={other}, and this training has "
        f"{variable}={in_force[name]}: one model cannot learn from both. Make them again with "
        f"{variable}={in_force[name]}: "
        + restaged("examples", "--from 2025-01-15 --to 2025-01-29 --every 7", f"{name}-{in_force[name]}-2025-01-29")
        + ". Or train with "
    )
    # What the message says to do mends it; an older publish of a date does not count, nor does a date not yet known.
    made_again("examples", "again", JANUARY[2:], 4, **in_force)
    made_again("examples", "of no date that is known", [FEB_13], 5, horizon_days=14)
    planned()


def test_each_date_is_to_be_made_again_as_it_was_made_with_late_events_or_without(tables):
    # Two weeks apart, and a date that is in no step with them.
    made_again("examples", "otherwise", [JANUARY[0], JANUARY[2], LATE_JANUARY], 2, horizon_days=28)
    made_again("examples", "late", [FEB_5], 3, horizon_days=28, include_late=True)
    with pytest.raises(InputInvalid) as refused:
        planned()
    runs = [
        restaged("examples", "--from 2025-01-01 --to 2025-01-15 --every 14", "horizon_days-7-2025-01-15"),
        restaged("examples", "--day 2025-01-30", "horizon_days-7-2025-01-30"),
        restaged("examples", "--day 2025-02-05 --include-late", "horizon_days-7-2025-02-05"),
    ]
    assert f": {'; '.join(runs)}. Or train" in str(refused.value)


def test_older_examples_of_other_settings_are_left_out_and_told_where_those_of_the_weeks_are_alike(tables, caplog):
    made_again("examples", "of the horizon before", JANUARY[:2], 2, horizon_days=28)
    made_again("examples", "alike", JANUARY[2:], 3, horizon_days=7)
    plan = planned(alike_from=JANUARY[2])
    assert (plan.train, plan.valid, plan.test) == (JANUARY[2:], [FEB_5], [FEB_12])
    assert plan.pretrain == [JANUARY[3], JANUARY[4], LATE_JANUARY, FEB_5]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "model.prepare"]
    assert warning == (
        "the examples at 2025-01-01, 2025-01-08 are left out: they were made with MEANDER_HORIZON_DAYS=28, and this "
        "training has MEANDER_HORIZON_DAYS=7; to learn from them too, make them again with MEANDER_HORIZON_DAYS=7: "
        + restaged("examples", "--from 2025-01-01 --to 2025-01-08 --every 7", "horizon_days-7-2025-01-08")
    )
    # One of the weeks themselves is an error, which names that one alone.
    with pytest.raises(InputInvalid, match="the examples at 2025-01-08 were made with"):
        planned(alike_from=JANUARY[1])


def test_older_examples_of_the_same_settings_are_learnt_from(tables, caplog):
    assert planned(alike_from=JANUARY[2]) == planned()
    assert [record for record in caplog.records if record.name == "model.prepare"] == []


def test_examples_of_interests_with_another_lookback_are_refused(tables):
    made_again("interests", "long", [FEB_5, FEB_12], 2, lookback_days=60)
    long = Table("interests").version
    made_again("examples", "of long ones", [FEB_5, FEB_12], 2, interests=long, horizon_days=7)
    # The interests were made again, but not all of the examples that they stand in.
    made_again("interests", "short", [FEB_5, FEB_12], 3, lookback_days=30)
    made_again("examples", "of a short one", [FEB_12], 3, interests=Table("interests").version, horizon_days=7)
    with pytest.raises(
        InputInvalid,
        match=r"the examples at 2025-02-05 were made with MEANDER_LOOKBACK_DAYS=60, and this training has "
        r"MEANDER_LOOKBACK_DAYS=30: .*: python -m jobs.interests --day 2025-02-05 --run-id lookback_days-30-2025-02-05 "
        r"&& .*; python -m jobs.examples --day 2025-02-05 --run-id lookback_days-30-2025-02-05 && ",
    ):
        planned()


@pytest.mark.spark
def test_the_vocabulary_knows_what_had_happened_and_landed_when_the_last_training_labels_ended(
    spark, tables, lake, mlflow_store
):
    shutil.copy(mlflow_store, lake / "mlflow.db")
    arguments = ["--day", str(AS_OF), "--run-id", "r", "--valid-dates", "1", "--test-dates", "1", "--seed", "5"]
    # The run was done before and is champion: done again, it does not start from itself.
    for champion, more in (("r", []), ("another run", ["--cold"])):
        with registry().start_run(champion, "evaluate") as tracked:
            version = registry().register(save(lake / champion), {"as_of": str(AS_OF)}, tracked)
        registry().promote(version, AS_OF)
        plan = prepare.main([*arguments, *more])
        assert TrainingPlan.load("r") == plan == planned()
    # The labels of January 29th are the events up to February 5th.
    folder = storage.join(plan.folder, "vocabulary")
    items, categories = Vocabulary.load(folder, "item_id"), Vocabulary.load(folder, "category_id")
    assert (items.ids, items.counts.tolist()) == (["early", "on the last day"], [6, 5])
    assert categories.ids == ["c1", "c3", "c2"]
    # What is too rare shares 16 places of items and 2 of categories.
    assert (items.size, categories.size) == (1 + 16 + 2, 1 + 2 + 3)
