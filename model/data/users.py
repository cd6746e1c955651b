"""Users drawn at random, for a training with differential privacy.

The accountant of the noise assumes Poisson sampling: in each step every user takes part with the same probability,
whatever the others do and whatever was drawn before. That is what is drawn here. A user has a row for each date, so
of a user who takes part one row is drawn, all alike likely: that is all that a step sees of a person.

    draws = UserDraws(source)            # an Input whose rows are kept
    for batch in draws.epoch(0, global_batch=32, shards=4, key=key).batches():
        batch["weight"]                  # 1 for each user who takes part, 0 for empty places

A batch has a fixed number of places, and as many of them are filled as users were drawn. What is drawn follows from a
secret key and the number of the step, so that a training which was killed draws the same again.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lake import storage
from lake.errors import InputInvalid
from model.arrays import Array
from model.data.input import Batch, Counts, Fields, Input

USER = "user_id"
FILL = 1024  # rows of the batches in which all rows are read once
# Chance that a step draws more users than a batch has places. The last ones are left out then, so it adds to delta:
# a billion such steps add 1e-11.
OVERFLOW = 1e-20
# Which numbers of a key are for what: the first half of a counter.
DRAWS, NOISE = 0, 1


@dataclass(frozen=True)
class UserDraws:
    """The rows of an input by their user.

    Args:
        source: whose files have a `user_id`, and whose rows are all kept (`keep_bytes`).

    Raises:
        InputInvalid: there is no room to keep the rows.
    """

    source: Input

    def __post_init__(self) -> None:
        if self.source.kept is None:
            raise InputInvalid(
                f"users are drawn at random from {self.source.rows:,} rows, whose arrays have to be kept: they need at "
                f"most {self.source.keep_bytes >> 30} GiB, in a folder for temporary files with that room; train on "
                "fewer dates or users, or set TMPDIR"
            )

    @property
    def files(self) -> Sequence[str]:
        """Where the rows come from."""
        return self.source.files

    @property
    def columns(self) -> Sequence[str]:
        """What of them is read for the arrays."""
        return self.source.columns

    @property
    def fields(self) -> Fields:
        """Name, type and shape of the arrays of a row."""
        return self.source.fields

    @cached_property
    def places(self) -> tuple[Array, Array]:
        """All rows sorted by user, and where in them each user begins, with the end of the last."""
        ids = []
        for path in dict.fromkeys(group.path for group in self.source.row_groups):
            with storage.parquet_file(path) as file:
                ids.append(file.read([USER])[USER].to_numpy(zero_copy_only=False))
        _, user = np.unique(np.concatenate(ids).astype(object), return_inverse=True)
        return np.argsort(user, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(user))])

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.places[1]) - 1

    def rate(self, global_batch: int) -> float:
        """Return the probability with which a user takes part in a step.

        Raises:
            InputInvalid: more users are asked for than there are.
        """
        if global_batch > self.users:
            raise InputInvalid(f"global_batch is {global_batch}, but there are only {self.users} users; choose less")
        return global_batch / self.users

    def steps(self, global_batch: int) -> int:
        """Return the steps in which each user takes part about once."""
        return self.users // global_batch

    def capacity(self, global_batch: int, shards: int) -> int:
        """Return the places of a batch, a multiple of `shards`."""
        # Here: its import takes a second, and few trainings draw users.
        from scipy.stats import binom

        more = binom.sf(np.arange(self.users + 1), self.users, self.rate(global_batch))
        return -(-max(int(np.argmax(more <= OVERFLOW)), 1) // shards) * shards

    def draw(self, step: int, global_batch: int, key: int) -> Array:
        """Return the rows of a step: of each user who takes part one, by rising user.

        Args:
            step: its number in the whole training.
            global_batch: users of a step on average.
            key: 128 secret bits. Whoever knows it knows who took part.
        """
        order, begins = self.places
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, DRAWS, step]))
        user = np.flatnonzero(random.random(self.users) < self.rate(global_batch))
        of_user = random.random(self.users)[user] * np.diff(begins)[user]
        return np.asarray(order[begins[user] + of_user.astype(np.int64)])

    def epoch(self, epoch: int, global_batch: int, shards: int, key: int, start_step: int = 0) -> "DrawnEpoch":
        """Return the batches of a pass, from `start_step` on."""
        return DrawnEpoch(self, epoch, global_batch, shards, key, start_step)

    def fill(self) -> int:
        """Read all rows once, unless that was done, and return how many were read."""
        kept = self.source.kept
        assert kept is not None
        if all(group in kept for group in self.source.row_groups):
            return 0
        epoch = self.source.once(FILL)
        for _ in epoch.batches():
            pass
        return epoch.counts.read


def noise_seed(key: int, step: int) -> Array:
    """Return (2,) int64 for the noise of a step; its numbers are not those of the draws."""
    return np.asarray(np.random.Philox(key=key, counter=[0, 0, NOISE, step]).random_raw(2), np.uint64).view(np.int64)


@dataclass
class DrawnEpoch:
    """One pass; see `UserDraws.epoch`.

    Attributes:
        counts: `used` counts the users who took part.
    """

    draws: UserDraws
    number: int
    global_batch: int
    shards: int
    key: int
    start_step: int
    counts: Counts = field(default_factory=Counts)

    def batches(self) -> Generator[Batch, None, None]:
        """Yield the batches as arrays `(capacity, ...)`; those who take part are spread evenly over the shards."""
        source, steps = self.draws.source, self.draws.steps(self.global_batch)
        kept = source.kept
        assert kept is not None
        self.counts.__init__(total=source.rows, read=self.draws.fill())  # type: ignore[misc]
        capacity = self.draws.capacity(self.global_batch, self.shards)
        # The first place of each shard, then the second of each.
        places = np.arange(capacity).reshape(self.shards, -1).T.reshape(-1)
        for step in range(self.start_step, steps):
            drawn = self.draws.draw(self.number * steps + step, self.global_batch, self.key)[:capacity]
            taken = places[: len(drawn)]
            batch: Batch = {}
            for name, values in kept.arrays.items():
                batch[name] = np.zeros((capacity, *values.shape[1:]), values.dtype)
                batch[name][taken] = values[drawn]
            batch["weight"] = np.zeros(capacity, np.float32)
            batch["weight"][taken] = 1
            self.counts.used += len(drawn)
            yield batch
