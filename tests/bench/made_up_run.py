"""A training run that was never trained, of the demo's size: what measurements of speed need, made in seconds.

Its rows are random, as many items, categories and events a user as the demo's log has, and its networks have random
weights: speed depends on shapes alone.
"""

from datetime import date, timedelta

import keras
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from lake.labels import NAMES
from lake.places import network_folder, table_path
from lake.table import Table
from model.data.vocabulary import Vocabulary
from model.network.network import Finetuned, Pretrained, build, network_config
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact

RUN = "made-up"
HORIZON = 28
USERS = 2048  # at each date, as in the demo
EVENTS = 50  # of most users; `tiny` has room for 64
CATEGORIES = 100, 42  # of a user's history, mean and deviation; `tiny` has room for 128


def make(dates: int, items: int, categories: int, preset: str) -> None:
    """Write the plan, the rows and the networks of a run into the lake of the settings.

    Args:
        dates: as-of dates to train on; one more, later, is for validation and one for the test.
        items: how many the vocabulary knows.
        categories: likewise.
        preset: names the network.
    """
    random = np.random.default_rng(0)
    days = [date(2017, 1, 7) + timedelta(days=7 * number) for number in range(dates)]
    valid, test = (days[-1] + timedelta(days=HORIZON * number) for number in (1, 2))
    for day in (*days, valid, test):
        rows = rows_of(day, random, items, categories)
        write_deltalake(table_path("examples"), rows, partition_by=["dt"], mode="append")
    versions = {"examples": Table("examples").version}
    TrainingPlan(RUN, test, versions, days, days, [valid], [test], HORIZON, HORIZON, 5, EVENTS, None, 1).save()
    known = [
        Vocabulary(field, np.arange(1, size + 1), [f"{n}" for n in range(size)], buckets, np.arange(size, 0, -1))
        for field, size, buckets in (("item_id", items, 64), ("category_id", categories, 8))
    ]
    keras.utils.set_random_seed(1)
    config = network_config(preset, *(vocabulary.size for vocabulary in known))
    networks = {"finetuned": build(Finetuned, config), "pretrained": build(Pretrained, config)}
    card = {"preset": preset, "name": "finetuned", "sequence_length": EVENTS}
    for name in ("pretrained", "finetuned"):
        kept = networks if name == "finetuned" else {"pretrained": networks["pretrained"]}
        Artifact(card, config, *known, **kept).save(network_folder(RUN, name))


def rows_of(day: date, random: np.random.Generator, items: int, categories: int) -> pa.Table:
    """Return the examples of a date: users with long histories, as the demo's mostly are."""

    def lists(low: int, high: int, lengths: np.ndarray, kind: str = "int64") -> pa.Array:
        values = pa.array(random.integers(low, high, int(lengths.sum())).astype(kind))
        return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), values)

    events = np.where(random.random(USERS) < 0.8, EVENTS, random.integers(1, EVENTS, USERS))
    profile = np.clip(random.normal(*CATEGORIES, USERS), 5, 218).astype(np.int64)
    in_order = np.concatenate([random.choice(categories, size, replace=False) + 1 for size in profile])
    offsets = np.concatenate([[0], np.cumsum(profile)]).astype(np.int32)
    shares = random.random(len(in_order))
    shares /= np.repeat(np.add.reduceat(shares, offsets[:-1]), profile)
    end = int(np.datetime64(day, "s").astype(int)) + 86_400
    columns = {
        "user_id": pa.array([f"u{number:05}" for number in range(USERS)]),
        "item_keys": lists(1, items + items // 5, events),  # a sixth is unknown
        "category_keys": lists(1, categories + 1, events),
        "behaviors": lists(1, 3, events, "int8"),
        "gap_seconds": lists(0, 10**6, events),
        "event_seconds": lists(end - 10**7, end, events),
        "longterm_category_keys": pa.ListArray.from_arrays(offsets, pa.array(in_order)),
        "longterm_shares": pa.ListArray.from_arrays(offsets, pa.array(shares)),
        **{name: lists(1, 40, profile) for name in ("longterm_counts", "longterm_days")},
        **{name: lists(0, 9, profile) for name in ("longterm_current_counts", "longterm_week_counts")},
        "longterm_age_seconds": lists(0, 10**7, profile),
        **{name: pa.array(random.integers(0, 10**6, USERS)) for name in ("recency_seconds", "tenure_seconds")},
        **{
            name: pa.array(random.integers(1, 90, USERS))
            for name in ("frequency", "active_days", "purchases", "history_events", "history_days_active")
        },
        "week_frequency": pa.array(random.integers(0, 9, USERS)),
        "spend": pa.array(random.random(USERS) * 100),
        "next_category_key": pa.array(random.integers(1, categories + 1, USERS)),
        "next_item_keys": lists(1, items, random.integers(1, 16, USERS)),
        **{name: pa.array(random.random(USERS) < 0.3) for name in NAMES},
        "dt": pa.array([day] * USERS),
    }
    return pa.table(columns)
