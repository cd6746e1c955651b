"""Rows of a table as a pandas frame, for what looks at a few dates as a whole: evaluation and baselines."""

from collections.abc import Iterable, Sequence
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lake.table import DataFile, Table


def read_frame(
    table: Table, days: Iterable[date], columns: Sequence[str] | None = None, most_users: int | None = None
) -> pd.DataFrame:
    """Return the rows of some dates, by `dt`, then `user_id`.

    List columns hold numpy arrays; a column that may be null holds None there. One file at a time is in memory besides.

    Args:
        table: a pinned version.
        days: its partitions.
        columns: which columns; all when None. `dt` and `user_id` are always there.
        most_users: of so many users at most, those of these dates whose hashed ids are lowest: the same ones for
            everything that is compared. None for all.
    """
    wanted = set(days)
    names = table.spec.schema.fieldNames() if columns is None else ["user_id", *columns]
    stored = [name for name in dict.fromkeys(names) if name not in table.spec.partition_by]
    files = [file for file in table.files if file.partition["dt"] in wanted]
    users = None if most_users is None else users_of_lowest_hashes(table, files, most_users)
    parts = []
    for file in files:
        rows = table.read_file(file, stored)
        if users is not None:
            # Which kind of string a file holds depends on who wrote it.
            rows = rows.filter(pc.is_in(rows["user_id"], value_set=pa.array(users, rows["user_id"].type)))
        for place, field in enumerate(rows.schema):
            # All times are UTC; without a zone they are numpy's own times in the frame.
            if pa.types.is_timestamp(field.type):
                rows = rows.set_column(place, field.name, rows.column(place).cast(pa.timestamp("us")))
        parts.append(rows.append_column("dt", pa.array([file.partition["dt"]] * len(rows), pa.date32())))
    if not parts:
        return pd.DataFrame(columns=[*stored, "dt"])
    frame = pa.concat_tables(parts).to_pandas()
    ordered: pd.DataFrame = frame.sort_values(["dt", "user_id"], kind="stable", ignore_index=True)
    return ordered


def users_of_lowest_hashes(table: Table, files: list[DataFile], most: int) -> list[str]:
    """Return the users of some files, `most` at most, with the lowest hashes of their ids."""
    lowest = np.array([], object)
    for file in files:
        ids = table.read_file(file, ["user_id"])
        users = ids["user_id"].to_numpy()
        lowest = np.unique(np.concatenate([lowest, users.astype(object)]))
        lowest = lowest[np.argsort(pd.util.hash_array(lowest), kind="stable")[:most]]
    return list(lowest)
