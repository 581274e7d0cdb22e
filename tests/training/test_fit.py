import csv
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from groundglass.data.augment import AugmentConfig
from groundglass.data.batches import DrawConfig, plain_batches, training_batches
from groundglass.data.slices import Slices
from groundglass.errors import TrainingError
from groundglass.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.fit import fit, load_network
from groundglass.training.module import LesionModule, TrainingConfig

NETWORK = NetworkConfig(widths=(4, 8))
WINDOW = (-1000.0, 200.0)


def bright_squares(count: int = 16) -> Slices:
    """Slices of 16 x 16: lung with noise, a square of lesion somewhere in it."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 30, (count, 16, 16))
    labels = np.zeros(hu.shape, np.uint8)
    for i, (row, column) in enumerate(rng.integers(0, 10, (count, 2))):
        labels[i, row : row + 6, column : column + 6] = 1
    names = np.array([f"slices/{i}" for i in range(count)])
    return Slices((hu + 600.0 * labels).astype(np.int16), labels, names, names)


def run(folder: Path, training: TrainingConfig, resume: bool = False) -> Path:
    slices = bright_squares()
    folder.mkdir(exist_ok=True)
    batches = training_batches(slices, WINDOW, DrawConfig(batch_size=4), AugmentConfig(), training.seed)
    return fit(NETWORK, LossConfig(), training, batches, plain_batches(slices, WINDOW, 8), folder, resume)


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def test_it_learns_what_is_plain_to_see(tmp_path: Path) -> None:
    checkpoint = run(tmp_path / "run", TrainingConfig("adamw", learning_rate=1e-2, epochs=60, stop_after=0))
    network = load_network(checkpoint, NETWORK)
    image, target = next(iter(plain_batches(bright_squares(), WINDOW, 16)))
    found = network(image) > 0
    dice = 2 * (found & (target > 0)).sum() / (found.sum() + target.sum())
    assert dice > 0.9
    assert len(metrics(tmp_path / "run")) == 60
    assert {"last.ckpt", "best.ckpt"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_two_epochs_and_two_more_are_four(tmp_path: Path, ema_decay: float) -> None:
    def config(epochs: int) -> TrainingConfig:
        return TrainingConfig(learning_rate=1e-3, epochs=epochs, stop_after=0, ema_decay=ema_decay)

    run(tmp_path / "whole", config(4))
    run(tmp_path / "parts", config(2))
    run(tmp_path / "parts", config(4), resume=True)
    whole, parts = weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "parts" / "last.ckpt")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        run(tmp_path / name, TrainingConfig(learning_rate=1e-3, epochs=1, seed=seed))
    a, again, b = (weights(tmp_path / name / "last.ckpt") for name in ("a", "again", "b"))
    assert all(torch.equal(a[name], again[name]) for name in a)
    assert not all(torch.equal(a[name], b[name]) for name in a)


def test_the_papers_schedule_halves_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_better(module: LesionModule, *_: object) -> None:
        module.log("validation_loss", 1.0, batch_size=1)

    monkeypatch.setattr(LesionModule, "validation_step", no_better)
    run(tmp_path / "run", TrainingConfig(learning_rate=1e-3, epochs=30, halve_after=2, stop_after=5))
    rates = [float(row["learning_rate"]) for row in metrics(tmp_path / "run")]
    # The first epoch improves on nothing; halved for the one after the third without, stopped after the fifth.
    assert rates == [1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4]


def test_averaged_weights_are_what_is_scored_and_kept(tmp_path: Path) -> None:
    config = TrainingConfig("adamw", learning_rate=1e-2, epochs=3, stop_after=0, ema_decay=0.9)
    checkpoint = run(tmp_path / "run", config)
    stored = torch.load(checkpoint, weights_only=True)
    averaged, current = stored["state_dict"], stored["current_model_state"]
    assert any(not torch.equal(averaged[name], current[name]) for name in averaged)
    network = load_network(checkpoint, NETWORK)
    image, target = next(iter(plain_batches(bright_squares(), WINDOW, 16)))
    found = network(image) > 0
    dice = (2 * (found & (target > 0)).sum() / (found.sum() + target.sum())).item()
    logged = [float(row["validation_dice"]) for row in metrics(tmp_path / "run")]
    assert dice == pytest.approx(max(logged), abs=1e-4)


def test_a_loss_that_is_no_number_ends_it_and_the_last_good_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", TrainingConfig(learning_rate=1e-3, epochs=1))
    good = weights(tmp_path / "run" / "last.ckpt")

    def explode(*_: object) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr("groundglass.training.module.segmentation_loss", explode)
    with pytest.raises(TrainingError, match="the loss became nan in epoch 1"):
        run(tmp_path / "run", TrainingConfig(learning_rate=1e-3, epochs=3), resume=True)
    after = weights(tmp_path / "run" / "last.ckpt")
    assert all(torch.equal(good[name], after[name]) for name in good)


def test_there_is_something_to_resume_or_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(tmp_path / "run", TrainingConfig(epochs=1), resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = run(tmp_path / "run", TrainingConfig(epochs=1))
    with pytest.raises(TrainingError, match="does not fit the configuration"):
        load_network(checkpoint, NetworkConfig(widths=(4, 8), attention=False))
    with pytest.raises(TrainingError, match="train first"):
        load_network(tmp_path / "none.ckpt", NETWORK)


def test_bfloat16_trains(tmp_path: Path) -> None:
    config = TrainingConfig("adamw", learning_rate=1e-2, epochs=60, stop_after=0, precision="bf16-mixed")
    run(tmp_path / "run", config)
    assert float(metrics(tmp_path / "run")[-1]["validation_dice"]) > 0.9


def test_ctrl_c_ends_it_clearly_and_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(epochs: int) -> TrainingConfig:
        return TrainingConfig(learning_rate=1e-3, epochs=epochs, stop_after=0)

    run(tmp_path / "whole", config(3))
    run(tmp_path / "parts", config(1))
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> torch.Tensor:
            raise KeyboardInterrupt

        patch.setattr("groundglass.training.module.segmentation_loss", interrupt)
        with pytest.raises(TrainingError, match="interrupted in epoch 1: --resume goes on"):
            run(tmp_path / "parts", config(3), resume=True)
    signal.signal(signal.SIGINT, before)  # Lightning has it ignored while it shuts down
    run(tmp_path / "parts", config(3), resume=True)
    whole, parts = weights(tmp_path / "whole" / "last.ckpt"), weights(tmp_path / "parts" / "last.ckpt")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
