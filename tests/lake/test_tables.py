"""What is said once of every table holds together, and costs nothing to read."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from lake import schemas
from lake.tables import GROUPS, TABLES, comes_after, groups_of, made_by, made_in, read_by, way_to
from tests.tables import KNOWN


@pytest.mark.parametrize("module", ["lake.tables", "lake.labels", "lake.rules"])
def test_what_dag_files_read_loads_no_engine(module):
    check = f"import sys, {module}; sys.exit(bool({{'pyspark', 'pandas', 'pyarrow', 'deltalake'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_every_table_has_columns_and_facts_and_they_agree():
    assert set(schemas.TABLES) == set(TABLES)
    for name, facts in TABLES.items():
        spec = schemas.TABLES[name]
        assert (spec.partition_by, spec.owned_by, spec.meaning) == (facts.partition_by, facts.owned_by, facts.meaning)


def test_the_tables_are_those_that_are_written_down_for_the_tests():
    facts = {name: (said.group, said.made_in, said.reads, said.every_day) for name, said in TABLES.items()}
    assert list(facts.items()) == list(KNOWN.items())


def test_a_table_stands_after_those_that_it_is_made_from():
    order = list(TABLES)
    early = [(name, read) for name in TABLES for read in TABLES[name].reads if order.index(read) >= order.index(name)]
    assert early == []


def test_what_makes_a_table_is_a_module_and_its_suite_has_its_name():
    assert [facts.made_by for facts in TABLES.values() if find_spec(facts.made_by) is None] == []
    assert [name for name in TABLES if find_spec(f"expectations.{name}") is None] == []


def test_tables_of_a_group_are_one_command_of_one_dag_and_stand_in_the_order_in_which_they_are_published():
    assert GROUPS["events"] == ("quarantine", "events")
    assert GROUPS["examples"] == ("examples",)
    assert [name for names in GROUPS.values() for name in names] == list(TABLES)
    for group, names in GROUPS.items():
        assert {TABLES[name].made_by for name in names} == {made_by(group)}
        assert {TABLES[name].reads for name in names} == {read_by(group)}
        assert len({TABLES[name].made_in for name in names}) == 1


def test_the_facts_of_a_group_are_those_of_its_tables():
    assert (made_by("events"), read_by("events")) == ("jobs.ingest", ())
    assert (made_by("examples"), read_by("examples")) == ("jobs.examples", ("interests", "events"))
    assert comes_after("events") == ()
    assert comes_after("examples") == ("interests", "events")


def test_a_dag_makes_its_tables_group_by_group():
    assert made_in("behavior_daily")[:3] == ("quarantine", "events", "sessions")
    assert groups_of("behavior_daily")[:2] == ("events", "sessions")
    assert (made_in("model_weekly"), groups_of("model_weekly")) == (("examples",), ("examples",))
    assert (made_in("monitor_daily"), groups_of("monitor_daily")) == ((), ())


def test_the_way_to_a_table_has_what_holds_it_up_and_no_more():
    assert way_to("quarantine") == ["quarantine"]
    assert way_to("sessions") == ["events", "sessions"]
    assert way_to("predictions") == ["events", "interests", "predictions"]
    assert way_to("examples") == ["events", "interests", "examples"], "in the order in which they are made"
