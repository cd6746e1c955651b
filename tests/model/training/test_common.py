"""How a training is set up for the rows that there are."""

import argparse
from datetime import date

import pytest

from lake.errors import SettingsInvalid
from model.training.common import fit_config, launched
from model.training.plan import TrainingPlan

pytestmark = pytest.mark.tf

PLAN = TrainingPlan("r", date(2017, 1, 1), {}, [], [], [], [], 28, 30, 5, 50, None, seed=3)


def config(rows, epochs=None, least_steps=200, preset="tiny", **given):
    args = argparse.Namespace(**{"batch": None, "learning_rate": None, "workers": 1, "jit": False, **given})
    return fit_config(preset, args, PLAN, rows, epochs, least_steps)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"),
    [
        (60_000, 128, 1),  # the preset's batch, and one pass has enough steps
        (10_000, 128, 3),  # 78 steps a pass
        (4_343, 64, 3),  # 67 steps a pass
        (700, 32, 10),  # no batch is smaller than this one
        (20, 16, 200),  # but where there are fewer rows
    ],
)
def test_a_small_log_gets_smaller_batches_and_more_passes(rows, batch, epochs):
    found = config(rows)
    assert (found.global_batch, found.epochs) == (batch, epochs)
    assert found.epochs * (rows // found.global_batch) >= 200
    assert found.warmup_steps <= found.epochs * (rows // found.global_batch) / 5


def test_what_is_asked_for_wins():
    found = config(4_343, epochs=2, batch=512, learning_rate=1e-4)
    assert (found.global_batch, found.epochs, found.learning_rate, found.seed) == (512, 2, 1e-4, 3)


@pytest.mark.parametrize(
    ("workers", "launcher", "inside", "started"),
    [
        (1, "spark", False, []),
        (2, "spark", True, []),
        (2, "spark", False, [("model.pretrain", ["--workers", "2"], 2)]),
        # On one machine no process needs another one.
        (2, "process", False, []),
    ],
)
def test_workers_are_started_once_by_the_process_that_is_none_of_them(monkeypatch, workers, launcher, inside, started):
    launches = []
    monkeypatch.setattr("model.training.launch.launch", lambda *call: launches.append(call))
    if inside:
        monkeypatch.setenv("TF_CONFIG", "{}")
    args = argparse.Namespace(workers=workers, launcher=launcher)
    assert launched("model.pretrain", ["--workers", "2"], args) == bool(started)
    assert launches == started


def test_workers_that_do_not_divide_the_batch_are_refused():
    assert config(60_000, workers=8).shards == 8
    with pytest.raises(SettingsInvalid, match=r"--workers 3 has to divide 4 shards, and these the batch of 128 rows"):
        config(60_000, workers=3)
    with pytest.raises(SettingsInvalid, match=r"--preset must be one of tiny, base, large; received 'huge'"):
        config(60_000, preset="huge")
