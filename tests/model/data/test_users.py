"""Who is drawn for a step: each user with the same probability, alone, by one row."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest, chisquare

from lake.errors import InputInvalid
from model.data.users import UserDraws, noise_seed
from tests.model.tiny_rows import source, write

KEY = 0x5EC12E7
# Users by the last digits of the id of a row: 37 of them with eight or nine rows each in 327 rows.
USERS = 37


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    paths = write(tmp_path_factory.mktemp("users"), [[200, 20], [], [7], [100]])
    for path in paths:
        table = pq.read_table(path, partitioning=None)
        names = [f"u{id_ % USERS}" for id_ in table["id"].to_pylist()]
        groups = pq.ParquetFile(path).metadata
        rows = max(groups.row_group(0).num_rows, 1) if groups.num_row_groups else 1
        pq.write_table(table.append_column("user_id", [names]) if names else table, path, row_group_size=rows)
    return [path for path in paths if pq.ParquetFile(path).metadata.num_rows]


@pytest.fixture
def draws(files):
    return UserDraws(source(files, keep_bytes=1 << 30))


def test_each_user_takes_part_as_often_as_the_accountant_assumes(draws):
    assert draws.users == USERS
    assert draws.rate(8) == 8 / 37
    steps = [draws.draw(step, 8, KEY) % USERS for step in range(2000)]
    assert all(len(set(users)) == len(users) for users in steps)
    taken = np.zeros((len(steps), USERS), bool)
    for step, users in enumerate(steps):
        taken[step, users] = True
    # Each for itself, whatever the others do: chances by which a right sampler fails are below one in a million.
    for user in range(USERS):
        assert binomtest(int(taken[:, user].sum()), len(steps), 8 / 37).pvalue > 1e-8
    # The number of users of a step is binomial: that of a batch of a fixed size would not vary.
    assert taken.sum(axis=1).var() == pytest.approx(USERS * 8 / 37 * (1 - 8 / 37), rel=0.2)
    pairs = np.corrcoef(taken.T) - np.eye(USERS)
    assert np.abs(pairs).max() < 6 / np.sqrt(len(steps))
    # Who took part before says nothing: once, twice or not at all in a pass.
    again = (taken[1:] & taken[:-1]).sum()
    assert binomtest(int(again), USERS * (len(steps) - 1), (8 / 37) ** 2).pvalue > 1e-8


def test_one_of_a_users_rows_stands_for_them_each_as_likely(draws):
    rows = np.concatenate([draws.draw(step, 8, KEY) for step in range(4000)])
    for user in (0, 36):
        counts = np.bincount(rows[rows % USERS == user], minlength=327)[user::USERS]
        assert len(counts) == len(range(user, 327, USERS))
        assert chisquare(counts).pvalue > 1e-8


def test_what_is_drawn_follows_from_the_key_and_the_step(draws):
    same = draws.draw(5, 8, KEY)
    assert np.array_equal(same, draws.draw(5, 8, KEY))
    assert not np.array_equal(same, draws.draw(6, 8, KEY))
    assert not np.array_equal(same, draws.draw(5, 8, KEY + 1))
    seeds = {tuple(noise_seed(key, step)) for key in (KEY, KEY + 1) for step in range(50)}
    assert len(seeds) == 100


def test_a_batch_has_the_rows_of_its_step_spread_over_the_shards(draws):
    whole = {row["id"]: row for row in rows_of(draws)}
    epoch = draws.epoch(1, 8, 4, KEY, start_step=2)
    batches = list(epoch.batches())
    # 37 users make 4 steps of 8; the second pass begins with step 4 of the training.
    assert len(batches) == draws.steps(8) - 2 == 2
    for step, batch in zip((6, 7), batches, strict=True):
        taken = batch["weight"] == 1
        assert sorted(batch["id"][taken]) == sorted(draws.draw(step, 8, KEY))
        assert (batch["weight"][~taken] == 0).all()
        of_shards = taken.reshape(4, -1).sum(axis=1)
        assert of_shards.max() - of_shards.min() <= 1
        for place in np.flatnonzero(taken):
            expected = whole[batch["id"][place]]
            assert all(np.array_equal(batch[name][place], values) for name, values in expected.items())
    assert epoch.counts.used == sum(int(batch["weight"].sum()) for batch in batches)
    assert (epoch.counts.total, epoch.counts.read) == (327, 0)  # all were read for `whole`


def rows_of(draws):
    draws.fill()
    arrays = draws.source.kept.arrays
    return [{name: values[row] for name, values in arrays.items()} for row in range(327)]


def test_places_of_a_batch_are_enough_for_nearly_any_draw(files):
    draws = UserDraws(source(files, keep_bytes=1 << 30))
    # With 32 of 37 users on average, all may come: the number is filled up to whole shards.
    assert draws.capacity(32, 4) == 40
    assert draws.capacity(37, 1) == 37
    # Four of 37: more than 27 have a chance of 1e-21 or so by the binomial tail, more than 26 one above 1e-20.
    most = draws.capacity(4, 1)
    tail = lambda n: binomtest(n + 1, 37, 4 / 37, "greater").pvalue  # noqa: E731
    assert tail(most) <= 1e-20 < tail(most - 1)


def test_rows_that_cannot_be_kept_and_too_few_users_are_refused(files, draws):
    with pytest.raises(InputInvalid, match="users are drawn at random from 327 rows, whose arrays have to be kept"):
        UserDraws(source(files, keep_bytes=100))
    with pytest.raises(InputInvalid, match="global_batch is 38, but there are only 37 users; choose less"):
        draws.rate(38)
