"""Which causes have been told, and which messages could not be sent: files in one folder, which all tasks share."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lake import storage

# Sending takes no longer than this; whoever claimed a cause and has not sent it by then was killed.
CLAIM = timedelta(minutes=1)
# Of the days on which a cause came again, the newest are kept.
DAYS = 100


@dataclass(frozen=True)
class ToldCause:
    """What is known of a cause that has been told.

    Attributes:
        cause: in the words of `Alert.cause`.
        told: when it was told last, in ISO 8601.
        text: of that message.
        since: the days on which it came again since then, and was not told.
    """

    cause: str
    told: str
    text: str
    since: list[str]

    def within(self, quiet: timedelta) -> bool:
        """Tell whether it was told so lately that it is not told again."""
        return datetime.now(UTC) < datetime.fromisoformat(self.told) + quiet


class AlertMemory:
    """The files of one folder; <name> is made from a cause.

        <name>.json          `ToldCause`: when a cause was told, and how often it came since
        unsent/<name>.json   a message that is being sent, or could not be sent
        claims/<name>.json   there while a task tells the cause; one that is killed leaves it behind
        claims/unsent        there while a task sends what could not be sent before

    Whoever tells a cause claims it, looks whether it was told, keeps the message as unsent, notes it as told, sends it,
    and removes it from what is unsent: a message is not lost when its task is killed while it sends it.
    """

    def __init__(self, folder: str):
        self.folder = folder

    @contextmanager
    def claim(self, cause: str) -> Iterator[bool]:
        """Keep other tasks from telling a cause during a `with` block, which gets whether none of them tells it now."""
        with self._claim(name_of(cause)) as is_ours:
            yield is_ours

    @contextmanager
    def claim_unsent(self) -> Iterator[bool]:
        """Keep other tasks from sending what is unsent during a `with` block, which gets whether none does so now."""
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

    def told(self, cause: str) -> ToldCause | None:
        """Return what is known of a cause, or None when it has never been told."""
        content = storage.read_json(self._told(cause))
        return ToldCause(**content) if content else None

    def note_told(self, cause: str, text: str) -> None:
        """Note that a cause is told now."""
        entry = ToldCause(cause, datetime.now(UTC).isoformat(), text, since=[])
        storage.write_json(self._told(cause), asdict(entry))

    def note_again(self, earlier: ToldCause, day: str) -> None:
        """Note that a cause which is not told again has come for a day."""
        storage.write_json(self._told(earlier.cause), {**asdict(earlier), "since": [*earlier.since, day][-DAYS:]})

    def keep_unsent(self, cause: str, message: dict[str, Any]) -> None:
        """Keep a message until it is sent."""
        storage.write_json(self._unsent(name_of(cause)), message)

    def unsent(self) -> list[str]:
        """Return the names of the messages that could not be sent, without those that may be on their way just now."""
        return storage.list_older(self._unsent(), datetime.now(UTC) - CLAIM)

    def read_unsent(self, name: str) -> dict[str, Any] | None:
        """Return a message that could not be sent, or None when it has been sent meanwhile."""
        return storage.read_json(self._unsent(name))

    def remove_unsent(self, name: str) -> None:
        """Remove a message that could not be sent before, and was sent now."""
        storage.remove(self._unsent(name))

    def remove_sent(self, cause: str) -> None:
        """Remove the message of a cause from what is unsent, since it was sent."""
        self.remove_unsent(name_of(cause))

    def _told(self, cause: str) -> str:
        return storage.join(self.folder, name_of(cause))

    def _unsent(self, *name: str) -> str:
        return storage.join(self.folder, "unsent", *name)


def name_of(cause: str) -> str:
    """Return the name of the files of a cause."""
    return f"{hashlib.sha256(cause.encode()).hexdigest()[:16]}.json"
