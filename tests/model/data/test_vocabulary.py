"""Keys, indices and ids: each leads to the others, and old indices stay."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.vocabulary import Vocabulary

KEYS = st.integers(-(2**63), 2**63 - 1)
KNOWN = st.lists(KEYS.filter(bool), unique=True, max_size=30)
ANY = st.lists(KEYS, max_size=30)
BUCKETS = st.integers(1, 7)


def vocabulary(keys, buckets=3):
    """Make a vocabulary whose ids are the keys as text, counted 1, 2, 3, ..."""
    return Vocabulary("item_id", np.array(keys, np.int64), [str(k) for k in keys], buckets, np.arange(1, len(keys) + 1))


def array(keys):
    return np.array(keys, np.int64)


@given(KNOWN, ANY, BUCKETS)
def test_every_key_has_the_index_that_a_dictionary_would_give_it(known, others, buckets):
    found = vocabulary(known, buckets).index(array(known + others + [0]))
    places = {key: 1 + buckets + place for place, key in enumerate(known)}
    wanted = [0 if key == 0 else places.get(key, 1 + key % buckets) for key in [*known, *others, 0]]
    assert (found.dtype, found.tolist()) == (np.int32, wanted)


@given(KNOWN, ANY, BUCKETS)
def test_indices_lie_below_the_size_and_tell_what_is_known(known, others, buckets):
    words = vocabulary(known, buckets)
    indices = words.index(array(others))
    assert words.size == 1 + buckets + len(known)
    assert ((indices >= 0) & (indices < words.size)).all()
    assert words.known(indices).tolist() == [key in known for key in others]
    assert words.unseen(array(others)).tolist() == [key != 0 and key not in known for key in others]


@given(KNOWN, BUCKETS)
def test_an_index_leads_back_to_its_id(known, buckets):
    words = vocabulary(known, buckets)
    assert [words.id_of(int(index)) for index in words.index(array(known))] == [str(key) for key in known]
    assert [words.id_of(index) for index in range(buckets + 1)] == ["", *["(other)"] * buckets]


def test_indices_have_the_shape_of_the_keys():
    words = vocabulary([5, -7])
    assert words.index(np.zeros((2, 0, 3), np.int64)).shape == (2, 0, 3)
    assert words.index(array([[5, 0], [-7, 5]])).tolist() == [[4, 0], [5, 4]]
    assert words.index(np.int64(5)) == 4


def test_there_is_no_id_outside_the_vocabulary():
    with pytest.raises(IndexError, match="indices of item_id are 0 to 4; received 5"):
        vocabulary([5]).id_of(5)
    with pytest.raises(IndexError, match="received -1"):
        vocabulary([5]).id_of(-1)


@given(KNOWN, ANY)
def test_a_warm_start_keeps_every_old_index_and_appends_what_is_new(old, others):
    others = list(dict.fromkeys(key for key in others if key))
    before = vocabulary(old)
    after = before.extend(array(others), [f"new {key}" for key in others], array([100] * len(others)))
    new = [key for key in others if key not in old]
    assert after.index(array(old)).tolist() == before.index(array(old)).tolist()
    assert after.keys.tolist() == old + new
    assert after.ids == [*before.ids, *(f"new {key}" for key in new)]
    assert after.counts.tolist() == [*before.counts.tolist(), *[100] * len(new)]
    assert after.buckets == before.buckets


def test_the_share_of_unseen_keys_leaves_out_those_of_nothing():
    words = vocabulary([5, 6])
    assert words.share_unseen(array([[5, 0], [7, 8]])) == 2 / 3
    assert words.share_unseen(array([0, 0])) == 0.0
    assert words.share_unseen(array([])) == 0.0


@pytest.mark.parametrize("known", [[], [5], [2**63 - 1, -(2**63), 7]])
def test_what_is_saved_is_loaded(tmp_path, known):
    saved = vocabulary(known)
    saved.save(str(tmp_path / "model"))
    loaded = Vocabulary.load(str(tmp_path / "model"), "item_id")
    assert (loaded.field, loaded.ids, loaded.buckets) == (saved.field, saved.ids, saved.buckets)
    assert loaded.keys.tolist() == known
    assert loaded.counts.tolist() == saved.counts.tolist()
    assert loaded.index(array([*known, 3, 0])).tolist() == saved.index(array([*known, 3, 0])).tolist()


@pytest.mark.parametrize(
    ("keys", "ids", "buckets", "said"),
    [
        pytest.param([1, 1], ["a", "b"], 1, "must be distinct, and 0 means none", id="a key twice"),
        pytest.param([1, 0], ["a", "b"], 1, "must be distinct, and 0 means none", id="the key of nothing"),
        pytest.param([1], ["a", "b"], 1, "received 1 keys, 2 ids and 1 counts", id="an id too many"),
        pytest.param([1], ["a"], 0, "buckets must be at least 1.*received 0", id="no bucket"),
    ],
)
def test_what_cannot_be_a_vocabulary_is_refused(keys, ids, buckets, said):
    with pytest.raises(ValueError, match=said):
        Vocabulary("item_id", array(keys), ids, buckets)


@pytest.mark.parametrize("module", ["model.data.vocabulary", "model.training.launch", "model.versions.segments"])
def test_what_every_worker_of_a_training_imports_has_no_use_for_spark(module):
    check = f"import sys, {module}; sys.exit('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
