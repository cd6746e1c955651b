"""Source files: what ships is valid, your own is found by its path, and a mistake in one is told in words."""

import re
from datetime import date, datetime

import pytest
import yaml

from jobs.landing_files import by_version
from jobs.source import load_source, shipped_sources
from lake.errors import SourceInvalid, SourceMismatch

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
        "diginetica",
        "dunnhumby",
        "export_zh",
        "ga4",
        "jd",
        "matomo",
        "otto",
        "rees46",
        "retailrocket",
        "segment",
        "snowplow",
        "taobao",
        "tmall",
        "yoochoose",
    ]


@pytest.mark.parametrize("name", shipped_sources())
def test_a_shipped_source_has_the_name_of_its_file(name):
    assert load_source(name).name == name


def test_your_own_source_is_found_by_its_path(load):
    source = load(encoding="gb18030", delimiter=";", header=False, repeats="keep")
    assert (source.name, source.encoding, source.header, source.repeats) == ("mine", "gb18030", False, "keep")


def test_a_format_has_the_names_that_people_give_it(load):
    assert [load(format=word, columns=None).format for word in ("json", "jsonl", "orc", "avro", "parquet")] == [
        *("jsonl", "jsonl"),
        *("parquet", "parquet", "parquet"),
    ]
    items = load(items={"item_id": "sku", "category_id": "kind", "format": "json"}).items
    assert items.format == "jsonl"


def test_what_a_source_does_not_say_has_a_default(load):
    source = load()
    assert (source.delimiter, source.quote, source.header, source.encoding) == (",", '"', True, "utf-8")
    assert (source.repeats, source.time.zone, source.folder_zone) == ("drop", "UTC", "UTC")
    assert (source.may_vanish, source.evolve) == ([], False)


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
            {"folder_zone": "New York"},
            r"folder_zone: .*'New York' is not an IANA time zone such as Asia/Shanghai",
            id="a zone of folders that is none",
        ),
        pytest.param(
            {"encoding": "gb-2312x"}, r"encoding: .*'gb-2312x' is not a known encoding", id="unknown encoding"
        ),
        pytest.param(
            {"encoding": "utf-7"},
            r"encoding: .*'utf-7' is not a known encoding.*convert the files to utf-8",
            id="an encoding that Python knows and Spark does not",
        ),
        pytest.param({"format": "xml"}, r"format: Input should be 'csv', 'jsonl' or 'parquet'", id="unknown format"),
        pytest.param({"delimiter": "a\\b"}, r"delimiter: .*cannot delimit values", id="a delimiter with a backslash"),
        pytest.param(
            {"columns": ["who", "what", "when", "thing", "who"]},
            r"`columns` has who more than once",
            id="two columns of one name",
        ),
        pytest.param(
            {"columns": ["who", "what", "when", "Who"], "item_id": "Who"},
            r"(Who and who|who and Who) are both used; Spark does not tell names apart by case",
            id="two columns whose names differ in case alone",
        ),
        pytest.param({"may_lack": ["price"]}, r"price is in `may_lack` but not used", id="may lack what is not used"),
        pytest.param(
            {"each": "events"}, r"`each` of a csv file is a column of text: say in `split`", id="a list in csv"
        ),
        pytest.param({"split": " "}, r"`split` says how the text of one list is split; name its column", id="no list"),
        pytest.param(
            {"format": "jsonl", "columns": None, "each": "item", "split": " ", "item_id": "item.id"},
            r"`split:  ` makes texts, and a part of them is read; for objects, say json",
            id="a part of a text",
        ),
        pytest.param(
            {"each": "things", "split": "json", "item_id": "things.id"},
            r"things is used but not among `columns`",
            id="a list of JSON that the file does not have",
        ),
        pytest.param(
            {"format": "jsonl", "columns": None, "each": ["visits", "items"], "item_id": "visits.items.id"},
            r"`each` has items after visits, but is not inside of it, as visits.items is",
            id="a list that is in no other",
        ),
        pytest.param(
            {"format": "jsonl", "columns": None, "item_id": "who.id"},
            r"who is read as a value, and who\.id as a part of it",
            id="a value that is an object too",
        ),
        pytest.param(
            {"format": "jsonl", "columns": None, "each": "things"},
            r"`each` is things, of which no part is read",
            id="a list that nothing is read from",
        ),
        pytest.param({"delimiter": "'", "quote": "'"}, r"cannot be around values", id="a quote that delimits"),
        pytest.param({"quote": "", "escape": "backslash"}, r"needs a quote character", id="escapes and no quotes"),
        pytest.param({"multiline": True, "quote": ""}, r"`multiline` is for csv files with a quote", id="open lines"),
        pytest.param(
            {"user_id": ["who", 5]}, r"user_id: .*the name of a column, a list of names, or \{sql: ", id="no name"
        ),
        pytest.param(
            {"price": {"sql": "cast(thing as int)"}}, r"price: .*write try_cast", id="an expression that may fail"
        ),
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
        pytest.param(
            {"columns": None, "header": False},
            r"a csv source without a header lists its `columns` in file order",
            id="csv without columns",
        ),
        pytest.param(
            {"columns": ["who", "what", "thing"]},
            r"when is used but not among `columns`",
            id="a column that is not there",
        ),
        pytest.param(
            {"may_vanish": ["price"]},
            r"price is in `may_vanish`, but no column is named for it",
            id="a field that may vanish and has no column",
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


def test_a_few_aliases_are_no_way_to_write_a_file_of_billions_of_parts(tmp_path):
    """A contract comes from a supplier: 300 bytes of aliases of aliases would take hours and all memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(SourceInvalid, match=r"bomb\.yaml has more than 100,000 parts; write less, without aliases"):
        load_source(str(file))


def test_a_file_that_is_not_yaml_is_told(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("name: [unclosed")
    with pytest.raises(SourceInvalid, match=r"broken\.yaml is not YAML"):
        load_source(str(file))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param("user_id: who\nuser_id: thing", r"line 9: the key user_id is also in line 8", id="a key twice"),
        pytest.param("quote: 0", r"quote: .*valid string; write '0' in quotes \(line 8\)", id="a number"),
        pytest.param("quote: no", r"quote: .*valid string; write 'no' in quotes \(line 8\)", id="a truth value"),
        pytest.param("delimiter: |", r"delimiter: .*write '\|' in quotes \(line 8\)", id="the sign of a block"),
        pytest.param("guests: {on: 1}", r"line 8: YAML does not read on as text; write 'on' in quotes", id="a key"),
        pytest.param("delimeter: ;", r"delimeter: .*; did you mean delimiter\? \(line 8\)", id="a misspelt key"),
        pytest.param("time: {column: when, format: unix}", r"time\.format: .*write epoch_s.*\(line 8\)", id="inside"),
        pytest.param("? [a]\n: b", r"line 8: expected a word as key", id="a list as key"),
        pytest.param("quote: &a [*a]", r"is not YAML|quote: ", id="a list inside of itself"),
        pytest.param("guests: {users: [2024-13-45]}", r"is not YAML: month must be", id="a date that is none"),
        pytest.param("\tquote: x", r"is not YAML: .*line 8", id="a tab"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_write(tmp_path, written, told):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\ndescription: d\nformat: csv\nheader: false\ncolumns: [who, when, thing]\nitem_id: thing\n"
        f"behavior: {{constant: view}}\n{written}\n"
        + ("" if written.startswith("time") else "time: {column: when, format: epoch_s}\n")
        + ("" if written.startswith("user") else "user_id: who\n")
    )
    with pytest.raises(SourceInvalid, match=told):
        load_source(str(file))


def test_a_file_in_another_encoding_is_told_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes("name: mine\ndescription: Zürich".encode("latin-1"))
    with pytest.raises(SourceInvalid, match=r"mine\.yaml: line 2 has the byte 0xfc, which is not UTF-8"):
        load_source(str(file))


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(VALID).encode())
    assert load_source(str(file)).name == "mine"


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [
        ("latin-1", "ISO-8859-1"),
        ("L1", "ISO-8859-1"),
        ("iso-8859-15", "ISO-8859-15"),
        ("utf-8-sig", "UTF-8"),
        ("UTF8", "UTF-8"),
        ("cp1252", "windows-1252"),
        ("windows-1251", "windows-1251"),
        ("sjis", "Shift_JIS"),
        ("utf-16", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
    ],
)
def test_an_encoding_has_the_name_that_java_knows(load, encoding, charset):
    assert load(encoding=encoding).charset == charset


def test_a_tab_may_be_written_without_quotes(load):
    assert load(delimiter=r"\t").delimiter == "\t"


def test_words_for_null_count_in_each_case_and_a_source_may_have_its_own(load):
    def matched(pattern, *texts):
        return [text for text in texts if re.search(pattern, text)]

    words = ("\\N", "NULL", "null", "Null", "nan", "NaN", "n/a", "none", "(NOT SET)", "-")
    assert matched(load().null_pattern(), *words, "nulls", "anan", "--", "", "N") == list(words)
    assert matched(load().null_pattern(but=["Null"]), "NULL", "nan") == ["nan"]
    assert matched(load(nulls=["leer"]).null_pattern(), "leer", "LEER", "NULL") == ["leer", "LEER"]
    assert matched(load(nulls=[]).null_pattern(), "NULL", "") == []


def test_the_first_of_several_columns_and_an_expression_are_columns_that_are_read(load):
    source = load(
        user_id=["who", "thing"], behavior={"column": {"sql": "if(`what` is null, when, 'x')"}, "values": {"x": "view"}}
    )
    assert source.required_columns == ["who", "thing", "when", "what"]


VERSIONS = [
    {"from": date(2025, 3, 1), "delimiter": ";", "item_id": None},
    {"from": date(2025, 5, 1), "delimiter": "|"},
    {"from": date(2025, 4, 1), "files": "orders/*", "behavior": {"constant": "purchase"}},
    {"files": "*.jsonl", "format": "jsonl", "columns": None},
]


@pytest.mark.parametrize(
    ("day", "name", "expected"),
    [
        pytest.param(date(2025, 2, 28), "a.csv", ("csv", ",", True, None), id="before all"),
        pytest.param(date(2025, 3, 1), "a.csv", ("csv", ";", False, None), id="on the first day of a version"),
        pytest.param(date(2025, 4, 30), "a.csv", ("csv", ";", False, None), id="on the last one"),
        pytest.param(
            date(2025, 5, 1), "a.csv", ("csv", "|", True, None), id="of the source's keys, not the one before"
        ),
        pytest.param(date(2025, 3, 31), "orders/a.csv", ("csv", ";", False, None), id="before files are another kind"),
        pytest.param(date(2025, 4, 1), "orders/a.csv", ("csv", ",", True, "purchase"), id="by the name of the file"),
        pytest.param(date(2025, 6, 1), "orders/a.csv", ("csv", ",", True, "purchase"), id="also after later versions"),
        pytest.param(date(2020, 1, 1), "deep/a.jsonl", ("jsonl", ",", True, None), id="on every day"),
    ],
)
def test_a_version_counts_for_its_files_from_its_day_on(load, day, name, expected):
    source = load(versions=VERSIONS).of(day, name)
    assert (source.format, source.delimiter, bool(source.item_id), source.behavior.constant) == expected
    assert source.name == "mine"


def test_what_is_the_same_for_all_versions_counts_for_each_of_them(load):
    source = load(
        item_id="a", price="b", columns=None, may_vanish=["item_id", "price"], evolve=True, versions=VERSIONS[:1]
    )
    (version,) = source.versions
    # The version has no item, so that none can vanish from it.
    assert (version.source.evolve, version.source.may_vanish) == (True, ["price"])


def test_words_for_null_have_the_form_that_texts_are_brought_into(load):
    decomposed = "na\u0303o"
    source = load(nulls=[decomposed, "-"])
    assert re.match(source.null_pattern().replace("(?iu)", "(?i)"), "n\u00e3o")
    assert not re.match(source.null_pattern(but=[decomposed]).replace("(?iu)", "(?i)"), "n\u00e3o")


def test_a_file_that_two_versions_match_is_told(load):
    source = load(versions=VERSIONS)
    with pytest.raises(
        SourceMismatch, match=r"dt=2025-04-01/orders/a\.jsonl: .*patterns \*\.jsonl and orders/\*; make"
    ):
        source.of(date(2025, 4, 1), "orders/a.jsonl")


def test_files_are_grouped_by_their_version(load):
    source = load(versions=VERSIONS)
    files = [f"/x/dt=2025-0{month}-01/{name}" for month, name in ((2, "b"), (3, "a"), (2, "c"), (3, "dt=2025-01-01/a"))]
    groups = by_version(source, files)
    assert [(version.delimiter, names) for version, names in groups] == [
        (",", [files[0], files[2]]),
        (";", [files[1], files[3]]),
    ]
    assert by_version(source, []) == [(source, [])]


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"from": 1}, "versions: expected a list"),
        ([{"delimiter": ";"}], "versions.0: expected `from`"),
        ([{"from": "2025"}], "versions.0.from: expected a date such as 2025-03-01, found '2025'"),
        ([{"from": datetime(2025, 3, 1, 12)}], "versions.0.from: expected a date"),
        ([{"files": ""}], "versions.0.files: expected a pattern"),
        ([{"files": "a", "name": "other"}], "versions.0.name: it is the same for all versions"),
        ([{"files": "a", "repeats": "keep"}], "versions.0.repeats: it is the same"),
        ([{"files": "a"}, {"files": "a"}], "two count from 0001-01-01 for the same files"),
        (
            [{"files": "a", "delimitr": ";"}],
            "versions.0.delimitr: Extra inputs are not permitted; did you mean delimiter?",
        ),
        (
            [{"files": "a", "time": {"column": "when", "format": "%s"}}],
            "versions.0.time.format: '%s' is no time format",
        ),
        (
            [{"files": "a", "time": {"column": "when", "format": ["iso8601", "%s"]}}],
            "versions.0.time.format: '%s' is no time format",
        ),
        (
            [{"files": "a", "time": {"column": "when", "format": ["epoch_s", "iso8601"]}}],
            "versions.0.time.format: any number is a time in epoch_s, so that what stands behind it is not tried",
        ),
        (
            [{"files": "a", "time": {"column": "when", "format": 7}}],
            "versions.0.time.format: Input should be a valid string: a format, or a list of formats; write '7'",
        ),
    ],
)
def test_a_mistake_in_a_version_is_told(load, versions, told):
    with pytest.raises(SourceInvalid, match=re.escape(told)) as raised:
        load(versions=versions)
    assert re.search(r"\(line \d+\)", str(raised.value))


@pytest.fixture
def combine(load, tmp_path):
    """Write two sources, and one that consists of sources; return what loads the latter, with some keys changed."""

    def write_and_load(**changes):
        for name, of in (("web", {"may_vanish": ["item_id"]}), ("app", {"versions": VERSIONS[1:2]}), ("own", {})):
            versions = VERSIONS[2:] if name == "own" else of.get("versions", [])
            said = {**VALID, **of, "name": name, "versions": versions}
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(said))
        (tmp_path / "kept.yaml").write_text(yaml.safe_dump({**VALID, "name": "kept", "repeats": "keep"}))
        (tmp_path / "again.yaml").write_bytes((tmp_path / "web.yaml").read_bytes())
        said = {"name": "shop", "description": "both", "sources": {"web/*": "web.yaml", "app/*": "app.yaml"}, **changes}
        (tmp_path / "shop.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
        return load_source(str(tmp_path / "shop.yaml"))

    return write_and_load


def test_a_source_may_consist_of_others_each_with_its_files_versions_and_name(combine):
    source = combine()
    assert (source.name, source.description, source.names) == ("shop", "both", ["app", "web"])
    assert source.may_vanish == ["item_id"]
    days = (date(2025, 4, 30), date(2025, 5, 1))
    assert [source.of(day, "app/a.csv").delimiter for day in days] == [",", "|"]
    assert [source.of(day, "web/deep/a.csv").name for day in days] == ["web", "web"]
    assert [set(source.on(day)) for day in days] == [{"web/*", "app/*"}] * 2
    with pytest.raises(
        SourceMismatch, match=r"dt=2025-04-30/a\.csv: source shop has no source for it: its patterns are"
    ):
        source.of(days[0], "a.csv")
    assert combine(sources={"a*": "web.yaml", "b*": "canonical"}).names == ["canonical", "web"]


def test_several_patterns_may_have_one_source_so_that_old_days_keep_their_names(combine):
    source = combine(sources={"web/*": "web.yaml", "app/*": "app.yaml", "export-*": "app.yaml"})
    assert source.names == ["app", "web"]
    for day, delimiter in ((date(2025, 4, 30), ","), (date(2025, 5, 1), "|")):
        files = [f"/x/dt={day}/{name}" for name in ("export-1.csv", "app/2.csv", "web/3.csv")]
        groups = [(version.name, version.delimiter, names) for version, names in by_version(source, files)]
        assert groups == [("app", delimiter, files[:2]), ("web", ",", files[2:])]


def test_a_file_that_the_patterns_of_two_sources_match_is_told(combine):
    source = combine(sources={"web/*": "web.yaml", "web/a*": "app.yaml"})
    with pytest.raises(SourceMismatch, match=r"several sources for it, by the patterns web/\* and web/a\*; make"):
        source.of(date(2025, 4, 1), "web/a.csv")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "csv"}, "expected `name`, `description` and `sources`, and no other key"),
        ({"sources": {"web/*": "web.yaml"}}, "two or more patterns of names"),
        ({"sources": ["web.yaml", "app.yaml"]}, "two or more patterns of names"),
        ({"sources": {"a": ["web.yaml"], "b": "app.yaml"}}, "sources: expected text such as"),
        ({"name": "web"}, "their names have to differ from each other and from 'web'"),
        ({"sources": {"a": "web.yaml", "b": "kept.yaml"}}, "`repeats` has to be the same for all"),
        ({"sources": {"a": "web.yaml", "b": "own.yaml"}}, "own.yaml has `files` itself; name its parts here"),
        ({"name": "Shop"}, "name: String should match pattern"),
        ({"name": ["shop"]}, "name: Input should be a valid string"),
        ({"sources": {"a": "web.yaml", "b": "app.yaml", "c": "again.yaml"}}, "found web, app, web"),
        ({"sources": {"a": "web.yaml", "b": "web.yaml"}}, "expected two or more; their names have to differ"),
    ],
)
def test_a_mistake_in_a_source_of_sources_is_told(combine, changes, told):
    with pytest.raises(SourceInvalid, match=re.escape(told)) as raised:
        combine(**changes)
    assert re.search(r"shop\.yaml: .*\(line \d+\)", str(raised.value))


def test_a_source_of_sources_is_no_part_of_one_not_even_of_itself(combine):
    with pytest.raises(SourceInvalid, match=r"shop\.yaml: sources: \S+shop\.yaml has `sources` itself; name its parts"):
        combine(sources={"a": "web.yaml", "b": "shop.yaml"})


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
        SourceInvalid, match=r"'taobo' is neither a shipped source \(canonical, .*yoochoose\) nor the path"
    ):
        load_source("taobo")
