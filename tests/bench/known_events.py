"""Which events were known on the evening of a date, for benches that run where the project is not installed."""

import pandas as pd


def first_arrivals(events: pd.DataFrame) -> pd.DataFrame:
    """Return each event with an item once, as it first arrived, by its time, then its id.

    Args:
        events: `event_id`, `item_id`, `event_time`, and `landed`, the day on which this copy arrived.
    """
    ordered = events.dropna(subset=["item_id"]).sort_values(["event_time", "event_id", "landed"])
    return ordered.drop_duplicates("event_id")


def known_at(events: pd.DataFrame, day: str) -> pd.DataFrame:
    """Return the events up to a date that had arrived by then, as `interests` of that date has them.

    Args:
        events: `dt` and `landed`, as texts.
        day: likewise.
    """
    return events[(events["dt"] <= day) & (events["landed"] <= day)]
