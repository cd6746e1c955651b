"""Sessions the naive way: one user at a time, in plain Python, from the rule's text in docs/design.md alone.

It shares no code and no idea with `jobs.sessionize`, so that where the two agree, both are right.
Below it are hypothesis strategies that make logs out of what the rule finds difficult.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Event = tuple[str, datetime, str]  # user_id, event_time (UTC), event_id
Session = tuple[str, tuple[str, ...]]  # user_id, event_ids in order

ONE_DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


def sessions(log: Iterable[Event], gap: timedelta) -> list[Session]:
    """Return every session of a log, sorted by user and time; an event that is there twice counts once."""
    by_user: dict[str, set[tuple[datetime, str]]] = {}
    for user, time, event_id in log:
        by_user.setdefault(user, set()).add((time, event_id))
    found: list[Session] = []
    for user in sorted(by_user):
        history = sorted(by_user[user])  # by time, ties by event_id
        times = [time for time, _ in history]
        session: list[str] = []
        for i, (_, event_id) in enumerate(history):
            if session and starts_a_session(times, i, gap):
                found.append((user, tuple(session)))
                session = []
            session.append(event_id)
        found.append((user, tuple(session)))
    return found


def starts_a_session(times: list[datetime], i: int, gap: timedelta) -> bool:
    """Tell whether event `i` starts a session, given all times of its user in order."""
    if i == 0:
        return True
    if times[i] - times[i - 1] > gap:
        return True
    midnight = midnight_of(times[i - 1]) + ONE_DAY
    while midnight <= times[i]:
        if awake_since_before(midnight - ONE_DAY, times, i - 1, gap):
            return True
        midnight += ONE_DAY
    return False


def awake_since_before(moment: datetime, times: list[datetime], i: int, gap: timedelta) -> bool:
    """Tell whether, up to event `i`, the user has not been idle longer than `gap` since before `moment`."""
    while times[i] >= moment:
        if i == 0 or times[i] - times[i - 1] > gap:
            return False
        i -= 1
    return True


def midnight_of(time: datetime) -> datetime:
    """Return the midnight at which the date of `time` begins."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


# ---- logs that are difficult ----


@dataclass(frozen=True)
class Landed:
    """An event and the day on which it arrived; an event that arrived twice is two of these."""

    user_id: str
    event_time: datetime
    event_id: str
    landed: date

    @property
    def event(self) -> Event:
        """The event alone."""
        return self.user_id, self.event_time, self.event_id


def difficult_times(gap: timedelta, first: date, days: int) -> st.SearchStrategy[list[datetime]]:
    """Make one user's event times, sorted, within `days` days from `first`.

    A log is a walk through time whose moves are the rule's edges: ties, pauses of exactly the gap and a tick
    more or less, a jump to a midnight or just beside it, and hours of activity without a pause (a crawler).
    """
    opening = datetime.combine(first, datetime.min.time())
    closing = opening + timedelta(days=days)
    pauses = [
        timedelta(0),
        TICK,
        timedelta(seconds=1),
        gap / 2,
        gap - TICK,
        gap,
        gap + TICK,
        2 * gap,
        ONE_DAY,
    ]
    beside = [-gap - TICK, -gap, -TICK, timedelta(0), TICK, gap - TICK, gap, gap + TICK]
    pause = st.sampled_from(pauses).map(lambda p: lambda now: [now + p])
    # `days` ahead: 1 is the next midnight.
    jump = st.tuples(st.integers(1, 2), st.sampled_from(beside)).map(
        lambda j: lambda now: [max(now, midnight_of(now) + j[0] * ONE_DAY + j[1])]
    )
    crawl = st.tuples(st.sampled_from([gap, gap - TICK, gap * 3 / 4]), st.integers(2, 60)).map(
        lambda c: lambda now: [now + c[0] * n for n in range(1, int(timedelta(hours=c[1]) / c[0]) + 2)]
    )
    moves = st.lists(st.one_of(pause, pause, jump, crawl), max_size=12)
    beginnings = st.one_of(
        st.sampled_from([opening, opening + gap, opening + ONE_DAY, opening + ONE_DAY - gap, opening + ONE_DAY - TICK]),
        st.integers(0, 24 * 60 - 1).map(lambda minute: opening + timedelta(minutes=minute)),
    )

    def walk(begin: datetime, moves: list[Callable[[datetime], list[datetime]]]) -> list[datetime]:
        times = [begin]
        for move in moves:
            times += move(times[-1])
        return [time for time in times if time < closing]

    return st.builds(walk, beginnings, moves)


@st.composite
def difficult_logs(
    draw: st.DrawFn, gap: timedelta, first: date, days: int, delays: tuple[tuple[int, ...], ...] = ((0,),)
) -> list[Landed]:
    """Make one user's log (their `user_id` is empty: see `gather`).

    `delays` are the ways to arrive, in days after the date: `(0,)` in time, `(2,)` late, `(0, 1)` twice.
    """
    times = draw(difficult_times(gap, first, days))
    # The order of ids is not the order of making, or nothing would show that ties are broken by id.
    scramble = draw(st.integers(0, 2**32 - 1))
    unusual = draw(st.dictionaries(st.integers(0, max(len(times) - 1, 0)), st.sampled_from(delays), max_size=6))
    return [
        Landed("", time, f"{(n * 2654435761 + scramble) % 2**32:08x}", time.date() + delay * ONE_DAY)
        for n, time in enumerate(times)
        for delay in unusual.get(n, (0,))
    ]


Example = TypeVar("Example")


def gather(strategy: st.SearchStrategy[Example], together: int) -> list[Example]:
    """Return many examples of a strategy: `together` for each one that the profile of hypothesis asks for.

    Spark takes a second for one user's log and hardly more for hundreds, so all are tried at once. There is
    no shrinking then: a test shows the shortest log that failed.
    """
    found: list[Example] = []

    @settings(database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.lists(strategy, min_size=together, max_size=together))
    def collect(examples: list[Example]) -> None:
        found.extend(examples)

    collect()
    return found


def named(logs: list[list[Landed]]) -> list[Landed]:
    """Give each log its own user (`u000`, `u001`, ...) and its own event ids, and put them together."""
    return [
        Landed(f"u{user:03}", row.event_time, f"{row.event_id}{user:03}", row.landed)
        for user, log in enumerate(logs)
        for row in log
    ]
