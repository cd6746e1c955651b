"""What the rows of a date were made with: what their newest publish says, up to a version."""

from datetime import date

from lake.publish import publish
from lake.table import Table
from model.data.lineage import publishes, settings_of_examples, settings_of_state
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, stage_files


def put(table: str, run_id: str, days: list[date], basis: int, inputs=None, **counts) -> int:
    counts = {"as_of": [str(day) for day in days], **counts}
    rows = [{"user_id": "u", "dt": day} for day in days]
    stage_files(table, run_id, rows, days, basis, counts=counts, inputs=inputs or {})
    publish(table, run_id)
    return Table(table).version


def test_the_newest_publish_of_a_date_counts_and_one_that_was_refused_does_not(lake):
    put("interests", "first", [JAN_1, JAN_2], 5, lookback_days=30)
    put("interests", "overtaken", [JAN_1, JAN_3], 4, lookback_days=60)
    put("interests", "newer", [JAN_2], 6, lookback_days=90)
    found = publishes(Table("interests"))
    assert [settings_of_state(found, day) for day in (JAN_1, JAN_2, JAN_3)] == [
        {"lookback_days": 30},
        {"lookback_days": 90},
        {"lookback_days": 60},
    ]
    assert settings_of_state(publishes(Table("interests", 1)), JAN_2) == {"lookback_days": 30}


def test_examples_were_made_with_the_interests_that_they_read(lake):
    first = put("interests", "first", [JAN_1, JAN_2], 1, lookback_days=30)
    put("examples", "x", [JAN_1, JAN_2], 1, {"interests": first}, horizon_days=7, min_events=5, rows=3)
    second = put("interests", "second", [JAN_1, JAN_2], 2, lookback_days=60)
    put("examples", "y", [JAN_2], 2, {"interests": second}, horizon_days=28, min_events=4)
    labels, states = publishes(Table("examples")), publishes(Table("interests"))
    assert settings_of_examples(labels, states, JAN_1) == {"lookback_days": 30, "horizon_days": 7, "min_events": 5}
    assert settings_of_examples(labels, states, JAN_2) == {"lookback_days": 60, "horizon_days": 28, "min_events": 4}
    assert settings_of_examples(labels, states, JAN_3) == {}, "nobody has made any"


def test_a_table_whose_publishes_name_one_date_as_text_is_read_too(lake):
    stage_files("predictions", "p", [{"user_id": "u", "dt": JAN_1}], [JAN_1], 1, counts={"as_of": str(JAN_1)})
    publish("predictions", "p")
    assert list(publishes(Table("predictions"))) == [JAN_1]
