"""What the rows of a date were made with: what their newest publish says, up to a version."""

from datetime import date

from lake.publish import publish
from lake.table import Table
from model.data.lineage import publishes, settings_of_examples, settings_of_state
from tests.lake.stagings import JAN_1, JAN_2, JAN_3, stage_files

BEGINNING = "view=1,search=1,favorite=2,cart=3,purchase=4"


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
    # Who noted no weights of behaviors had those that a shop begins with.
    weights = {"behavior_weights": BEGINNING}
    assert [settings_of_state(found, day) for day in (JAN_1, JAN_2, JAN_3)] == [
        {"lookback_days": 30, **weights},
        {"lookback_days": 90, **weights},
        {"lookback_days": 60, **weights},
    ]
    assert settings_of_state(publishes(Table("interests", 1)), JAN_2) == {"lookback_days": 30, **weights}


def test_examples_were_made_with_the_interests_that_they_read(lake):
    heavy = "view=2,search=1,favorite=2,cart=3,purchase=9"
    first = put("interests", "first", [JAN_1, JAN_2], 1, lookback_days=30)
    put("examples", "x", [JAN_1, JAN_2], 1, {"interests": first}, horizon_days=7, min_events=5, rows=3)
    second = put("interests", "second", [JAN_1, JAN_2], 2, lookback_days=60, behavior_weights=heavy)
    put("examples", "y", [JAN_2], 2, {"interests": second}, horizon_days=28, min_events=4, behavior_weights=heavy)
    labels, states = publishes(Table("examples")), publishes(Table("interests"))
    found = settings_of_examples(labels, states, JAN_1)
    assert found == {"lookback_days": 30, "horizon_days": 7, "min_events": 5, "behavior_weights": BEGINNING}
    found = settings_of_examples(labels, states, JAN_2)
    assert found == {"lookback_days": 60, "horizon_days": 28, "min_events": 4, "behavior_weights": heavy}
    # Labels by other weights than the interests beside them are like neither.
    put("examples", "z", [JAN_2], 3, {"interests": second}, horizon_days=28, min_events=4)
    found = settings_of_examples(publishes(Table("examples")), states, JAN_2)
    assert found["behavior_weights"] == f"{heavy} and {BEGINNING}"
    assert settings_of_examples(labels, states, JAN_3) == {}, "nobody has made any"


def test_a_table_whose_publishes_name_one_date_as_text_is_read_too(lake):
    stage_files("predictions", "p", [{"user_id": "u", "dt": JAN_1}], [JAN_1], 1, counts={"as_of": str(JAN_1)})
    publish("predictions", "p")
    assert list(publishes(Table("predictions"))) == [JAN_1]
