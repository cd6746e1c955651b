"""Rows of some dates as a frame: of everybody, or of the same few users for everything that is compared."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lake.publish import publish
from lake.table import Table
from model.data.frames import read_frame
from tests.lake.stagings import JAN_1, JAN_2, stage_files

USERS = [f"user {n}" for n in range(50)]


def test_some_users_are_those_with_the_lowest_hashes_with_all_of_their_rows(lake):
    # A user of the second date alone, and half of those of the first.
    for day, users in ((JAN_1, USERS), (JAN_2, [*USERS[::2], "late"])):
        stage_files("interests", f"run {day}", [{"user_id": user, "dt": day} for user in users], [day], basis=1)
        publish("interests", f"run {day}")
    table = Table("interests")
    everybody = read_frame(table, [JAN_1, JAN_2], ["frequency"])
    assert len(everybody) == 76

    known = np.array([*USERS, "late"], object)
    lowest = set(known[np.argsort(pd.util.hash_array(known))[:10]])
    some = read_frame(table, [JAN_1, JAN_2], ["frequency"], most_users=10)
    expected = everybody[everybody["user_id"].isin(lowest)].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected)
    pd.testing.assert_frame_equal(read_frame(table, [JAN_1, JAN_2], ["frequency"], most_users=51), everybody)

    # Another writer's strings: Delta says the same of them.
    for file in table.files:
        place = f"{table.path}/{file.path}"
        rows = pq.ParquetFile(place).read()
        longer = rows["user_id"].cast(pa.large_string())
        pq.write_table(rows.set_column(rows.schema.get_field_index("user_id"), "user_id", longer), place)
    pd.testing.assert_frame_equal(read_frame(table, [JAN_1, JAN_2], ["frequency"], most_users=10), expected)
