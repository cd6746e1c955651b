"""Rows of a table as a pandas frame, for what looks at a few dates as a whole: evaluation and baselines."""

from collections.abc import Iterable, Sequence
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lake import storage
from lake.table import Table


def read_frame(table: Table, days: Iterable[date], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the rows of some dates, by `dt`, then `user_id`.

    List columns hold numpy arrays; a column that may be null holds None there.

    Args:
        table: a pinned version.
        days: its partitions.
        columns: which columns; all when None. `dt` and `user_id` are always there.
    """
    wanted = set(days)
    names = table.spec.schema.fieldNames() if columns is None else ["user_id", *columns]
    stored = [name for name in dict.fromkeys(names) if name not in table.spec.partition_by]
    parts = []
    for file in table.files:
        if file.partition["dt"] in wanted:
            fs, inner = storage.filesystem(storage.join(table.path, file.path))
            with fs.open(inner, "rb") as stream:
                # One thread: pyarrow 14 may abort a process that ends just after its thread pool was used.
                rows = pq.ParquetFile(stream).read(columns=stored, use_threads=False)
            for place, field in enumerate(rows.schema):
                # All times are UTC; pandas' blocks for zoned ones are deprecated in the pandas that pyarrow 14 knows.
                if pa.types.is_timestamp(field.type):
                    rows = rows.set_column(place, field.name, rows.column(place).cast(pa.timestamp("us")))
            parts.append(rows.append_column("dt", pa.array([file.partition["dt"]] * len(rows), pa.date32())))
    if not parts:
        return pd.DataFrame(columns=[*stored, "dt"])
    frame = pa.concat_tables(parts).to_pandas(use_threads=False)
    return frame.sort_values(["dt", "user_id"], kind="stable", ignore_index=True)
