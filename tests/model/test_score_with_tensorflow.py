"""Scoring by a real network in Spark's workers: what one process predicts, however the rows are cut."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql.pandas.types import to_arrow_schema

from lake.errors import HeadsDiffer
from lake.labels import NAMES
from lake.schemas import INTERESTS
from model import score
from model.explain import explanation, in_words
from model.versions.stack import Stack
from tests.model.standin_artifact import CARD, KEY
from tests.model.states import DAY, frame, state
from tests.model.tiny_examples import example, examples

pytestmark = [pytest.mark.spark, pytest.mark.tf]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A small network with random weights, saved as an artifact."""
    import keras

    from model.data.vocabulary import Vocabulary
    from model.network.network import Finetuned, NetworkConfig, Pretrained, build
    from model.versions.artifact import Artifact

    keras.utils.set_random_seed(7)
    items = Vocabulary("item_id", np.array([KEY["i1"], KEY["i2"]]), ["i1", "i2"], buckets=2)
    categories = Vocabulary("category_id", np.array([KEY["a"], KEY["b"]]), ["a", "b"], buckets=1)
    config = NetworkConfig(items.size, categories.size, events=4, profile=3, width=8, layers=1, hidden=(8,))
    folder = str(tmp_path_factory.mktemp("artifact"))
    networks = {"finetuned": build(Finetuned, config), "pretrained": build(Pretrained, config)}
    Artifact(dict(CARD), config, items, categories, **networks).save(folder)
    return folder


@pytest.fixture(scope="module")
def stacked(address, tmp_path_factory):
    """The same network with trees, which know who has more of a than of b."""
    from model.judging.boosted import BoostedTrees
    from model.versions.artifact import Artifact

    rows = examples(
        *(
            # Each seventh does not come back.
            example(f"u{n}", ["a"] * (n % 5) + ["b"] * (n % 3), ["a" if n % 5 > n % 3 else "b"] if n % 7 else [])
            for n in range(1, 90)
        )
    )
    trees = BoostedTrees(rounds=5, threads=1).fit(rows, rows, ["a", "b"]).trees
    assert trees.ranker is not None
    artifact = Artifact.load(address)
    artifact.stack = Stack(
        trees, {"network": 0.5, "trees": 1.5}, {"churned": {"network": 1.0, "trees": 0.5, "bias": 1.0}}
    )
    artifact.card = {**artifact.card, "stack": artifact.stack.as_card(), "set_reach": 0.4, "set_coverage": 0.9}
    folder = str(tmp_path_factory.mktemp("stacked"))
    artifact.save(folder)
    return folder


def test_a_stack_is_scored_and_explained_as_one_model(stacked, address):
    rows = users(40)
    network, both = score.load_artifact(address), score.load_artifact(stacked)
    states = score.to_frame(batch(rows))
    alone, said = network.predict(states), both.predict(states)
    np.testing.assert_array_equal(both.predict_alone(states).categories, alone.categories)
    found = score.predict_rows(both, 1, batch(rows)).to_pylist()
    odds = np.log(alone.answers["churned"] / (1 - alone.answers["churned"]))
    trees = both.stack.trees.binary(states)["churned"]
    for at, row in enumerate(found):
        assert row["churn_probability"] == pytest.approx(said.answers["churned"][at])
        wanted = odds[at] + 0.5 * np.log(trees[at] / (1 - trees[at])) + 1
        assert row["churn_probability"] == pytest.approx(1 / (1 + np.exp(-wanted)), rel=1e-4)
        assert row["migration_probability"] == pytest.approx(alone.answers["migrated"][at])
        assert sum(row["category_probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["category_probabilities"][0] == pytest.approx(said.categories[at].max())
    assert np.abs(said.categories - alone.categories).max() > 0.05
    words = in_words(explanation(both, 1, batch([rows[5]])))
    assert "The model is a stack, of a network and of boosted trees:" in words
    assert "the next one with 90 %: " in words


def users(n):
    """Make users of whom no two are alike, all sizes of sequences from none to longer than the network's among them."""
    sequences = ("item_keys", "item_ids", "category_keys", "behaviors", "event_seconds", "gap_seconds")
    good = state("u")
    return [
        state(
            f"u{i:03}",
            **{name: (good[name] * 3)[: i % 7] for name in sequences},
            frequency=1 + i % 5,
            tenure_seconds=i * DAY,
        )
        for i in range(n)
    ]


def batch(rows):
    """Make an Arrow batch of states."""
    return pa.RecordBatch.from_pylist(rows, to_arrow_schema(INTERESTS))


def test_spark_says_what_one_process_says_however_the_rows_are_cut(spark, address):
    rows = users(60)

    def scored(partitions):
        cut = frame(spark, rows).repartition(partitions)
        return sorted(score.predictions(cut, address, 1).collect(), key=lambda row: row.user_id)

    once, cut = scored(1), scored(5)
    assert [row.user_id for row in once] == [row["user_id"] for row in rows]
    # Batches of a fixed size: what a row gets does not depend on its neighbours but for the last bits.
    for one, other in zip(once, cut, strict=True):
        assert one.category_ids == other.category_ids
        assert one.item_ids == other.item_ids
        assert one.segment == other.segment
        for name in ("category_probabilities", "item_probabilities", "migration_probability", "surprise"):
            assert other[name] == pytest.approx(one[name], abs=1e-6)

    alone = score.predict_rows(score.load_artifact(address), 1, batch(rows)).to_pylist()
    for one, other in zip(once, alone, strict=True):
        assert one.category_probabilities == pytest.approx(other["category_probabilities"], abs=1e-6)
        assert one.churn_probability == pytest.approx(other["churn_probability"], abs=1e-6)
        assert sum(one.category_probabilities) == pytest.approx(1, abs=1e-6)
        # An item that the model does not know is offered to those who had it among their last four events.
        had = set(rows[int(one.user_id[1:])]["item_ids"][-4:])
        assert set(one.item_ids) == {"i1", "i2"} | (had & {"i3"})
        assert one.unseen_events == other["unseen_events"]


def test_a_worker_imports_nothing_that_scoring_or_training_does_not_need(address, stacked):
    code = f"""
import sys
from model.score import load_artifact
load_artifact({address!r})
assert "lightgbm" not in sys.modules, "a network alone has no trees"
load_artifact({stacked!r})
assert "lightgbm" in sys.modules
others = ["sklearn", "matplotlib", "jax", "mlflow", "great_expectations", "petastorm"]
found = [name for name in others if name in sys.modules]
assert not found, found
import model.finetune, model.pretrain  # nor does a training, which reads by Petastorm and writes to the registry
found = [name for name in ("scipy.stats", *others[:3]) if name in sys.modules]
assert not found, found
import sklearn.linear_model  # whoever asks for it later gets it
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_user_is_explained_by_the_real_network(address):
    found = explanation(score.load_artifact(address), 1, batch([users(6)[5]]))
    weights = [event.attention for event in found.events]
    assert weights[-1] is None, "the oldest of five is further back than the four that this network sees"
    assert sum(weights[:-1]) == pytest.approx(1, abs=1e-5)
    assert "Expected of the next 28 days:" in in_words(found)


def test_a_model_is_saved_with_its_heads_and_loaded_only_by_code_that_asks_for_them(address, monkeypatch):
    assert json.loads(Path(address, "network.json").read_text())["binary"] == list(NAMES)
    score.load_artifact(address)
    monkeypatch.setattr("model.versions.heads.NAMES", (*NAMES, "subscribed"))
    with pytest.raises(HeadsDiffer, match=rf"has the heads {', '.join(NAMES)}, and .* lists .*, subscribed;"):
        score.load_artifact(address)
