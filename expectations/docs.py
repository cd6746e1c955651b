"""The data docs of an audit as one HTML page that needs nothing else: no network, no other file, no script.

The template escapes what it is given: values of a log, and names that people have chosen.
"""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lake.days import days_in_words
from lake.staging import Staged
from lake.text import visible

# Longer values are cut.
MAX_CHARACTERS = 300

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Check:
    """What an audit found of one expectation.

    Attributes:
        expectation: in words.
        limits: its arguments, such as `{"min_value": 0}`.
        columns: that it looks at.
        severity: `critical` or `warning`.
        success: whether it is met.
        unexpected, looked_at: how many rows, or days of figures, do not meet it, and of how many; None where it is met.
        examples: some values that do not meet it, of texts only their length.
        days: on which it is not met.
        behind: for what reasons, with places, in the words of the message; empty where nothing is known.
    """

    expectation: str
    limits: dict[str, Any]
    columns: list[str]
    severity: str
    success: bool
    unexpected: int | None
    looked_at: int | None
    examples: list[Any]
    days: tuple[date, ...] = ()
    behind: str = ""


def value_text(value: Any) -> str:
    r"""Return a value of a log as text; characters that have no picture are escaped.

    >>> print(value_text("a\x1b[2J"), value_text(12), value_text(None))
    'a\x1b[2J' 12 None
    """
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}... ({len(text):,} characters)"


def figure_text(value: Any) -> str:
    """Return a figure of a day: whole numbers without decimals, a dash where there is none.

    >>> figure_text(1234.0), figure_text(0.05), figure_text(float("nan"))
    ('1,234', '0.05', '-')
    """
    if pd.isna(value):
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"


templates.filters["value"] = value_text
templates.filters["figure"] = figure_text
templates.filters["days"] = days_in_words
templates.filters["visible"] = visible


def render(staged: Staged, verdict: str, checks: list[Check], figures: pd.DataFrame, audited: datetime) -> str:
    """Return the page as HTML.

    Args:
        staged: what was audited.
        verdict: `passed`, `warned` or `failed`.
        checks: the expectations, in the order in which they are listed.
        figures: what was measured of each day, in its column `day`.
        audited: when.
    """
    return templates.get_template("audit.html").render(
        staged=staged,
        verdict=verdict,
        checks=checks,
        unmet=sum(not check.success for check in checks),
        columns=list(figures.columns),
        figures=figures.astype(object).values.tolist(),
        audited=f"{audited:%Y-%m-%d %H:%M} UTC",
    )
