"""Trainings that end early lose only the epoch that they were in."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundglass.errors import TrainingError
from groundglass.training.module import TrainingConfig
from helpers import tiny_training
from helpers.tiny_training import SHORT, nan_loss, run, same_weights, without_times

pytestmark = pytest.mark.slow
ONE_EPOCH = TrainingConfig(learning_rate=1e-3, epochs=1, early_stopping_patience=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an uninterrupted training of three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(folder)
    return folder


def assert_same_result(folder: Path, whole: Path) -> None:
    """Check that weights and metrics are those of the uninterrupted training."""
    for name in ("last.ckpt", "best.ckpt"):
        assert same_weights(folder / name, whole / name)
    assert without_times(folder) == without_times(whole)


def test_a_nan_loss_ends_the_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    run(tmp_path / "run", ONE_EPOCH)
    with monkeypatch.context() as patch:
        patch.setattr("groundglass.training.module.segmentation_loss", nan_loss)
        with pytest.raises(TrainingError, match="the loss became nan in epoch 1"):
            run(tmp_path / "run", resume=True)
    run(tmp_path / "run", resume=True)
    assert_same_result(tmp_path / "run", whole)


def test_a_training_resumes_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    run(tmp_path / "run", ONE_EPOCH)
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> torch.Tensor:
            raise KeyboardInterrupt

        patch.setattr("groundglass.training.module.segmentation_loss", interrupt)
        with pytest.raises(
            TrainingError, match="interrupted in epoch 1: continue from the end of the last epoch with --resume"
        ):
            run(tmp_path / "run", resume=True)
    signal.signal(signal.SIGINT, before)  # Lightning ignores it while it shuts down
    run(tmp_path / "run", resume=True)
    assert_same_result(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the trainings that were killed."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-W", "error", tiny_training.__file__, "killed", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", tiny_training.KILLS)
def test_a_killed_training_loses_only_its_epoch(killed: Path, whole: Path, name: str) -> None:
    assert torch.load(killed / name / "last.ckpt", weights_only=True)["epoch"] == 0
    run(killed / name, resume=True)
    assert_same_result(killed / name, whole)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "metrics.csv"])
def test_a_full_disk_ends_the_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, name: str
) -> None:
    run(tmp_path / "run", ONE_EPOCH)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(TrainingError, match=f"{name} cannot be written: No space left on device; .*with --resume"):
            run(tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").glob(".groundglass-*"))
    run(tmp_path / "run", SHORT, resume=True)
    assert_same_result(tmp_path / "run", whole)


def test_a_full_disk_for_the_log_names_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger.log_metrics", full)
    with pytest.raises(
        TrainingError, match=r"run cannot be written: No space left on device; continue .* with --resume"
    ):
        run(tmp_path / "run", ONE_EPOCH)
