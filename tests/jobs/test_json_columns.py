"""The columns of JSON lines: keys that most objects have, and the kinds of their values."""

import json

import pytest

from jobs.json_columns import seen_in, usual_kinds


def lines(*rows):
    return [json.dumps(row) for row in rows]


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        pytest.param({"a": "x"}, {"a": {"text"}}, id="text"),
        pytest.param({"a": 1}, {"a": {"number"}}, id="a whole number"),
        pytest.param({"a": 1.5}, {"a": {"number"}}, id="a fraction: JSON does not tell them apart"),
        pytest.param({"a": True}, {"a": {"truth"}}, id="true, which is no number"),
        pytest.param({"a": None}, {"a": set()}, id="null has no kind"),
        pytest.param({"a": [1]}, {"a": {"list"}}, id="a list"),
        pytest.param({"a": {}}, {"a": {"object"}}, id="an object without keys"),
        pytest.param({"a": {"b": {"c": 1}}}, {"a.b.c": {"number"}}, id="inside of objects"),
        pytest.param({"a": {"b": {"c": {"d": 1}}}}, {"a.b.c": {"object"}}, id="deeper than is looked"),
    ],
)
def test_the_kind_of_a_value(row, kinds):
    assert seen_in(lines(row)) == {name: (1.0, frozenset(of)) for name, of in kinds.items()}


def test_the_share_is_that_of_the_objects():
    found = seen_in([*lines({"a": 1}, {"a": "x", "b": 1}, {"b": None}, [1], 7), "broken", ""])
    assert found == {
        "a": (2 / 3, frozenset({"number", "text"})),
        "b": (2 / 3, frozenset({"number"})),
    }
    assert seen_in([]) == {}


@pytest.mark.parametrize(
    ("seen", "known", "usual"),
    [
        pytest.param({"a": (0.5, {"text"})}, {}, {"a": "text"}, id="half of the objects have it"),
        pytest.param({"a": (0.49, {"text"})}, {}, {}, id="fewer"),
        pytest.param({"a": (0.05, {"text"})}, {"a": "text"}, {"a": "text"}, id="a known one that few have"),
        pytest.param({"a": (0.04, {"text"})}, {"a": "text"}, {}, id="a known one that hardly any has"),
        pytest.param({}, {"a": "text"}, {}, id="a known one that none has"),
        pytest.param({"a": (1, {"text", "number"})}, {}, {"a": "number or text"}, id="two kinds"),
        pytest.param({"a": (1, {"text"})}, {"a": "number or text"}, {"a": "number or text"}, id="one of two"),
        pytest.param({"a": (1, {"text", "list"})}, {"a": "text"}, {"a": "list or text"}, id="one more kind"),
        pytest.param({"a": (1, {"number"})}, {"a": "text"}, {"a": "number"}, id="another kind"),
        pytest.param({"a": (1, set())}, {"a": "text"}, {"a": "text"}, id="no value"),
        pytest.param({"a": (1, set())}, {}, {"a": "null"}, id="never a value"),
        pytest.param({"a": (1, {"text"})}, {"a": "null"}, {"a": "text"}, id="the first value"),
    ],
)
def test_which_columns_are_usual(seen, known, usual):
    assert usual_kinds({name: (share, frozenset(kinds)) for name, (share, kinds) in seen.items()}, known) == usual
