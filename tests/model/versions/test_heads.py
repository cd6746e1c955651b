"""A model is used only by code that asks the questions which it was trained for."""

import json

import pytest

from lake.errors import HeadsDiffer
from lake.labels import NAMES
from model.versions.heads import require_heads


def model(folder, weights="finetuned", **noted):
    """Write the files of a network that say which heads it has, and return their folder."""
    (folder / f"{weights}.weights.h5").touch()
    (folder / "network.json").write_text(json.dumps({"heads": 2, **noted}))
    return str(folder)


def test_a_model_with_the_heads_of_the_code_may_be_used(tmp_path):
    require_heads(model(tmp_path, binary=list(NAMES)))


@pytest.mark.parametrize(
    "heads",
    [NAMES[:-1], (*NAMES, "subscribed"), NAMES[::-1]],
    ids=["one is missing", "one is unknown to the code", "in another order"],
)
def test_a_model_with_other_heads_is_refused_and_both_are_named(tmp_path, heads):
    with pytest.raises(HeadsDiffer) as differ:
        require_heads(model(tmp_path, binary=heads))
    assert str(differ.value) == (
        f"the model at {tmp_path} has the heads {', '.join(heads)}, and lake/labels.py lists {', '.join(NAMES)}; "
        "train again with model.prepare --cold, or run the code that this model was trained with "
        "[docs/runbook.md#heads-differ]"
    )


def test_a_model_from_before_heads_were_noted_has_the_first_three(tmp_path, monkeypatch):
    folder = model(tmp_path)
    monkeypatch.setattr("model.versions.heads.NAMES", ("migrated", "purchased", "churned"))
    require_heads(folder)
    monkeypatch.setattr("model.versions.heads.NAMES", ("migrated", "purchased", "churned", "subscribed"))
    with pytest.raises(HeadsDiffer, match=r"has the heads migrated, purchased, churned, and .* churned, subscribed;"):
        require_heads(folder)


def test_what_is_pretrained_only_has_no_heads_that_could_differ(tmp_path):
    require_heads(model(tmp_path, weights="pretrained", binary=["subscribed"]))
