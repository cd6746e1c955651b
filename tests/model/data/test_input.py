"""Rows through Petastorm: the same global batches on any number of workers, counted, seeded, resumable."""

import threading
from datetime import date
from itertools import chain

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from lake.errors import InputInvalid
from lake.table import Table
from lake.upkeep import compact
from model.data.features import pad
from model.data.input import Counts, Epoch, Input
from model.data.kept import bytes_of
from tests.model.tiny_rows import COLUMNS, FIELDS, source, transform, write

# One huge file, an empty one, and one of small row groups: 1023 rows.
UNEVEN = [[900], [], [3], [40, 1, 25], [54]]
ROWS = 1023


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write(tmp_path_factory.mktemp("rows"), UNEVEN)


def ids(epoch: Epoch) -> list[list[int]]:
    """Return the ids of each batch, in their order."""
    return [batch["id"].tolist() for batch in epoch.batches()]


def together(epochs: list[Epoch]) -> list[list[int]]:
    """Return the global batches: step by step, what all workers got, in the order of the workers."""
    return [list(chain(*parts)) for parts in zip(*map(ids, epochs), strict=True)]


def test_the_global_batches_do_not_depend_on_the_number_of_workers(files):
    batches = {}
    for workers in (1, 2, 4):
        epochs = [source(files, shuffle_rows=100).epoch(0, 60, 4, worker, workers, 5) for worker in range(workers)]
        assert {epoch.steps for epoch in epochs} == {17}
        batches[workers] = together(epochs)

        counts = [epoch.counts for epoch in epochs]
        assert {c.total for c in counts} == {ROWS}
        assert [c.used for c in counts] == [17 * 60 // workers] * workers
        assert [c.skipped for c in counts] == [3] + [0] * (workers - 1)
        assert sum(c.used + c.skipped for c in counts) == ROWS
        assert [c.repeated for c in counts] == [0] * workers
    assert batches[1] == batches[2] == batches[4]
    seen = list(chain(*batches[1]))
    assert len(seen) == len(set(seen)) == 17 * 60


def test_what_the_readers_read_is_counted_by_row_groups(files):
    # In order and in four ranges of 240 places, the first three of the huge row group alone; the fourth takes its end.
    epochs = [source(files, shuffle_rows=0).once(240, 4, worker, 4) for worker in range(4)]
    assert together(epochs)[0][:60] == list(range(60))
    assert [epoch.steps for epoch in epochs] == [5] * 4
    # 1200 places for 1023 rows: worker 3 gets places 900 to 1199, so everything behind the huge row group, and then
    # begins at the front again.
    assert [epoch.counts for epoch in epochs] == [
        Counts(total=ROWS, read=900, used=300, skipped=0, repeated=0),
        Counts(total=ROWS, read=900, used=300, skipped=0, repeated=0),
        Counts(total=ROWS, read=900, used=300, skipped=0, repeated=0),
        Counts(total=ROWS, read=ROWS, used=123, skipped=0, repeated=177),
    ]


def test_the_rows_of_a_batch_belong_together(files):
    rows = pd.concat(pd.read_parquet(path, partitioning=None) for path in files).set_index("id", drop=False)
    for batch in source(files, shuffle_rows=100).epoch(0, 60, 2).batches():
        expected = transform(rows.loc[batch["id"]])
        for name, values in expected.items():
            np.testing.assert_array_equal(batch[name], values)
            assert batch[name].dtype == FIELDS[name][0]
        assert batch["weight"].tolist() == [1.0] * 60


def test_row_groups_come_in_another_order_in_each_epoch_and_for_each_seed(tmp_path):
    # Forty row groups of five rows in two files; without a window, rows stay in order inside of each. A file holds rows
    # of one date, so rows that lie near each other are alike.
    rows = source(write(tmp_path, [[5] * 25, [5] * 15]), shuffle_rows=0)

    def groups(epoch: int, seed: int) -> list[int]:
        found = np.concatenate(ids(rows.epoch(epoch, 20, seed=seed))).reshape(40, 5)
        assert (found == found[:, :1] + np.arange(5)).all()
        return [int(first) // 5 for first in found[:, 0]]

    first = groups(0, 1)
    assert sorted(first) == list(range(40))
    assert groups(0, 1) == first
    for other in (groups(1, 1), groups(0, 2), list(range(40))):
        # Of two orders that have nothing to do with each other, about one place in forty agrees.
        assert sum(one == another for one, another in zip(first, other, strict=True)) < 10
    # Both files are among the first ten: one is not read before the other.
    assert {group < 25 for group in first[:10]} == {True, False}


def test_rows_of_one_big_row_group_are_mixed_within_the_window(tmp_path):
    path = write(tmp_path, [[1000]])
    near = np.concatenate(ids(source(path, shuffle_rows=100).epoch(0, 50)))
    moved = np.abs(near - np.arange(1000))
    assert moved.max() <= 100
    assert moved.mean() > 20
    far = np.concatenate(ids(source(path, shuffle_rows=5000).epoch(0, 50)))
    assert np.abs(far - np.arange(1000)).max() > 500
    assert ids(source(path, shuffle_rows=0).epoch(0, 500)) == [list(range(500)), list(range(500, 1000))]


@pytest.mark.parametrize("window", [100, 5000], ids=["a window", "everything"])
def test_rows_of_a_row_group_are_mixed_otherwise_in_each_epoch_and_shard_and_for_each_seed(tmp_path, window):
    # One row group: its place among the others says nothing here.
    rows = source(write(tmp_path, [[1000]]), shuffle_rows=window)

    def order(epoch: int, seed: int) -> list[int]:
        return list(chain(*ids(rows.epoch(epoch, 50, seed=seed))))

    first = order(0, 1)
    assert order(0, 1) == first
    assert order(1, 1) != first
    assert order(0, 2) != first
    halves = np.array(ids(rows.epoch(0, 50, shards=2, seed=1)))
    assert sorted(halves[:, :25].ravel()) == list(range(500))
    assert (halves[:, 25:] - 500 != halves[:, :25]).any()


def test_about_a_window_of_rows_waits_in_memory(tmp_path):
    from model.data.input import _Stream

    epoch = source(write(tmp_path, [[50] * 40]), shuffle_rows=100).epoch(0, 20)
    stream = _Stream(epoch, 0)
    for step in range(epoch.steps):
        stream.slice(step)
    stream.close()
    assert stream.rows.slots < 100 + 50 + 20 + 50


@pytest.mark.parametrize("start", [1, 8, 16, 17])
@pytest.mark.parametrize("window", [0, 100, 10_000])
def test_a_resumed_epoch_has_exactly_the_batches_that_were_left(files, start, window):
    rows = source(files, shuffle_rows=window)
    whole = [ids(rows.epoch(2, 60, 2, worker, 2, 9)) for worker in range(2)]
    for worker in range(2):
        rest = rows.epoch(2, 60, 2, worker, 2, 9, start_step=start)
        assert ids(rest) == whole[worker][start:]
        assert rest.counts.used == (17 - start) * 30


def test_a_resumed_epoch_reads_only_the_row_groups_with_rows_to_come(tmp_path):
    rows = source(write(tmp_path, [[100] * 10]), shuffle_rows=50)
    rest = rows.epoch(0, 50, start_step=18)
    assert len(ids(rest)) == 2
    assert rest.counts.read <= 300


@pytest.mark.parametrize("batch", [12, 60, 1023, 2400])
def test_an_evaluation_has_every_row_once_and_fills_up_with_weight_zero(files, batch):
    for workers, shards in ((1, 1), (2, 2), (3, 3)):
        if batch % shards:
            continue
        epochs = [source(files).once(batch, shards, worker, workers) for worker in range(workers)]
        batches = [list(epoch.batches()) for epoch in epochs]
        assert {len(b) for b in batches} == {-(-ROWS // batch)}
        rows = [(i, w) for b in batches for part in b for i, w in zip(part["id"], part["weight"], strict=True)]
        assert sorted(i for i, w in rows if w == 1) == list(range(ROWS))
        assert len(rows) == -(-ROWS // batch) * batch
        assert sum(epoch.counts.used for epoch in epochs) == ROWS
        assert sum(epoch.counts.repeated for epoch in epochs) == len(rows) - ROWS


def test_the_partition_of_a_row_can_be_asked_for(files):
    days = Input(
        files,
        ["id", "dt"],
        lambda frame: {"id": frame["id"].to_numpy(), "day": frame["dt"].str[-2:].to_numpy(np.int32)},
        {"id": ("int64", ()), "day": ("int32", ())},
    )
    found = {(i < 900, day) for b in days.once(100).batches() for i, day in zip(b["id"], b["day"], strict=True)}
    assert found == {(True, 1), (False, 3), (False, 4), (False, 5)}


def test_rows_come_from_the_files_of_the_pinned_version_and_the_days_asked_for(lake):
    path = str(lake / "lake" / "interests")
    for version, day in enumerate([date(2017, 1, 1), date(2017, 1, 2), date(2017, 1, 2)]):
        rows = pa.table({"id": pa.array([version], pa.int64()), "dt": pa.array([day])})
        write_deltalake(path, rows, partition_by=["dt"], mode="append")

    def found(version: int, *days: date) -> list[int]:
        table = Table("interests", version)
        rows = Input.of_table(table, days, ["id"], lambda frame: {"id": frame["id"].to_numpy()}, {"id": ("int64", ())})
        return sorted(chain(*ids(rows.once(1))))

    assert found(1, date(2017, 1, 2)) == [1]
    assert found(2, date(2017, 1, 2)) == [1, 2]
    assert found(2, date(2017, 1, 1), date(2017, 1, 2)) == [0, 1, 2]
    with pytest.raises(InputInvalid, match="no file"):
        found(2, date(2017, 1, 3))


def test_files_that_upkeep_has_merged_are_read_beside_those_of_the_runs(lake):
    # Two files on the first day, which are merged, and one on the second, as Spark writes it: nothing may be null.
    path = str(lake / "lake" / "interests")
    kinds = pa.schema(
        [pa.field("id", pa.int64(), nullable=False), pa.field("keys", pa.list_(pa.int64())), ("dt", pa.date32())]
    )
    for n, day in enumerate([date(2017, 1, 1), date(2017, 1, 1), date(2017, 1, 2)]):
        rows = pa.table({"id": [n], "keys": [list(range(n))], "dt": [day]}, kinds)
        write_deltalake(path, rows, partition_by=["dt"], mode="append")

    def found() -> list[list[int]]:
        table, fields = Table("interests"), {"id": ("int64", ()), "keys": ("int64", (3,))}
        rows = Input.of_table(
            table,
            [date(2017, 1, 1), date(2017, 1, 2)],
            ["id", "keys"],
            lambda frame: {"id": frame["id"].to_numpy(), "keys": pad(frame["keys"], 3, np.int64)},
            fields,
        )
        return sorted([int(batch["id"][0]), *batch["keys"][0].tolist()] for batch in rows.once(1).batches())

    before = found()
    assert compact("interests", path) == (1, [], "")
    assert len(Table("interests").files) == 2
    assert found() == before == [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 1, 0]]


def test_files_may_lie_in_an_object_store():
    fs = fsspec.filesystem("memory")
    with fs.open("/shop/dt=2017-01-01/part-0.parquet", "wb") as file:
        pq.write_table(pa.table({"id": pa.array(range(10), pa.int64())}), file, row_group_size=4)
    rows = Input(
        ["memory://shop/dt=2017-01-01/part-0.parquet"],
        ["id"],
        lambda frame: {"id": frame["id"].to_numpy()},
        {"id": ("int64", ())},
    )
    assert sorted(chain(*ids(rows.epoch(0, 5)))) == list(range(10))


def test_flags_and_small_numbers_keep_their_type(files):
    rows = Input(
        files,
        ["id"],
        lambda frame: {"odd": (frame["id"].to_numpy() % 2 == 1), "half": (frame["id"].to_numpy() / 2).astype("f4")},
        {"odd": ("bool", ()), "half": ("float32", ())},
    )
    batch = next(iter(rows.once(4).batches()))
    assert batch["odd"].tolist() == [False, True, False, True]
    assert batch["half"].tolist() == [0, 0.5, 1, 1.5]


def test_no_reader_outlives_an_epoch_that_is_left_early(files):
    before = threading.active_count()
    batches = source(files).epoch(0, 60, 2).batches()
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            lambda frame: {**transform(frame), "x": np.zeros((len(frame), 2))},
            r"x as float64 \(.*fields declares float32",
        ),
        (lambda frame: {**transform(frame), "y": np.zeros(1, "f4")}, r"y as float32 \(1,\) for 900 rows"),
        (lambda frame: {"id": frame["id"].to_numpy()}, r"transform returned \['id'\], but fields declares"),
    ],
)
def test_a_transform_that_does_not_keep_its_word_is_told_so(files, broken, says):
    with pytest.raises(InputInvalid, match=says):
        ids(Input(files[:1], COLUMNS, broken, FIELDS).once(50))


def test_what_cannot_be_read_is_refused_before_a_row_is_read(files):
    rows = source(files)
    with pytest.raises(InputInvalid, match="columns asks for price, which"):
        ids(Input(files, ["id", "price"], transform, FIELDS).epoch(0, 10))
    with pytest.raises(InputInvalid, match="there are only 1023 rows"):
        rows.epoch(0, 2000)
    with pytest.raises(InputInvalid, match="multiple of shards, got 10 and 4"):
        rows.epoch(0, 10, shards=4)
    with pytest.raises(InputInvalid, match="multiple of workers, got 3 and 2"):
        rows.epoch(0, 12, shards=3, workers=2)
    with pytest.raises(InputInvalid, match="no file has a row"):
        source(files[1:2]).once(10)
    with pytest.raises(InputInvalid, match="'weight'"):
        Input(files, COLUMNS, transform, {"weight": ("float32", ())})


def test_the_first_or_the_last_elements_of_a_long_list_stay():
    lists = pd.Series([np.array([1, 2, 3]), np.array([]), None, [4]])
    assert pad(lists, 2, np.int64).tolist() == [[2, 3], [0, 0], [0, 0], [4, 0]]
    assert pad(lists, 2, np.int64, keep="first").tolist() == [[1, 2], [0, 0], [0, 0], [4, 0]]
    assert pad(lists[:0], 2, np.int64).shape == (0, 2)
    with pytest.raises(ValueError, match="'first' or 'last', got 'all'"):
        pad(lists, 2, np.int64, keep="all")


def test_no_row_is_lost_to_a_reader_that_believes_it_is_done(files):
    # Without the second look of our reader, Petastorm ends too early in about one of eight of these epochs.
    rows = source(files)
    for number in range(30):
        assert sum(map(len, ids(rows.epoch(number, 60, 4)))) == 17 * 60


# --- arrays that are kept ---

PLENTY = 1 << 20


@pytest.mark.parametrize("window", [0, 100, 5000])
def test_what_is_kept_changes_no_batch_of_any_epoch_worker_or_resume(files, window):
    streamed, kept = (source(files, shuffle_rows=window, keep_bytes=size) for size in (0, PLENTY))
    # An evaluation between the epochs, a resumed epoch first, and a worker that comes to have seen some rows only.
    for number, start, worker, workers in ((2, 9, 0, 2), (0, 0, 0, 1), (1, 0, 0, 1), (1, 5, 1, 2)):
        pair = [rows.epoch(number, 60, 4, worker, workers, 5, start_step=start) for rows in (streamed, kept)]
        for one, other in zip(*(list(epoch.batches()) for epoch in pair), strict=True):
            np.testing.assert_equal(other, one)
        assert pair[0].counts.used == pair[1].counts.used == (17 - start) * 60 // workers
        assert pair[0].counts.skipped == pair[1].counts.skipped
        pair = [rows.once(240, 4, worker, workers) for rows in (streamed, kept)]
        for one, other in zip(*(list(epoch.batches()) for epoch in pair), strict=True):
            np.testing.assert_equal(other, one)


def test_a_row_group_is_read_and_transformed_once_in_all_epochs(files):
    transformed = []

    def counted(frame):
        transformed.append(len(frame))
        return transform(frame)

    rows = Input(files, COLUMNS, counted, FIELDS, shuffle_rows=100, keep_bytes=PLENTY)
    first, second = rows.once(60), rows.epoch(1, 60)
    assert [len(ids(epoch)) for epoch in (first, second)] == [18, 17]
    assert (first.counts.read, first.counts.used) == (ROWS, ROWS)
    assert (second.counts.read, second.counts.used) == (0, 17 * 60)
    assert sorted(transformed) == sorted(chain(*UNEVEN))


def test_more_than_may_be_kept_is_read_anew_in_each_epoch(files):
    size = bytes_of(FIELDS, ROWS)
    assert size == sum(-(-part * ROWS // 64) * 64 for part in (8, 16, 8, 4))
    for limit, read in ((size - 1, ROWS), (size, 0)):
        rows = source(files, keep_bytes=limit)
        ids(rows.once(ROWS))
        again = rows.once(ROWS)
        ids(again)
        assert again.counts.read == read


def test_an_epoch_that_is_left_early_leaves_only_whole_row_groups_behind(files):
    rows, streamed = source(files, shuffle_rows=100, keep_bytes=PLENTY), source(files, shuffle_rows=100)
    batches = rows.epoch(0, 60, 2).batches()
    next(batches)
    batches.close()
    for number in (0, 1):
        assert ids(rows.epoch(number, 60, 2)) == ids(streamed.epoch(number, 60, 2))


def test_without_room_for_it_rows_are_read_anew_and_people_are_told(files, monkeypatch, caplog):
    def full(_file, _begin, _size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    rows = source(files, keep_bytes=PLENTY)
    assert list(chain(*ids(rows.once(60))))[:ROWS] == list(range(ROWS))
    assert "no room for 0 MiB" in caplog.text
    assert "set TMPDIR" in caplog.text


def test_the_file_of_kept_rows_has_no_name(files, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = source(files, keep_bytes=PLENTY)
    assert len(ids(rows.once(60))) == 18
    assert rows.kept is not None
    assert list(tmp_path.iterdir()) == []
