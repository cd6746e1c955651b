"""A stack says what its weights make of both sides, from its files as from memory, and tells of a broken file."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lake.errors import ModelMissing
from model.judging.boosted import BoostedTrees
from model.versions.stack import Stack, likeliest, log_odds, pooled, reordered
from model.versions.trees import Trees
from tests.model.tiny_examples import example, examples, shop

CATEGORIES = [f"c{n:02d}" for n in range(12)]


@dataclass(frozen=True)
class Said:
    """What a network says."""

    categories: np.ndarray
    answers: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def trees() -> Trees:
    train, valid = shop(60, ["2026-01-03", "2026-01-10"]), shop(60, ["2026-02-07"], seed=1)
    return BoostedTrees(rounds=20, most_popular=4, threads=1).fit(train, valid, CATEGORIES).trees


@pytest.fixture(scope="module")
def rows():
    # All kinds: a stranger, one with a category that nobody else has, those of the shop.
    odd = (example("x", [], []), example("y", ["rope"], []), example("z", ["c11"] * 3, [], older=["c10"]))
    return examples(*odd, *shop(20, ["2026-02-28"], seed=2).to_dict("records"))


def test_what_the_offered_categories_have_is_spread_by_the_powers_of_both_sides():
    network = np.array([[0.5, 0.3, 0.1, 0.1]], np.float32)
    found = reordered(network, np.array([[0, 1]]), np.array([[0.04, 0.25]]), {"network": 1, "trees": 0.5})
    # 0.5 * 0.2 and 0.3 * 0.5 of their 0.8, which stays theirs; the others stay.
    assert found[0] == pytest.approx([0.8 * 0.1 / 0.25, 0.8 * 0.15 / 0.25, 0.1, 0.1])
    assert network[0].tolist() == np.array([0.5, 0.3, 0.1, 0.1], np.float32).tolist()
    same = reordered(network, np.array([[1, 3]]), np.array([[0.9, 0.0]]), {"network": 1, "trees": 0})
    assert same[0] == pytest.approx(network[0])
    # What both hold for impossible does not end in nothing.
    none = reordered(np.array([[0.0, 0.0, 1.0]]), np.array([[0, 1]]), np.zeros((1, 2)), {"network": 1, "trees": 1})
    assert none[0] == pytest.approx([0, 0, 1])


def test_log_odds_are_weighted_and_certainty_stays_finite():
    weights = {"network": 0.5, "trees": 2.0, "bias": 0.1}
    found = pooled(np.array([0.8]), np.array([0.6]), weights)
    assert found[0] == pytest.approx(1 / (1 + np.exp(-(0.5 * np.log(4) + 2 * np.log(1.5) + 0.1))))
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
    certain = pooled(np.array([0.0, 1.0]), np.array([0.5, 0.5]), {"network": 1, "trees": 1, "bias": 0})
    assert certain == pytest.approx([0, 1], abs=1e-6)


def test_the_likeliest_thirty_are_offered(monkeypatch):
    chances = np.random.default_rng(1).random((5, 50))
    found = likeliest(chances)
    assert found.shape == (5, 30)
    for row, columns in zip(chances, found, strict=True):
        assert set(columns) == set(np.argsort(-row)[:30])
    monkeypatch.setattr("model.versions.stack.AT_ONCE", 2)
    assert likeliest(chances).tolist() == found.tolist()
    assert likeliest(chances[:, :7]).tolist() == [list(range(7))] * 5


def test_a_category_is_judged_alike_whether_it_was_common_or_offered(trees, rows):
    known = trees.candidates
    offered = np.tile(known.common, (len(rows), 1))
    row, column, features = known.pairs(rows)
    found = known.features_of(rows, offered)
    for at, (one, other) in enumerate(zip(np.repeat(np.arange(len(rows)), 4), offered.ravel(), strict=True)):
        (place,) = np.flatnonzero((row == one) & (column == other))
        np.testing.assert_array_equal(found[at], features[place])
    # In the order in which they are offered, and what is no candidate of a user, too.
    turned = trees.of_offered(rows, offered[:, ::-1])
    np.testing.assert_array_equal(turned[:, ::-1], trees.of_offered(rows, offered))
    assert trees.of_offered(rows, np.tile([9], (len(rows), 1))).shape == (len(rows), 1)


def said_by(rows) -> Said:
    draws = np.random.default_rng(3)
    answers = {name: draws.random(len(rows)).astype(np.float32) for name in ("migrated", "purchased", "churned")}
    return Said(draws.dirichlet(np.ones(12), len(rows)).astype(np.float32), answers)


WEIGHTS = {"network": 0.7, "trees": 0.4, "bias": 0.2}


def test_each_answer_is_that_of_both_or_of_the_network_as_the_stack_says(trees, rows, monkeypatch):
    said = said_by(rows)
    found = Stack(trees, None, {"migrated": WEIGHTS}).applied(said, rows)
    assert found.categories is said.categories
    np.testing.assert_array_equal(found.answers["churned"], said.answers["churned"])
    np.testing.assert_array_equal(
        found.answers["migrated"], pooled(said.answers["migrated"], trees.binary(rows)["migrated"], WEIGHTS)
    )
    stack = Stack(trees, {"network": 0.7, "trees": 0.4}, {})
    found = stack.applied(said, rows)
    assert found.answers == said.answers
    assert found.categories.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert not np.allclose(found.categories, said.categories, atol=0.01)
    # A row is judged by itself, however the rows are cut.
    monkeypatch.setattr("model.versions.trees.AT_ONCE", 7)
    np.testing.assert_allclose(stack.applied(said, rows).categories, found.categories, atol=1e-7)
    one = Said(said.categories[4:5], {})
    np.testing.assert_allclose(stack.applied(one, rows.iloc[4:5]).categories[0], found.categories[4], atol=1e-7)
    nobody = stack.applied(Said(said.categories[:0], {}), rows.iloc[:0])
    assert nobody.categories.shape == (0, 12)


@pytest.fixture
def kept(trees, tmp_path):
    """Leave a stack in a folder, and return what loads it."""
    stack = Stack(trees, {"network": 0.7, "trees": 0.4}, {"migrated": WEIGHTS})
    trees.save(str(tmp_path / "trees"))
    card = json.loads(json.dumps({"stack": stack.as_card()}))
    return lambda categories=tuple(CATEGORIES): Stack.load(str(tmp_path), card, list(categories))


def test_from_its_files_a_stack_says_the_same(trees, rows, kept):
    said = said_by(rows)
    wanted = Stack(trees, {"network": 0.7, "trees": 0.4}, {"migrated": WEIGHTS}).applied(said, rows)
    found = kept().applied(said, rows)
    np.testing.assert_allclose(found.categories, wanted.categories, atol=1e-7)
    np.testing.assert_allclose(found.answers["migrated"], wanted.answers["migrated"], atol=1e-7)


def test_trees_without_variety_are_kept_as_rates_and_popularity(tmp_path):
    alike = examples(*(example(f"u{n}", ["c00"], []) for n in range(4)))
    trees = BoostedTrees(rounds=1, threads=1).fit(alike, alike, CATEGORIES).trees
    trees.save(str(tmp_path))
    found = Trees.load(str(tmp_path))
    assert found.ranker is None
    assert found.binary(alike)["churned"].tolist() == [1.0] * 4
    assert found.of_offered(alike, np.tile([0, 5], (4, 1))) == pytest.approx(np.full((4, 2), 1 / 12))


def test_a_card_without_a_stack_is_a_network_alone(tmp_path):
    assert Stack.load(str(tmp_path), {"name": "finetuned"}, CATEGORIES) is None


@pytest.mark.parametrize("name", ["trees.json", "next_category.txt", "migrated.txt"])
def test_a_file_that_is_missing_or_cut_off_is_told(tmp_path, kept, name):
    path = tmp_path / "trees" / name
    content = path.read_text()
    path.unlink()
    with pytest.raises(
        ModelMissing,
        match=r"trees.*; copy the version's files again, .* python -m model.promote --model-version N --since D",
    ):
        kept()
    if name != "trees.json":
        path.write_text(content[: len(content) // 2])
        with pytest.raises(ModelMissing, match=rf"the trees of {Path(name).stem} at .* are cut off; copy"):
            kept()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda _: "[]",
        lambda text: json.dumps({name: said for name, said in json.loads(text).items() if name != "heads"}),
        lambda text: json.dumps({name: said for name, said in json.loads(text).items() if name != "popularity"}),
        lambda text: json.dumps(json.loads(text) | {"heads": {"migrated": "much"}}),
        lambda text: json.dumps(json.loads(text) | {"heads": []}),
    ],
    ids=["empty", "cut off", "a list", "no heads", "no popularity", "a rate in words", "heads without names"],
)
def test_a_damaged_list_of_trees_is_told(tmp_path, kept, damage):
    path = tmp_path / "trees" / "trees.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ModelMissing, match=r"trees\.json is cut off or damaged \(.*\); copy the version's files again"):
        kept()


@pytest.mark.parametrize(("lost", "told"), [("migrated", "lack migrated"), ("ranker", "lack next_category")])
def test_trees_that_the_card_names_and_that_are_not_there_are_told(tmp_path, kept, lost, told):
    path = tmp_path / "trees" / "trees.json"
    content = json.loads(path.read_text())
    if lost == "ranker":
        content["ranker"] = False
    else:
        del content["heads"][lost]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelMissing, match=rf"{told}, which the model's card names; copy"):
        kept()


@pytest.mark.parametrize(("mine", "other"), [("migrated", "next_category"), ("next_category", "migrated")])
def test_trees_that_look_at_other_features_are_told(tmp_path, kept, mine, other):
    folder = tmp_path / "trees"
    (folder / f"{mine}.txt").write_text((folder / f"{other}.txt").read_text())
    with pytest.raises(ModelMissing, match=rf"the trees of {mine} at .* look at \d+ features, and this code makes \d+"):
        kept()


def test_a_machine_without_the_library_of_lightgbm_is_told(kept, monkeypatch):
    monkeypatch.delitem(sys.modules, "lightgbm")

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "lightgbm":
                raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        ModelMissing, match=r"LightGBM.* cannot be loaded here \(libgomp.so.1: cannot.*; install .*libgomp1"
    ):
        kept()


def test_trees_of_what_has_no_say_are_not_kept(trees, rows, tmp_path):
    cut = trees.only(["migrated"], ranker=False)
    cut.save(str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"trees.json", "migrated.txt"}
    found = Trees.load(str(tmp_path))
    assert (found.ranker, list(found.heads)) == (None, ["migrated"])
    np.testing.assert_allclose(found.binary(rows)["migrated"], trees.binary(rows)["migrated"])
    assert trees.only([], ranker=True).ranker is trees.ranker


def test_trees_of_other_categories_are_told(kept):
    with pytest.raises(ModelMissing, match=r"know 12 categories, others than the 12 of the network beside them"):
        kept(CATEGORIES[::-1])
