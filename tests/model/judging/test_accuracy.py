"""A bench of several seeds trains each once, and goes on where it was stopped."""

import json
from datetime import date

import pytest

from lake.errors import InputInvalid
from tests.bench.accuracy import due, run_of, training_steps


def planned(lake, run: str, seed: int):
    """Write the part of a plan that names its seed."""
    folder = lake / "_models" / run
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"run_id": run, "seed": seed}))
    return folder


def modules(lake, run: str = "accuracy", *, adapters: bool = False) -> list[str]:
    """Return the modules that are run, with what a network starts from or adapts."""
    steps = training_steps(run, 1, lake, date(2026, 1, 31), [], adapters=adapters)
    return [" ".join(str(part) for part in command[:3] if not str(part).startswith(run)) for command in due(steps)]


def test_a_run_is_named_by_its_seed_whichever_others_are_asked_for(tmp_path):
    assert [run_of(seed, tmp_path) for seed in (1, 2, 30)] == ["accuracy", "accuracy-2", "accuracy-30"]
    planned(tmp_path, "accuracy", 1)
    planned(tmp_path, "accuracy-2", 2)
    assert [run_of(seed, tmp_path) for seed in (2, 1)] == ["accuracy-2", "accuracy"]


def test_a_run_that_was_made_with_another_seed_is_not_taken_for_ones_own(tmp_path):
    planned(tmp_path, "accuracy", 7)
    with pytest.raises(InputInvalid, match=r"run 'accuracy' in .* was made with the seed 7, not 1; give another"):
        run_of(1, tmp_path)


def test_what_is_there_is_not_made_again(tmp_path):
    every = ["model.prepare --day 2026-01-31", "model.pretrain --run-id", "model.finetune --run-id"]
    every += ["model.finetune --start scratch", "model.evaluate --run-id"]
    assert modules(tmp_path) == every
    folder = planned(tmp_path, "accuracy", 1)
    for made, left in (("pretrained", every[2:]), ("finetuned", every[3:]), ("scratch", every[4:]), ("evaluation", [])):
        (folder / made).mkdir()
        assert modules(tmp_path) == left


def test_adapters_that_are_asked_for_later_are_evaluated_too(tmp_path):
    folder = planned(tmp_path, "accuracy", 1)
    for made in ("pretrained", "finetuned", "scratch", "evaluation"):
        (folder / made).mkdir()
    assert modules(tmp_path, adapters=True) == ["model.finetune --adapter lora", "model.evaluate --run-id"]
    (folder / "lora").mkdir()
    assert modules(tmp_path, adapters=True) == []
