"""Score every user of `interests` at a date T with one pinned model version, and stage the predictions.

Reads   interests    dt=T, one version of the table, and the files of a registered model version
Writes  predictions  dt=T, staged only

The model is the one that was champion on T, or the one that is named, never "the newest". Few users are scored by this
process, many by Python workers of Spark, each of which loads the model once. The rules of segments and of the risk
percentile are in docs/design.md under "Predictions: the rule".

Letters used for shapes in this module:

    N  users    C  categories    K  places of a list
"""

import argparse
import functools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from lake.days import utc_date
from lake.errors import TableMissing, run_main
from lake.labels import LABELS
from lake.rules import TOP_CATEGORIES, TOP_ITEMS
from lake.schemas import PREDICTIONS
from lake.session import spark_session
from lake.settings import settings
from lake.staging import Run, Staged, stage
from lake.table import Table
from model.arrays import Array
from model.data.lineage import SETTINGS, Value, differences, publishes, settings_of_state
from model.versions.heads import require_heads
from model.versions.registry import Registry
from model.versions.segments import SegmentRule, segments

if TYPE_CHECKING:
    from model.versions.artifact import Artifact

log = logging.getLogger(__name__)


# Rows predicted at once: the probabilities of 10,000 categories are 40 MB then; Spark's own batches would make 400.
ROWS_AT_ONCE = 1024
# Users of one Python worker of Spark, which needs seconds to import TensorFlow. So many at most are scored without one:
# it would be the only one, and this process does not have to start.
ROWS_PER_TASK = 20_000


# ---- the model in a worker ----


def load_artifact(address: str) -> "Artifact":
    """Load an artifact for prediction in one thread: of Spark workers there are as many as cores."""
    # Read by TensorFlow when it starts, so they are set before it is imported.
    for name, value in {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # several workers may share a GPU
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }.items():
        os.environ.setdefault(name, value)
    from model.versions.artifact import Artifact

    return Artifact.load(address)


@functools.lru_cache(maxsize=1)
def _loaded(load: Callable[[str], "Artifact"], address: str) -> "Artifact":
    """Keep the last artifact for as long as the worker lives; an older version's would only fill its memory.

    `load` has to be a function of a module: anything else reaches the worker as a new object with each task.
    """
    return load(address)


# ---- from numbers to numbers ----


def risk_percentiles(surprise: Array, quantiles: list[float]) -> Array:
    """Return where each surprise lies among those of the model's validation rows, `(N,)`, 0 to 100.

    Args:
        surprise: `(N,)`; NaN stays NaN.
        quantiles: the 0th to the 100th percentile of the validation rows, of equal distance.

    >>> risk_percentiles(np.array([0.0, 1.5, 9.0]), [1.0, 2.0, 3.0]).tolist()
    [0.0, 25.0, 100.0]
    """
    percentiles: Array = np.interp(surprise, quantiles, np.linspace(0, 100, len(quantiles)))
    return np.where(np.isnan(surprise), np.nan, percentiles)


def best(probabilities: Array, k: int) -> tuple[Array, Array]:
    """Return the columns of the `k` largest probabilities of each row and their values, both `(N, K)`, largest first.

    Equal ones stand in the order of their columns. What a row gives does not depend on the other rows.

    >>> columns, values = best(np.array([[0.1, 0.4, 0.2, 0.4]]), 3)
    >>> columns.tolist(), values.tolist()
    ([[1, 3, 2]], [[0.4, 0.4, 0.2]])
    """
    k = min(k, probabilities.shape[1])
    columns = np.sort(np.argpartition(-probabilities, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(probabilities, columns, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)


# ---- from rows to rows ----


def unseen_events(artifact: "Artifact", item_keys: pa.Array) -> Array:
    """Return how many events of each sequence have an item, and one that the model does not know, `(N,)`."""
    lengths = pc.list_value_length(item_keys).fill_null(0).to_numpy(zero_copy_only=False)
    keys = item_keys.flatten().to_numpy(zero_copy_only=False)
    user = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(user, weights=artifact.items.unseen(keys), minlength=len(lengths)).astype(np.int64)


def to_frame(states: pa.RecordBatch) -> pd.DataFrame:
    """Return rows of `interests` as pandas, with times in UTC."""
    # Without a zone they are numpy's own times in the frame.
    arrays = [
        column.cast(pa.timestamp("us")) if pa.types.is_timestamp(column.type) else column for column in states.columns
    ]
    frame: pd.DataFrame = pa.RecordBatch.from_arrays(arrays, names=states.schema.names).to_pandas()
    return frame


def predict_rows(artifact: "Artifact", version: int, states: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows of `predictions` for some rows of `interests`, in the same order."""
    frame = to_frame(states)
    prediction = artifact.predict(frame)
    category, category_p = best(np.asarray(prediction.categories), TOP_CATEGORIES)
    place, item_p = best(prediction.item_probabilities, TOP_ITEMS)
    item = artifact.item_ids(np.take_along_axis(prediction.items, place, 1), frame)
    surprise = np.asarray(prediction.surprise, np.float64)
    segment = segments(
        frame["history_events"].to_numpy(), frame["tenure_seconds"].to_numpy(), prediction.answers["churned"],
        prediction.answers["migrated"], SegmentRule.of(artifact.card),
    )  # fmt: skip
    columns = {
        "user_id": states.column("user_id"),
        "model_version": np.full(len(frame), version, np.int32),
        "category_ids": _lists(np.asarray(artifact.category_ids, object)[category], category_p >= 0),
        "category_probabilities": _lists(category_p.astype(np.float64), category_p >= 0),
        "current_category": states.column("dominant_category"),
        **{label.probability: np.asarray(prediction.answers[label.name], np.float64) for label in LABELS},
        # A user with few events has fewer items to come again than there are places.
        "item_ids": _lists(item, item_p > 0),
        "item_probabilities": _lists(item_p.astype(np.float64), item_p > 0),
        "surprise": pa.array(surprise, mask=np.isnan(surprise)),
        "risk_percentile": pa.array(
            risk_percentiles(surprise, artifact.card["surprise_quantiles"]), mask=np.isnan(surprise)
        ),
        "segment": pa.array(segment.tolist(), pa.string()),
        "unseen_events": unseen_events(artifact, states.column("item_keys")),
        "dt": states.column("dt"),
    }
    schema = to_arrow_schema(PREDICTIONS)
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _lists(values: Array, kept: Array) -> pa.Array:
    """Return `(N, K)` values as N lists of those that are kept."""
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values[kept]))


def predictions(
    states: DataFrame, address: str, version: int, load: Callable[[str], "Artifact"] = load_artifact
) -> DataFrame:
    """Return the predictions of one model version for rows of `interests`; partitions are scored as they come.

    Args:
        states: rows of `interests`.
        address: folder of the version's files, which every worker can read.
        version: its number.
        load: makes an artifact of an address, in the worker.
    """

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            artifact = _loaded(load, address)
            for at in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield predict_rows(artifact, version, batch.slice(at, ROWS_AT_ONCE))

    return states.mapInArrow(score, PREDICTIONS)


def predict_here(artifact: "Artifact", version: int, states: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return the predictions of one model version for batches of `interests`, made by this process."""
    scored = (predict_rows(artifact, version, batch) for batch in states)
    return pa.Table.from_batches(scored, to_arrow_schema(PREDICTIONS))


def states_at(table: Table, day: date) -> Iterator[pa.RecordBatch]:
    """Yield the rows of `interests` at a date as Spark gives them to its workers: with their date."""
    for _, batch in table.batches(day, ROWS_AT_ONCE):
        yield batch.append_column("dt", pa.array([day] * batch.num_rows, pa.date32()))


# ---- the job ----


def published_interests(day: date) -> Table:
    """Return the newest version of `interests`, which must hold the states at a date.

    Raises:
        TableMissing: they have not been published.
    """
    table = Table("interests")
    if table.basis(day) is None:
        raise TableMissing(f"the interests at {day} are not published yet; run jobs.interests --day {day} first")
    return table


def warn_of_other_states(table: Table, day: date, version: int, learnt_with: Mapping[str, Value]) -> None:
    """Warn when the interests at a date were made with another lookback, or other weights, than a version learnt from.

    Args:
        table: `interests`.
        day: the as-of date.
        version: of the model.
        learnt_with: its settings.
    """
    made_with = settings_of_state(publishes(table), day)
    for name in differences(made_with, learnt_with):
        log.warning(
            "the interests at %s were made with %s=%s, and version %d learnt from such of %s, so its predictions may "
            "be off; make them again with %s=%s, or train a model of %s",
            day, SETTINGS[name], made_with[name], version, learnt_with[name],
            SETTINGS[name], learnt_with[name], made_with[name],
        )  # fmt: skip


def main(argv: list[str] | None = None, load: Callable[[str], "Artifact"] = load_artifact) -> Staged:
    """Pin a table version and a model version, score, stage."""
    parser = argparse.ArgumentParser(
        prog="model.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--day", type=utc_date, required=True, metavar="T", help="as-of date, YYYY-MM-DD")
    parser.add_argument("--run-id", required=True, metavar="R", help="names what is staged")
    parser.add_argument(
        "--model-version", type=int, metavar="N", help="registered version to score with; default: the champion on T"
    )
    args = parser.parse_args(argv)
    run = Run(args.run_id, args.day, args.day)
    table = published_interests(args.day)
    registry = Registry.of(settings())
    version = args.model_version or registry.champion_at(args.day)
    address = registry.artifact_folder(version)
    require_heads(address)  # here, since what a worker raises is an error of Spark's
    warn_of_other_states(table, args.day, version, registry.settings_of(version))
    spark = spark_session("score", settings())
    states = table.read(spark, args.day, args.day)
    tasks = math.ceil(table.rows_by().get(args.day, 0) / ROWS_PER_TASK)
    if tasks > 1:
        scored = predictions(states.repartition(tasks, "user_id"), address, version, load).persist()
    else:
        scored = spark.createDataFrame(predict_here(load(address), version, states_at(table, args.day)), PREDICTIONS)
    try:
        with_item = F.size(F.filter("item_keys", lambda key: key != 0))
        events = states.agg(F.coalesce(F.sum(with_item), F.lit(0))).collect()[0][0]
        unseen = scored.agg(F.coalesce(F.sum("unseen_events"), F.lit(0))).collect()[0][0]
        staged = stage(
            scored,
            "predictions",
            run,
            owns=[args.day],
            # When it was staged, not what was read: another version of the model may replace these rows, an older one
            # too, and it reads the same interests.
            basis=run.basis,
            counts={"model_version": version, "as_of": str(args.day), "events": events, "unseen_events": unseen},
            inputs={"interests": table.version},
        )
    finally:
        scored.unpersist()
    share = 100 * unseen / events if events else 0.0
    log.info(
        "staged predictions of version %d for %d users at %s; %.1f %% of %d events have an item that it does not know",
        version, staged.rows, args.day, share, events,
    )  # fmt: skip
    return staged


if __name__ == "__main__":
    # By its module's name, so that the workers import what they run: a cache in `__main__` cannot be sent to them.
    from model import score

    run_main(score.main)
