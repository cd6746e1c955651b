"""Pseudonyms: what stands in the lake for the shop's own id of a user, made by a key that only a few processes know.

A pseudonym is the id of its key, a hyphen, and half of the HMAC-SHA256 of the user's id:

    9c3f01aa-5d2b0d6b1c7e4f8890a1b2c3d4e5f607

The same id and key give the same pseudonym on each day and from each source, and nobody without the key can tell whose
it is, nor try ids one after the other. A lake has one key for as long as it lives. decisions/0022 has the reasons.

The key never reaches Spark: `jobs.ingest` asks Spark for the ids, makes the pseudonyms in its own process, and hands
Spark the pairs. It is in no plan, task, manifest or message.
"""

import hmac
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from lake import storage
from lake.errors import IdentityUnknown, PseudonymsDiffer, SettingsInvalid
from lake.settings import Settings
from lake.text import composed

KEY_BYTES = 32
# No user has such an id: the door rejects a NUL.
NAME_OF_A_KEY = b"\0the id of this key"
PAIRS = pa.schema([("user_id", pa.string()), ("pseudonym", pa.string())])
# The name of the transaction by which each commit of a table says which key its users have.
TRANSACTION = "pseudonyms"


@dataclass(frozen=True)
class Key:
    """A secret key, and its id, which tells keys apart and says nothing of the secret.

    Attributes:
        id: 8 hex digits; it is made of the secret, so two keys cannot be taken for one.
        secret: at least 32 bytes.
    """

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def of_bytes(cls, secret: bytes) -> "Key":
        """Return a key with its id."""
        number = int.from_bytes(hmac.digest(secret, NAME_OF_A_KEY, "sha256")[:4])
        return cls(f"{number or 1:08x}", secret)

    @classmethod
    def of(cls, config: Settings) -> "Key | None":
        """Return the key that the settings name; None when users keep the shop's own ids.

        Raises:
            SettingsInvalid: MEANDER_PSEUDONYM_KEY is not a key. The message says nothing of what it is.
        """
        text = config.pseudonym_key.get_secret_value()
        if not text:
            return None
        if text.startswith("/"):
            try:
                text = Path(text).read_text(encoding="ascii")
            except (OSError, ValueError) as error:
                # Its name is not told: it may be a key of another form that begins with a slash.
                raise SettingsInvalid(
                    f"MEANDER_PSEUDONYM_KEY begins with a slash, so it names a file, which cannot be read: "
                    f"{type(error).__name__}; give the path of a file with a key, or the key"
                ) from None
        digits = text.strip()
        if not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", digits):
            raise SettingsInvalid(
                f"MEANDER_PSEUDONYM_KEY: expected {KEY_BYTES} bytes as {2 * KEY_BYTES} hex digits, or the path of a "
                f"file that holds them, received {len(digits)} characters that are none; make one by "
                f"`openssl rand -hex {KEY_BYTES}`"
            )
        secret = bytes.fromhex(digits)
        # A random key has more different bytes; a placeholder such as 64 zeros has not.
        if len(secret) < KEY_BYTES or len(set(secret)) < KEY_BYTES // 4:
            raise SettingsInvalid(
                f"MEANDER_PSEUDONYM_KEY: expected at least {KEY_BYTES} random bytes, received {len(secret)} bytes with "
                f"{len(set(secret))} different values; make a key by `openssl rand -hex {KEY_BYTES}`"
            )
        return cls.of_bytes(secret)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: tasks of Spark travel so, by the network and the disks of a cluster."""
        raise TypeError("a key of pseudonyms is not pickled; hand on the pseudonyms instead")


def pseudonym(user_id: str, key: Key) -> str:
    """Return the pseudonym of a user by a key: 41 characters.

    >>> pseudonym("ann", Key.of_bytes(bytes(range(32))))
    '4ee360e9-0d1f12b8196c52b0db44a5429c832302'
    """
    # Any text has one, also what no door accepts.
    text = user_id.encode("utf-8", "surrogatepass")
    return f"{key.id}-{hmac.digest(key.secret, text, 'sha256').hex()[:32]}"


def is_pseudonym(text: str, key_id: str) -> bool:
    """Return whether a text is a pseudonym by the key with this id."""
    return re.fullmatch(f"{key_id}-[0-9a-f]{{32}}", text) is not None


def pairs_of(users: pa.ChunkedArray, key: Key) -> pa.Table:
    """Return distinct user ids with their pseudonyms, as `PAIRS`."""
    ids = users.cast(pa.string())
    # A chunk at a time: as objects of Python, millions of ids would take several times their memory.
    made = [pa.array([pseudonym(user, key) for user in chunk.to_pylist()], pa.string()) for chunk in ids.chunks]
    return pa.table([ids, pa.chunked_array(made, pa.string())], schema=PAIRS)


# ---- one key for a lake ----


def to_number(key_id: str) -> int:
    """Return the id of a key, or the lack of one, as a commit of a table has it.

    >>> to_number("0000ffff"), to_number("")
    (65535, 0)
    """
    return int(key_id, 16) if key_id else 0


def from_number(number: int) -> str:
    """Return the id of the key that a commit of a table names; empty where users have the shop's own ids.

    >>> from_number(65535), from_number(0)
    ('0000ffff', '')
    """
    return f"{number:08x}" if number else ""


def require_key(what: str, found: str | None, key_id: str) -> None:
    """Check that rows have users by the key of the table that they are for; `found` is None for one without rows.

    Raises:
        PseudonymsDiffer: they would be mixed with others.
    """
    if found is None or found == key_id:
        return
    raise PseudonymsDiffer(
        f"{what}: expected {in_words(found)}, as in its published rows, received {in_words(key_id)}; a user would be "
        "two. Set MEANDER_PSEUDONYM_KEY to what the lake was made with, or fill a new lake under the other key"
    )


def in_words(key_id: str) -> str:
    """Say how users are named.

    >>> in_words("9c3f01aa"), in_words("")
    ('pseudonyms by key 9c3f01aa', "the shop's own ids of users")
    """
    return f"pseudonyms by key {key_id}" if key_id else "the shop's own ids of users"


# ---- whose a pseudonym is ----


@dataclass(frozen=True)
class IdentityMap:
    """Whose each pseudonym is: Parquet files in a place of their own, with rights of their own.

    Attributes:
        address: a folder or address outside the lake. Each ingest adds `<key id>/<staging>.parquet` and reads nothing.
    """

    address: str

    @classmethod
    def of(cls, config: Settings) -> "IdentityMap | None":
        """Return the map that the settings name; None when pseudonyms are one-way.

        Raises:
            SettingsInvalid: it is in the lake or the landing, whose readers may not resolve.
        """
        if not config.identity_map:
            return None
        for name, place in (("MEANDER_LAKE", config.lake), ("MEANDER_LANDING", config.landing)):
            if real_folder(config.identity_map).startswith(real_folder(place)):
                raise SettingsInvalid(
                    f"MEANDER_IDENTITY_MAP={config.identity_map} lies in {name}={place}: whoever reads that could say "
                    "whose each pseudonym is; give it a place with rights of its own"
                )
        return cls(config.identity_map)

    def add(self, key_id: str, name: str, pairs: pa.Table) -> None:
        """Keep pairs of `PAIRS`, in a file that nobody but its owner may read."""
        content = io.BytesIO()
        pq.write_table(pairs.sort_by("pseudonym"), content)
        self._write(storage.join(self.address, key_id, f"{name}.parquet"), content.getvalue())

    def user_of(self, wanted: str) -> str | None:
        """Return whose a pseudonym is; None when no ingest has met the user."""
        return self._look_up(wanted.split("-", 1)[0], "pseudonym", wanted, "user_id")

    def pseudonym_of(self, user_id: str, key_id: str) -> str | None:
        """Return the pseudonym of a user by the key with this id; None when no ingest has met the user."""
        return self._look_up(key_id, "user_id", user_id, "pseudonym")

    def forget(self, pseudonyms: Iterable[str]) -> int:
        """Remove pseudonyms, which nobody can resolve any more then; return from how many files."""
        gone, changed = pa.array(sorted(set(pseudonyms)), pa.string()), 0
        for name in storage.list_files(self.address):
            path = storage.join(self.address, name)
            pairs = storage.read_file(path)
            kept = pairs.filter(pc.invert(pc.is_in(pairs["pseudonym"], gone)))
            if kept.num_rows < pairs.num_rows:
                content = io.BytesIO()
                pq.write_table(kept, content)
                self._write(path, content.getvalue())
                changed += 1
        return changed

    def _look_up(self, key_id: str, column: str, value: str, answer: str) -> str | None:
        folder = storage.join(self.address, key_id)
        for name in storage.list_files(folder):
            fs, inner = storage.filesystem(storage.join(folder, name))
            with fs.open(inner, "rb") as stream:
                found = pq.read_table(stream, columns=[answer], filters=[(column, "==", value)])
            if found.num_rows:
                return str(found[answer][0].as_py())
        return None

    @staticmethod
    def _write(path: str, content: bytes) -> None:
        fs, inner = storage.filesystem(path)
        if not isinstance(fs, LocalFileSystem):
            fs.pipe_file(inner, content)
            return
        folder = Path(inner).parent
        for part in (*reversed(folder.parents), folder):
            part.mkdir(mode=0o700, exist_ok=True)
        unfinished = f"{inner}.tmp"
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(content)
        Path(unfinished).replace(inner)


def real_folder(place: str) -> str:
    """Return a folder or address with a slash at its end, and without symbolic links."""
    return (place if "://" in place else os.path.realpath(place)).rstrip("/") + "/"


def in_lake(user: str, key_id: str | None, config: Settings) -> str:
    """Return the id by which a lake knows a user who is given by it, or, by somebody who may, by the shop's own.

    Args:
        user: a pseudonym, or the shop's own id.
        key_id: of the lake's pseudonyms; empty or None where it has none.
        config: the key, or the map, of whoever may.

    Raises:
        IdentityUnknown: neither is set, or the map does not have the user.
        PseudonymsDiffer: the key is not the lake's.
    """
    user = composed(user)
    if not key_id or is_pseudonym(user, key_id):
        return user
    if key := Key.of(config):
        require_key("the lake", key_id, key.id)
        return pseudonym(user, key)
    if identities := IdentityMap.of(config):
        if found := identities.pseudonym_of(user, key_id):
            return found
        raise IdentityUnknown(
            f"MEANDER_IDENTITY_MAP has no such user with {in_words(key_id)}; is the id written right?"
        )
    raise IdentityUnknown(
        f"this lake has {in_words(key_id)}, and the given id is none; give the pseudonym, or, if you may resolve the "
        "shop's own ids, set MEANDER_PSEUDONYM_KEY or MEANDER_IDENTITY_MAP"
    )


def in_shop(user: str, config: Settings) -> str:
    """Return the shop's own id of a user, given by a pseudonym.

    Raises:
        IdentityUnknown: no map is set, or it does not have the pseudonym.
    """
    identities = IdentityMap.of(config)
    if identities is None:
        raise IdentityUnknown(
            "MEANDER_IDENTITY_MAP is not set, and without a map pseudonyms are one-way; set it if you may resolve them"
        )
    found = identities.user_of(user)
    if found is None:
        raise IdentityUnknown("MEANDER_IDENTITY_MAP does not have this pseudonym: was it made before the map was set?")
    return found
