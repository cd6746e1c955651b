"""What leaves a shop that trains with others, and what becomes of what it gets: two small lakes without Spark."""

import io
import re
import zipfile
from argparse import Namespace
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from lake.errors import InputInvalid
from lake.labels import NAMES
from lake.publish import publish
from lake.table import Table
from model import federated
from model.data.vocabulary import Vocabulary
from model.network import network
from model.network.network import Pretrained, build, network_config, shared
from model.training.plan import TrainingPlan
from model.versions.artifact import Artifact
from tests.lake.stagings import stage_files
from tests.model.small_network import SMALL
from tests.model.states import state

pytestmark = pytest.mark.tf

WEEKS = [date(2025, 1, 1) + timedelta(days=7 * n) for n in range(3)]
TRAIN, VALID = WEEKS[:2], WEEKS[2:]
USERS = {"one": 41, "two": 71}  # on each date
# Sizes that nothing else in the network has: 1 for none, the buckets, and what the encoder's log knew.
ITEMS, CATEGORIES = 1 + 2 + 26, 1 + 1 + 29
# Keys of which the second shop alone has an event, in numbers that are not there by chance.
SECRET_ITEM, SECRET_CATEGORY = 0x1122334455667788, 0x2233445566778899
# Events that the encoder learnt from; each shop keeps up to 50 of a user.
ROOM = 3
ARGS = Namespace(passes=1, batch=32, learning_rate=None, workers=1, jit=False)
# How many variables each layer has that all shops learn, by hand: a kernel and mostly a bias of each of its parts.
LAYERS = {
    **dict.fromkeys(("block_0/query", "block_0/value", "block_0/widen", "block_0/narrow"), 2),
    **{"profile_reader": 2, "pair_score": 6, "state": 2, "binary_state": 2},
    **dict.fromkeys(("category", "item", *NAMES), 4),
    **{"wide": 2, "age": 1, "behavior": 1, "repeatable": 2, "faithful": 2},
}


def rows_of(shop: str, day: date, draws: np.random.Generator) -> list[dict]:
    found = []
    for number in range(USERS[shop]):
        items, categories = (draws.integers(1, size, 2).tolist() for size in (27, 30))
        if shop == "two":
            items[0], categories[0] = SECRET_ITEM, SECRET_CATEGORY
        labels = {
            "next_category_key": categories[number % 2],
            "next_item_keys": items[:1],
            **{name: bool(draws.random() < 0.5) for name in NAMES},
        }
        events = {"item_keys": items, "category_keys": categories, "longterm_category_keys": categories}
        spend = 10.0 * number + (1000.0 if shop == "two" else 0.0)
        found.append(state(f"{shop}-user-{number:03}", **events, spend=spend, dt=day) | labels)
    return found


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Return what enters the lake of a shop: two lakes with the same pretrained encoder, and what each learnt once."""
    root = tmp_path_factory.mktemp("shops")
    known = [
        Vocabulary("item_id", np.arange(1, 27), [f"item-{n}" for n in range(26)], 2, np.arange(26, 0, -1)),
        Vocabulary("category_id", np.arange(1, 30), [f"category-{n}" for n in range(29)], 1, np.arange(29, 0, -1)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(network.PRESETS, "tiny", SMALL)
        config = network_config("tiny", *(vocabulary.size for vocabulary in known))
        assert (config.items, config.categories) == (ITEMS, CATEGORIES)
        base = Artifact(
            {"preset": "tiny", "sequence_length": ROOM}, config, *known, pretrained=build(Pretrained, config)
        )

        def enter(shop: str) -> Path:
            patch.setenv("MEANDER_LAKE", str(root / shop / "lake"))
            return root / shop

        for seed, shop in enumerate(USERS):
            folder, draws = enter(shop), np.random.default_rng(seed)
            rows = [row for day in WEEKS for row in rows_of(shop, day, draws)]
            stage_files("examples", "examples", rows, WEEKS, basis=1)
            publish("examples", "examples")
            versions = {"examples": Table("examples").version}
            plan = TrainingPlan("r", WEEKS[-1], versions, TRAIN, TRAIN, VALID, VALID, 7, 30, 5, 50, None, 1)
            plan.save()
            base.save(f"{plan.folder}/pretrained")
            if shop == "one":
                federated.main(["begin", "--run-id", "r", "--out", str(root / "first.npz")])
            round_ = ["round", "--run-id", "r", "--arrays", str(root / "first.npz"), "--batch", "32"]
            federated.main([*round_, "--out", str(folder / "learnt.npz")])
        yield enter


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if name not in ("encoder", "rows")}


def test_what_leaves_a_shop_is_the_arrays_of_these_layers_and_two_facts(shops):
    for shop, users in USERS.items():
        with zipfile.ZipFile(shops(shop) / "learnt.npz") as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        assert Counter(name.rsplit("/", 1)[0] for name in names) == LAYERS | {"encoder": 1, "rows": 1}
        with np.load(shops(shop) / "learnt.npz") as stored:
            assert stored["rows"] == users * len(TRAIN)
            assert stored["rows"].shape == ()
            assert re.fullmatch("[0-9a-f]{64}", str(stored["encoder"]))


def test_no_array_has_a_number_for_each_item_or_category_or_user_and_all_shops_send_the_same_shapes(shops):
    shapes = {shop: {name: a.shape for name, a in arrays_of(shops(shop) / "learnt.npz").items()} for shop in USERS}
    assert shapes["one"] == shapes["two"]
    sizes = {size for shape in shapes["one"].values() for size in shape}
    assert not sizes & {ITEMS, ITEMS - 1, 26, CATEGORIES, CATEGORIES - 1, 29, *USERS.values()}


def test_no_id_key_or_amount_of_a_row_is_in_the_bytes_that_leave_a_shop(shops):
    sent = (shops("two") / "learnt.npz").read_bytes()
    planted = [b"two-user", b"item-", b"category-", b"examples"]
    for number in (SECRET_ITEM, SECRET_CATEGORY):
        planted += [number.to_bytes(8, order) for order in ("little", "big")] + [str(number).encode()]
    # Scalars are measured against those of the shop, which say how much its users spend.
    spend = np.log1p(np.array([10.0 * number + 1000.0 for number in range(USERS["two"])] * 2)).mean() / 3
    planted += [np.array(spend, kind).tobytes() for kind in (np.float32, np.float64)]
    assert [text for text in planted if text in sent] == []


def test_a_round_learns_all_that_is_shared_but_the_first_half_of_an_adapter(shops):
    first, learnt = (arrays_of(file) for file in (shops("one").parent / "first.npz", shops("one") / "learnt.npz"))
    same = {name for name in first if np.array_equal(first[name], learnt[name])}
    assert same == {name for name in first if name.endswith("/a")}


def test_what_is_shared_is_all_that_is_trained(shops):
    shops("one")
    base = Artifact.load(f"{TrainingPlan.load('r').folder}/pretrained")
    of_shop = federated.network_of(base)
    exchanged = shared(of_shop)
    trained = {id(variable) for variable in of_shop.trainable_variables}
    assert trained == {id(variable) for name, variable in exchanged.items() if not name.endswith("/a")}
    assert len({id(variable) for variable in exchanged.values()}) == len(exchanged)


def test_a_round_that_is_asked_for_again_gives_the_same_and_another_arrays_of_its_own(shops, tmp_path):
    folder = shops("one")
    for given, out in (("two/learnt.npz", "next.npz"), ("first.npz", "again.npz")):
        step = ["round", "--run-id", "r", "--arrays", str(folder.parent / given), "--batch", "32"]
        federated.main([*step, "--out", str(tmp_path / out)])
    learnt, again, other = (
        arrays_of(file) for file in (folder / "learnt.npz", tmp_path / "again.npz", tmp_path / "next.npz")
    )
    for name, values in learnt.items():
        assert again[name] == pytest.approx(values, abs=1e-6)
    assert not np.array_equal(learnt["state/0"], other["state/0"])


def test_the_network_that_a_shop_keeps_is_the_encoder_with_adapters_and_the_heads_of_all(shops):
    # Adapters of the first round add nothing, so these are of another shop, as if it were the average.
    file = shops("one").parent / "two" / "learnt.npz"
    federated.main(["keep", "--run-id", "r", "--arrays", str(file)])
    folder, given = TrainingPlan.load("r").folder, arrays_of(file)
    kept, base = Artifact.load(f"{folder}/finetuned"), Artifact.load(f"{folder}/pretrained")
    mine, before = kept.finetuned.encoder.blocks[0].widen.kernel, base.pretrained.encoder.blocks[0].widen.kernel
    added = given["block_0/widen/a"] @ given["block_0/widen/b"]
    assert np.abs(added).max() > 0
    assert np.asarray(mine) == pytest.approx(np.asarray(before) + added, abs=1e-6)
    assert np.asarray(kept.finetuned.state.kernel) == pytest.approx(given["state/0"])
    # It looks at as many events as all have learnt from, not at as many as this shop keeps.
    assert kept.card["sequence_length"] == kept.features.events == base.features.events == ROOM
    # What each category sells, and how much users spend, stays that of the encoder and of this shop.
    for name in ("item_bias", "category_bias"):
        assert np.array_equal(getattr(kept.finetuned, name), getattr(base.pretrained, name))
    spend = np.log1p(np.array([10.0 * number for number in range(USERS["one"])] * 2)) / 3
    place = federated_scalar("spend")
    assert float(kept.finetuned.scalar_mean[place]) == pytest.approx(spend.mean(), rel=1e-5)
    assert float(kept.finetuned.scalar_scale[place]) == pytest.approx(spend.std(), rel=1e-4)
    assert kept.card["kept"] == "federated"


def federated_scalar(name: str) -> int:
    from model.data.features import SCALARS

    return SCALARS.index(name)


def altered(file: Path, change) -> bytes:
    with np.load(file, allow_pickle=False) as stored:
        content = {name: stored[name] for name in stored.files}
    change(content)
    written = io.BytesIO()
    np.savez(written, **content)
    return written.getvalue()


def with_text(file: Path) -> bytes:
    """Return an archive with a member that is no array."""
    written = io.BytesIO(file.read_bytes())
    with zipfile.ZipFile(written, "a") as archive:
        archive.writestr("notes.txt", "hello")
    return written.getvalue()


def test_arrays_of_anybody_are_refused_with_what_is_wrong_with_them(shops, tmp_path):
    first = shops("one").parent / "first.npz"
    base = Artifact.load(f"{TrainingPlan.load('r').folder}/pretrained")
    pickled = io.BytesIO()
    np.savez(pickled, x=np.array([{}], object))
    one = io.BytesIO()
    np.save(one, np.zeros(3, np.float32))
    bomb = io.BytesIO()
    np.savez_compressed(bomb, **{"state/0": np.zeros(1 << 22, np.float32)})
    cases = [
        (b"no archive", "must be a file of numpy arrays"),
        (bomb.getvalue(), "must be a file of numpy arrays .* state/0.npy is packed"),
        (first.read_bytes()[:2000], "must be a file of numpy arrays"),
        (one.getvalue(), "must be a file of numpy arrays"),
        (with_text(first), "must be a file of numpy arrays, .* with other content: notes.txt"),
        (first.read_bytes().replace(b"\x93NUMPY", b"\x93NUMPI"), "must be a file of numpy arrays"),
        (pickled.getvalue(), "must be a file of numpy arrays"),  # to load it could run code of whoever made it
        (
            altered(first, lambda c: c.update(encoder=np.array("0" * 64))),
            "belongs to the pretrained encoder 000000000000",
        ),
        (altered(first, lambda c: c.pop("encoder")), "belongs to the pretrained encoder none"),
        (altered(first, lambda c: c.pop("state/0")), "another shape: state/0"),
        (altered(first, lambda c: c.update(user_id=np.zeros(3, np.float32))), "another shape: user_id"),
        (altered(first, lambda c: c.update({"state/1": c["state/1"][:-1]})), "another shape: state/1"),
        (altered(first, lambda c: c.update({"state/1": c["state/1"] * np.nan})), "state/1 of .* must be finite"),
        (
            altered(first, lambda c: c.update({"state/1": c["state/1"].astype("f8")})),
            "must be finite 32-bit .* float64",
        ),
    ]
    for content, message in cases:
        file = tmp_path / "given.npz"
        file.write_bytes(content)
        with pytest.raises(InputInvalid, match=message):
            federated.read(file, base)
    federated.read(first, base)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["round", "--out", "x"], id="a round without arrays"),
        pytest.param(["begin", "--out", "x", "--arrays", "y"], id="a beginning with arrays"),
        pytest.param(["keep", "--arrays", "y", "--out", "x"], id="kept arrays leave the shop"),
    ],
)
def test_a_step_takes_what_it_needs_and_no_more(arguments, capsys):
    with pytest.raises(SystemExit):
        federated.main([*arguments, "--run-id", "r"])
    assert re.search(r"`\w+` (needs|takes no) --", capsys.readouterr().err)
