"""Keys, pseudonyms, one key for a lake, and the map of whose they are."""

import hashlib
import hmac
import pickle
import stat

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from lake.errors import IdentityUnknown, PseudonymsDiffer, SettingsInvalid
from lake.pseudonyms import (
    IdentityMap,
    Key,
    from_number,
    in_lake,
    in_shop,
    is_pseudonym,
    pairs_of,
    pseudonym,
    to_number,
)
from lake.publish import publish
from lake.settings import settings
from lake.staging import key_of
from lake.table import Table
from lake.text import is_usable_character
from tests.lake.stagings import JAN_1, JAN_2, rejected, stage_files

KEY, OTHER = Key.of_bytes(bytes(range(32))), Key.of_bytes(bytes(range(1, 33)))
ACCEPTED = st.characters().filter(is_usable_character)


def keyed(**values):
    """Return settings with these values."""
    return settings().model_copy(update=values)


def hmac_by_hand(key: bytes, text: bytes) -> str:
    """Return HMAC-SHA256 as RFC 2104 writes it."""
    key = (hashlib.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + text).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).hexdigest()


# --- pseudonyms ----------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=100), st.text(ACCEPTED, min_size=1, max_size=40))
def test_a_pseudonym_is_half_of_the_hmac_behind_the_id_of_its_key(secret, user):
    key = Key.of_bytes(secret)
    whole = hmac.new(secret, user.encode(), "sha256").hexdigest()
    assert whole == hmac_by_hand(secret, user.encode())
    assert pseudonym(user, key) == f"{key.id}-{whole[:32]}"
    assert is_pseudonym(pseudonym(user, key), key.id)
    assert from_number(to_number(key.id)) == key.id
    assert 0 < to_number(key.id) < 2**63, "Delta keeps it as a signed number"


def test_a_pseudonym_is_that_of_the_published_test_vectors():
    # RFC 4231, cases 1 and 7.
    assert pseudonym("Hi There", Key.of_bytes(b"\x0b" * 20)).endswith("-b0344c61d8db38535ca8afceaf0bf12b")
    long = (
        "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be "
        "hashed before being used by the HMAC algorithm."
    )
    assert pseudonym(long, Key.of_bytes(b"\xaa" * 131)).endswith("-9b09ffa71b942fcb27635fbcd5b0e944")


@given(st.lists(st.text(ACCEPTED, min_size=1, max_size=8), unique=True, max_size=20))
def test_users_stay_apart_and_two_keys_share_nothing(users):
    pairs = pairs_of(pa.chunked_array([users[:3], users[3:]], pa.string()), KEY)
    assert pairs["user_id"].to_pylist() == users
    made = pairs["pseudonym"].to_pylist()
    assert made == [pseudonym(user, KEY) for user in users]
    assert len(set(made)) == len(users)
    assert not set(made) & {pseudonym(user, OTHER) for user in users}
    assert KEY.id != OTHER.id


# --- keys ----------------------------------------------------------------------------------------------


def test_a_key_is_in_a_variable_or_in_a_file(tmp_path):
    digits = KEY.secret.hex()
    file = tmp_path / "key"
    file.write_text(f"{digits.upper()}\n")
    for value in (digits, f" {digits}\n", str(file)):
        assert Key.of(keyed(pseudonym_key=SecretStr(value))) == KEY
    assert Key.of(keyed(pseudonym_key=SecretStr(""))) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("correct horse battery staple", id="a password"),
        pytest.param(bytes(range(31)).hex(), id="31 bytes"),
        pytest.param(bytes(range(32)).hex()[:-1], id="half a byte is missing"),
        pytest.param("0" * 64, id="a placeholder"),
        pytest.param("/no/such/file/of/mine", id="no file"),
        pytest.param("/", id="a folder"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text):
    with pytest.raises(SettingsInvalid, match="MEANDER_PSEUDONYM_KEY") as told:
        Key.of(keyed(pseudonym_key=SecretStr(text)))
    assert len(text) == 1 or text not in str(told.value)
    assert "/no/such" not in "".join(map(str, (told.value, told.value.__cause__)))


def test_a_key_is_neither_shown_nor_pickled():
    assert KEY.secret.hex() not in repr(KEY)
    assert repr(KEY) == f"Key(id='{KEY.id}')"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps({"task": KEY})


# --- one key for a lake --------------------------------------------------------------------------------


def staged(run, day, key_id, table="quarantine", **more):
    rows = rejected(day, run) if table == "quarantine" else []
    return stage_files(table, run, rows, [day], None, key_id=key_id, **more)


@pytest.mark.parametrize(("first", "second"), [(KEY.id, OTHER.id), (KEY.id, ""), ("", KEY.id)])
def test_a_table_is_published_by_one_key_alone(lake, first, second):
    staged("a", JAN_1, first)
    publish("quarantine", "a")
    assert Table("quarantine").key_id == first
    assert Table("quarantine").commits()[0]["key_id"] == first
    # Another day, and the same day again: both would mix users, in the table or with other tables.
    for run, day in (("b", JAN_2), ("c", JAN_1)):
        staged(run, day, second)
        with pytest.raises(PseudonymsDiffer, match=f"quarantine of run '{run}'"):
            publish("quarantine", run)
    assert Table("quarantine").version == 1
    staged("d", JAN_2, first)
    assert publish("quarantine", "d")["rows"] == 1
    assert publish("quarantine", "a")["already"]


def test_a_table_from_before_pseudonyms_has_the_shops_ids_and_an_empty_one_takes_any_key(lake, monkeypatch):
    monkeypatch.setattr("lake.publish.TRANSACTION", "another name")  # as commits were before
    staged("a", JAN_1, "")
    publish("quarantine", "a")
    stage_files("events", "b", [], [JAN_1], None)
    publish("events", "b")
    monkeypatch.undo()
    monkeypatch.setenv("MEANDER_LAKE", str(lake / "lake"))
    assert (Table("quarantine").key_id, Table("events").key_id) == ("", None)
    staged("c", JAN_2, KEY.id)
    with pytest.raises(PseudonymsDiffer, match="expected the shop's own ids of users"):
        publish("quarantine", "c")
    staged("d", JAN_1, KEY.id, "events")
    publish("events", "d")
    assert Table("events").key_id == KEY.id


def test_what_is_made_of_several_tables_needs_one_key(lake):
    for table, key_id in (("events", KEY.id), ("interests", KEY.id), ("sessions", OTHER.id), ("quarantine", "")):
        staged("r", JAN_1, key_id, table)
        publish(table, "r")
    assert key_of({"events": 1, "interests": 1}) == KEY.id
    assert key_of({"quarantine": 1}) == ""
    for pair in ({"events": 1, "sessions": 1}, {"quarantine": 1, "interests": 1}):
        with pytest.raises(PseudonymsDiffer, match="expected one key"):
            key_of(pair)


# --- whose a pseudonym is ------------------------------------------------------------------------------


def whose(tmp_path, *users, key=KEY, name="1-ab"):
    """Add users to a map, and return it."""
    identities = IdentityMap(str(tmp_path / "secret" / "whose"))
    identities.add(key.id, name, pairs_of(pa.chunked_array([users], pa.string()), key))
    return identities


def test_the_map_answers_both_ways_and_its_owner_alone(tmp_path):
    whose(tmp_path, "ann", "漢字")
    identities = whose(tmp_path, "ann", "bob", name="2-cd")
    for user in ("ann", "漢字", "bob"):
        assert identities.user_of(pseudonym(user, KEY)) == user
        assert identities.pseudonym_of(user, KEY.id) == pseudonym(user, KEY)
        assert identities.pseudonym_of(user, OTHER.id) is None
    assert identities.user_of(pseudonym("carl", KEY)) is None
    paths = [tmp_path / "secret", *(tmp_path / "secret").rglob("*")]
    assert {path.name for path in paths if path.is_file()} == {"1-ab.parquet", "2-cd.parquet"}
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.is_file() else 0o700), path


def test_who_is_forgotten_is_in_no_file_of_the_map(tmp_path):
    whose(tmp_path, "ann", "bob")
    whose(tmp_path, "ann", name="2-cd")
    identities = whose(tmp_path, "carl", name="3-ef")
    assert identities.forget([pseudonym("ann", KEY), pseudonym("dora", KEY)]) == 2
    assert identities.user_of(pseudonym("ann", KEY)) is None
    assert [identities.user_of(pseudonym(user, KEY)) for user in ("bob", "carl")] == ["bob", "carl"]
    assert b"ann" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*.parquet")} == {0o600}


def test_a_map_on_an_object_store(lake_on_s3):
    identities = IdentityMap(f"{lake_on_s3}/whose")
    identities.add(KEY.id, "1-ab", pairs_of(pa.chunked_array([["ann", "bob"]], pa.string()), KEY))
    assert identities.user_of(pseudonym("ann", KEY)) == "ann"
    assert identities.forget([pseudonym("ann", KEY)]) == 1
    assert identities.pseudonym_of("ann", KEY.id) is None


@pytest.mark.parametrize("inside", ["lake", "lake/whose", "landing/whose", "link/whose"])
def test_a_map_inside_lake_or_landing_is_refused(lake, inside):
    (lake / "lake").mkdir()
    (lake / "link").symlink_to(lake / "lake")
    with pytest.raises(SettingsInvalid, match="MEANDER_IDENTITY_MAP"):
        IdentityMap.of(keyed(identity_map=str(lake / inside)))
    assert IdentityMap.of(keyed(identity_map=str(lake / "lake2"))) is not None
    assert IdentityMap.of(keyed(identity_map="")) is None


def test_a_user_is_given_by_pseudonym_or_by_whoever_may_as_in_the_shop(lake, tmp_path):
    ann = pseudonym("ann", KEY)
    nobody = keyed()
    assert in_lake(ann, KEY.id, nobody) == ann
    # A lake without pseudonyms, or without rows: an id is an id.
    assert [in_lake("ann", key_id, nobody) for key_id in ("", None)] == ["ann", "ann"]
    with pytest.raises(IdentityUnknown, match="MEANDER_PSEUDONYM_KEY or MEANDER_IDENTITY_MAP"):
        in_lake("ann", KEY.id, nobody)
    # A pseudonym by another key is no user of this lake.
    with pytest.raises(IdentityUnknown):
        in_lake(pseudonym("ann", OTHER), KEY.id, nobody)
    assert in_lake("ann", KEY.id, keyed(pseudonym_key=SecretStr(KEY.secret.hex()))) == ann
    with pytest.raises(PseudonymsDiffer):
        in_lake("ann", KEY.id, keyed(pseudonym_key=SecretStr(OTHER.secret.hex())))
    mapped = keyed(identity_map=whose(tmp_path, "ann").address)
    assert in_lake("ann", KEY.id, mapped) == ann
    assert in_shop(ann, mapped) == "ann"
    for ask in (lambda: in_lake("bob", KEY.id, mapped), lambda: in_shop(pseudonym("bob", KEY), mapped)):
        with pytest.raises(IdentityUnknown) as told:
            ask()
        assert "bob" not in str(told.value)
    with pytest.raises(IdentityUnknown, match="one-way"):
        in_shop(ann, nobody)
