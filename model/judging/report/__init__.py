"""The report of an evaluation: `render` makes one HTML page of a `Report`."""

from model.judging.report.content import Report
from model.judging.report.render import render

__all__ = ["Report", "render"]
