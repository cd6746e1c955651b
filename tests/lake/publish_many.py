"""Publish many runs one after the other: a process of tests/lake/test_upkeep_at_once.py."""

import logging
from contextlib import suppress

from lake.errors import PublishRefused
from lake.publish import publish


def main(run_ids: list[str]) -> None:
    """Publish what each run has staged for `quarantine`, unless it is refused; any other failure ends the process."""
    logging.disable(logging.WARNING)
    for run_id in run_ids:
        with suppress(PublishRefused):
            publish("quarantine", run_id)
