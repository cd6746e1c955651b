"""The data docs are one page that asks nothing of the network and shows what a log holds as text."""

import tomllib
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expectations.audit import check_of, validate
from expectations.docs import Check, render
from expectations.suite import WARNING, between, equal, not_null
from lake.staging import Staged, StagedFile
from tests.foreign import foreign

ROOT = Path(__file__).parents[2]
DAY = date(2025, 1, 1)
STAGED = Staged("events", "r", "20250102T000000-0badcafe", DAY, DAY, [DAY], 1, 1, [StagedFile("f", 1234, 1)])
AUDITED = datetime(2025, 1, 2, 3, 4, tzinfo=UTC)
FIGURES = pd.DataFrame({"day": [DAY], "rows": [1234], "late_share": [0.0456], "volume_ratio": [float("nan")]})
MARKUP = (
    """</code><script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)> & 'quoted' {{ 1 + 1 }}"""
)


class Reader(HTMLParser):
    """Collects the elements of a page, their attributes, and the text of each cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("br", "code", "p"):
            self.handle_data(" ")
        if tag in ("h1", "h2", "dt", "dd", "th", "td"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data

    def texts(self) -> list[str]:
        return [" ".join(cell.split()) for cell in self.cells]


def check(*examples: object, **changed: object) -> Check:
    said = {
        "expectation": "no price is negative",
        "limits": {"min_value": 0},
        "columns": ["price"],
        "severity": "critical",
        "success": False,
        "unexpected": 3,
        "looked_at": 1234,
        "examples": list(examples),
    }
    return Check(**{**said, **changed})


def page_of(*checks: Check, staged: Staged = STAGED, figures: pd.DataFrame = FIGURES) -> str:
    return render(staged, "failed", list(checks), figures, AUDITED)


@pytest.fixture(scope="module")
def results():
    """What Great Expectations finds of a row that is right and two that are not."""
    rows = pd.DataFrame({"price": [1.0, -2.5, None], "user": ["u", MARKUP, "v"], "a": [1, 1, 1], "b": [1, 1, 2]})
    expectations = [
        between("price", 0, None, "no price is negative"),
        gxe.ExpectColumnValuesToBeInSet(column="user", value_set=["u", "v"], severity=WARNING),
        equal("a", "b", "a is b"),
        *not_null("user"),
    ]
    context = gx.get_context(mode="ephemeral")
    return validate(context, "rows", rows, expectations, "SUMMARY")


def test_each_expectation_is_listed_with_what_was_found_of_it(results):
    by_columns = {(*found.columns, found.success): found for found in map(check_of, results)}
    price, user = by_columns["price", False], by_columns["user", False]
    pair, there = by_columns["a", "b", False], by_columns["user", True]
    assert price == check(-2.5, unexpected=1, looked_at=3)
    assert (user.expectation, user.severity, user.limits) == (
        "expect column values to be in set",
        "warning",
        {"value_set": ["u", "v"]},
    )
    assert (user.unexpected, user.looked_at, user.examples) == (1, 3, [f"text of {len(MARKUP)} characters"])
    assert (pair.columns, pair.unexpected, len(pair.examples)) == (["a", "b"], 1, 1)
    assert (there.success, there.unexpected, there.looked_at, there.examples) == (True, None, None, [])


def test_the_page_says_the_verdict_and_shows_examples_and_figures():
    met = check(expectation="met", success=True, unexpected=None, looked_at=None)
    texts = Reader(page_of(check(-2.5, "a\x1b[2J\u202e", behind="of 9 rows 3 for a reason"), met)).texts()
    assert texts == [
        *("events failed", "days", "2025-01-01 to 2025-01-01", "run", "r", "staging", "20250102T000000-0badcafe"),
        *("rows", "1,234", "audited", "2025-01-02 03:04 UTC", "expectations", "2, 1 not met"),
        *("Expectations", "found", "severity", "expectation", "column", "not met by", "such as"),
        *("not met", "critical", "no price is negative min_value 0 of 9 rows 3 for a reason", "price", "3 of 1,234"),
        r"-2.5 'a\x1b[2J\u202e'",
        *("met", "critical", "met min_value 0", "price", "", ""),
        *("Figures of each day", "day", "rows", "late_share", "volume_ratio"),
        *("2025-01-01", "1,234", "0.0456", "-"),
    ]


def test_what_a_log_or_a_person_has_named_is_text(results):
    named = Staged("events", MARKUP, MARKUP, DAY, DAY, [DAY], 1, 1, [])
    hostile = check(
        MARKUP,
        [MARKUP],
        expectation=MARKUP,
        limits={MARKUP: MARKUP},
        columns=[MARKUP],
        severity=MARKUP,
        behind=f"3 missing_user, such as {MARKUP}\x1b[2J\u202e\ud800",
    )
    page = page_of(hostile, *map(check_of, results), staged=named, figures=FIGURES.rename(columns={"rows": MARKUP}))
    read = Reader(page)
    assert set(read.elements) & {"script", "img", "svg", "iframe", "link", "object", "base", "form", "a"} == set()
    assert {name for name in read.attributes if name.startswith("on")} == set()
    assert MARKUP not in page
    assert read.texts().count(MARKUP) >= 3, "run, staging and column, whole"
    assert any(rf"3 missing_user, such as {MARKUP}\x1b[2J\u202e\ud800" in cell for cell in read.texts())


@given(st.text(st.characters(exclude_categories=()), max_size=30))
@example("<b onclick=x>")
@example("\ud800")
def test_whatever_a_log_holds_makes_no_element_and_can_be_written(text):
    quiet = Reader(page_of(check("x", limits={"value": "x"})))
    read = Reader(page_of(check(text, limits={"value": text})))
    page_of(check(text)).encode()
    assert (read.elements, read.attributes) == (quiet.elements, quiet.attributes)


def test_a_long_value_is_cut():
    page = page_of(check("a" * 5000))
    assert "a" * 299 + "... (5,002 characters)" in page
    assert "a" * 300 not in page


def test_the_page_asks_nothing_of_the_network(results):
    page = page_of(check(-2.5), *(check_of(result) for result in results))
    assert foreign(page) == []
    assert "default-src 'none'" in page
    assert {"src", "href", "srcset", "action"} & Reader(page).attributes == set()


def test_an_installed_package_has_the_template():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packaged = {file.name for pattern in patterns["expectations"] for file in (ROOT / "expectations").glob(pattern)}
    assert packaged == {"audit.html"}
