"""Source files: what ships is valid, your own is found by its path, and a mistake in one is told in words."""

import pytest
import yaml

from jobs.source import load_source, shipped_sources
from lake.errors import SourceInvalid

VALID = {
    "name": "mine",
    "description": "a log of my own",
    "format": "csv",
    "columns": ["who", "what", "when", "thing"],
    "user_id": "who",
    "item_id": "thing",
    "time": {"column": "when", "format": "epoch_s"},
    "behavior": {"column": "what", "values": {"look": "view", "undo": "ignore"}},
}


@pytest.fixture
def load(tmp_path):
    """Load a source file that says `VALID` but for the keys given; None leaves a key out."""

    def write_and_load(**changes):
        said = {key: value for key, value in {**VALID, **changes}.items() if value is not None}
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(said, allow_unicode=True), encoding="utf-8")
        return load_source(str(file))

    return write_and_load


def test_the_sources_that_ship():
    assert shipped_sources() == [
        "canonical",
        "completejourney",
        "export_zh",
        "rees46",
        "retailrocket",
        "taobao",
    ]


@pytest.mark.parametrize("name", shipped_sources())
def test_a_shipped_source_has_the_name_of_its_file(name):
    assert load_source(name).name == name


def test_your_own_source_is_found_by_its_path(load):
    source = load(encoding="gb18030", delimiter=";", header=False, repeats="keep")
    assert (source.name, source.encoding, source.header, source.repeats) == ("mine", "gb18030", False, "keep")


def test_what_a_source_does_not_say_has_a_default(load):
    source = load()
    assert (source.delimiter, source.quote, source.header, source.encoding) == (",", '"', True, "utf-8")
    assert (source.repeats, source.time.zone) == ("drop", "UTC")


def test_columns_that_are_read_are_named_once_and_those_without_which_no_row_is_an_event_are_required(load):
    source = load(category_id="thing")
    assert source.used_columns == ["who", "when", "what", "thing"]
    assert source.required_columns == ["who", "when", "what"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"delimeter": ";"}, r"mine\.yaml: delimeter: Extra inputs are not permitted", id="unknown key"),
        pytest.param(
            {"time": {"column": "when", "format": "epoch_s", "tz": "UTC"}},
            r"time\.tz: Extra inputs are not permitted",
            id="unknown key inside a part",
        ),
        pytest.param(
            {"time": {"column": "when", "format": "epoch_s", "zone": "Asia/Shangai"}},
            r"time\.zone: .*'Asia/Shangai' is not an IANA time zone such as Asia/Shanghai",
            id="misspelt zone",
        ),
        pytest.param(
            {"encoding": "gb-2312x"}, r"encoding: .*'gb-2312x' is not a known encoding", id="unknown encoding"
        ),
        pytest.param(
            {"encoding": "utf-16"},
            r"encoding: .*'utf-16' does not write a newline as one byte; convert the files to utf-8",
            id="an encoding in which lines cannot be found",
        ),
        pytest.param({"format": "xml"}, r"format: Input should be 'csv', 'jsonl' or 'parquet'", id="unknown format"),
        pytest.param({"delimiter": "||"}, r"delimiter: .*at most 1 character", id="delimiter of two characters"),
        pytest.param({"name": "My Log"}, r"name: .*should match pattern", id="a name that no column value should have"),
        pytest.param({"user_id": None}, r"user_id: Field required", id="no user"),
        pytest.param(
            {"repeats": "all"}, r"repeats: Input should be 'drop' or 'keep'", id="unknown handling of repeats"
        ),
        pytest.param(
            {"behavior": {"column": "what", "values": {"look": "glance"}}},
            r"behavior\.values\.look: Input should be 'view', 'search', .* or 'ignore'",
            id="a behavior that we do not have",
        ),
        pytest.param(
            {"behavior": {"column": "what"}},
            r"needs either `column` and `values`, or `constant` alone",
            id="no values",
        ),
        pytest.param(
            {"behavior": {"column": "what", "values": {"look": "view"}, "constant": "view"}},
            r"needs either `column` and `values`, or `constant` alone",
            id="values and a constant",
        ),
        pytest.param({"columns": None}, r"a csv source lists its `columns` in file order", id="csv without columns"),
        pytest.param(
            {"columns": ["who", "what", "thing"]},
            r"when is used but not among `columns`",
            id="a column that is not there",
        ),
        pytest.param(
            {"user_id": None, "delimeter": ";"},
            r"user_id: .*; delimeter: ",
            id="two mistakes are told at once",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(load, changes, told):
    with pytest.raises(SourceInvalid, match=told):
        load(**changes)


def test_a_file_that_is_not_yaml_is_told(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("name: [unclosed")
    with pytest.raises(SourceInvalid, match=r"broken\.yaml is not YAML"):
        load_source(str(file))


def test_an_empty_file_is_told(tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("")
    with pytest.raises(SourceInvalid, match=r"empty\.yaml: source: Input should be a valid dictionary"):
        load_source(str(file))


def test_a_path_at_which_nothing_stands_is_told():
    with pytest.raises(SourceInvalid, match=r"MEANDER_SOURCE=nowhere/mine\.yaml: there is no such file"):
        load_source("nowhere/mine.yaml")


def test_an_unknown_name_is_told_with_the_names_that_there_are():
    with pytest.raises(
        SourceInvalid, match=r"'taobo' is neither a shipped source \(canonical, .*taobao\) nor the path"
    ):
        load_source("taobo")
