"""A training shared by two processes gives the results of a single process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundglass.errors import ConfigError
from groundglass.training.batches import NO_AUGMENTATION, SamplingConfig, training_batches
from groundglass.training.fit import is_first_process
from helpers import tiny_training
from helpers.tiny_training import WINDOW, bright_squares, gradient, run, run_shared, weights, without_times

NAMES = ("plain", "augmented")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the trainings in two processes, which end with a NaN loss."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-W", "error", tiny_training.__file__, "two-processes", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert sorted(re.findall(r"\[rank(\d)\]: \S+TrainingError: the loss became nan in epoch 0", done.stderr)) == [
        "0",
        "1",
    ]
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same trainings in one process."""
    folder = tmp_path_factory.mktemp("one")
    run_shared(folder, devices=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_scores_are_those_of_one_process(one: Path, two: Path, name: str) -> None:
    single, shared = without_times(one / name), without_times(two / name)
    assert len(single) == len(shared) == 3
    for row, other in zip(single, shared, strict=True):
        assert {key: float(value) for key, value in other.items()} == pytest.approx(
            {key: float(value) for key, value in row.items()}, abs=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_one_process(one: Path, two: Path, name: str) -> None:
    single, shared = weights(one / name / "last.ckpt"), weights(two / name / "last.ckpt")
    assert single.keys() == shared.keys()
    for key in single:
        assert torch.allclose(single[key], shared[key], atol=1e-5)


@pytest.mark.slow
def test_the_gradient_is_that_of_one_process(two: Path) -> None:
    single = gradient(shared=False)
    for rank in (0, 1):
        assert torch.allclose(torch.load(two / f"gradient-{rank}.pt", weights_only=True), single, rtol=1e-3, atol=1e-6)


def test_more_processes_than_slices_in_a_batch_are_refused() -> None:
    batches = training_batches(bright_squares(), WINDOW, SamplingConfig(4), NO_AUGMENTATION, seed=0)
    with pytest.raises(ConfigError, match="a batch of 4 cannot be shared by 5 processes: choose a larger"):
        batches.shard(0, 5)


def test_processes_of_torchrun_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert run(tmp_path / "run", devices=7).is_file()
    assert is_first_process()
