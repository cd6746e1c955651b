"""The causes of which an alert was sent, and the alerts that could not be sent: files in one folder for all tasks."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lake import storage

# Sending takes less time than this; a task that claimed a cause and has not sent its alert by then was killed.
CLAIM = timedelta(minutes=1)
# Days of suppressed alerts that are kept of a cause, the newest.
MAX_DAYS = 100


@dataclass(frozen=True)
class SentAlert:
    """The last alert of a cause.

    Attributes:
        cause: as `Alert.cause` gives it.
        sent: the time at which it was sent, in ISO 8601.
        text: the text of the message.
        suppressed: the days for which the cause occurred again since then, without an alert.
    """

    cause: str
    sent: str
    text: str
    suppressed: list[str]

    def within(self, period: timedelta) -> bool:
        """Return whether it was sent so recently that the next alert of its cause is suppressed."""
        return datetime.now(UTC) < datetime.fromisoformat(self.sent) + period

    def after(self, time: str) -> bool:
        """Return whether it was sent after a time in ISO 8601."""
        return datetime.fromisoformat(self.sent) > datetime.fromisoformat(time)


class AlertMemory:
    """The files of one folder; <name> is the hash of a cause.

        <name>.json          the last alert of a cause: `cause`, `told` (when), `text`, `since` (suppressed days)
        unsent/<name>.json   an alert that is being sent, or could not be sent
        claims/<name>.json   exists while a task sends the alert of a cause; a killed task does not remove it
        claims/unsent        exists while a task sends the queued alerts

    A task that sends an alert claims its cause, checks that none was sent recently, queues the alert in `unsent`,
    records it as sent, sends it, and removes it from `unsent`. So no alert is lost when its task is killed meanwhile.
    """

    def __init__(self, folder: str):
        self.folder = folder

    @contextmanager
    def claim(self, cause: str) -> Iterator[bool]:
        """Keep other tasks from sending a cause during a `with` block, which gets whether none of them sends it now."""
        with self._claim(name_of(cause)) as is_ours:
            yield is_ours

    @contextmanager
    def claim_unsent(self) -> Iterator[bool]:
        """Keep other tasks from sending queued alerts during a `with` block, which gets whether none does so now."""
        with self._claim("unsent") as is_ours:
            yield is_ours

    @contextmanager
    def _claim(self, name: str) -> Iterator[bool]:
        place = storage.join(self.folder, "claims", name)
        is_ours = storage.create(place, CLAIM)
        try:
            yield is_ours
        finally:
            if is_ours:
                storage.remove(place)

    def last_sent(self, cause: str) -> SentAlert | None:
        """Return the last alert of a cause, or None when none was ever sent."""
        content = storage.read_json(self._sent(cause))
        if content is None:
            return None
        # A clock that was ahead would silence the cause until then; so the time counts from now on.
        sent = min(datetime.fromisoformat(content["told"]), datetime.now(UTC))
        return SentAlert(content["cause"], sent.isoformat(), content["text"], content["since"])

    def record_sent(self, cause: str, text: str) -> None:
        """Record that an alert of a cause is sent now."""
        self._record(SentAlert(cause, datetime.now(UTC).isoformat(), text, suppressed=[]))

    def record_suppressed(self, earlier: SentAlert, day: str) -> None:
        """Record that a cause occurred again for a day, and that its alert was suppressed."""
        self._record(replace(earlier, suppressed=[*earlier.suppressed, day][-MAX_DAYS:]))

    def keep_unsent(self, cause: str, message: dict[str, Any]) -> None:
        """Queue an alert until it is sent."""
        storage.write_json(self._unsent(name_of(cause)), message)

    def unsent(self) -> list[str]:
        """Return the names of the queued alerts, without those that another task may be sending now."""
        return storage.list_older(self._unsent(), datetime.now(UTC) - CLAIM)

    def read_unsent(self, name: str) -> dict[str, Any] | None:
        """Return a queued alert, or None when it has been sent meanwhile."""
        return storage.read_json(self._unsent(name))

    def remove_unsent(self, name: str) -> None:
        """Remove a queued alert that was sent."""
        storage.remove(self._unsent(name))

    def prune(self, max_age: timedelta, most: int) -> int:
        """Remove all but the newest files of each folder; return how many of the others were queued.

        For a memory that no upkeep knows of.

        Args:
            max_age: what is older goes too, but for what waits to be sent.
            most: how many files of a folder stay.
        """
        entries = storage.list_entries(self.folder)
        oldest = (datetime.now(UTC) - max_age).timestamp()
        places: dict[str, list[str]] = defaultdict(list)
        for name in sorted(entries, key=lambda name: -entries[name]["mtime"]):
            places[name.rpartition("/")[0]].append(name)
        gone = [
            name
            for names in places.values()
            for n, name in enumerate(names)
            if n >= most or (entries[name]["mtime"] < oldest and not name.startswith("unsent/"))
        ]
        storage.remove_files(self.folder, gone)
        return sum(name.startswith("unsent/") for name in gone)

    def remove_sent(self, cause: str) -> None:
        """Remove the queued alert of a cause, since it was sent."""
        self.remove_unsent(name_of(cause))

    def _record(self, alert: SentAlert) -> None:
        # The keys of the files stay as they are: a running Airflow may have tasks of an older version.
        content = {"cause": alert.cause, "told": alert.sent, "text": alert.text, "since": alert.suppressed}
        storage.write_json(self._sent(alert.cause), content)

    def _sent(self, cause: str) -> str:
        return storage.join(self.folder, name_of(cause))

    def _unsent(self, *name: str) -> str:
        return storage.join(self.folder, "unsent", *name)


def name_of(cause: str) -> str:
    """Return the name of the files of a cause."""
    return f"{hashlib.sha256(cause.encode()).hexdigest()[:16]}.json"
