import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundglass.errors import ConfigError, TrainingError
from groundglass.network.unet import NetworkConfig
from groundglass.training.augment import augment
from groundglass.training.batches import plain_batches
from groundglass.training.callbacks import Checkpoint
from groundglass.training.fit import describe_machine
from groundglass.training.module import LesionModule, TrainingConfig
from groundglass.training.weights import load_network
from helpers.tiny_training import (
    CLASSES,
    NETWORK,
    SHORT,
    WINDOW,
    bright_squares,
    metrics,
    run,
    same_weights,
    without_times,
)

pytestmark = pytest.mark.thorough


def dice(network: LesionModule) -> float:
    """Compute the Dice of the lesion map over all bright squares."""
    image, target = next(iter(plain_batches(bright_squares(), WINDOW, 16)))
    predicted = network(image)[:, :1] > 0
    return float(2 * (predicted & (target > 0)).sum() / (predicted.sum() + target.sum()))


def test_a_training_learns_bright_squares(tmp_path: Path) -> None:
    checkpoint = run(
        tmp_path / "run", TrainingConfig("adamw", learning_rate=2e-2, epochs=20, early_stopping_patience=0)
    )
    assert dice(load_network(checkpoint, NETWORK)) > 0.9
    assert len(metrics(tmp_path / "run")) == 20
    assert {"last.ckpt", "best.ckpt"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_training_learns_classes_and_lesions_of_unstated_class(tmp_path: Path) -> None:
    training = TrainingConfig("adamw", learning_rate=2e-2, epochs=20, early_stopping_patience=0)
    checkpoint = run(tmp_path / "run", training, classes=CLASSES)
    network = load_network(checkpoint, NetworkConfig(NETWORK.widths, classes=3))
    assert dice(network) > 0.9
    image, target = next(iter(plain_batches(bright_squares(), WINDOW, 16, CLASSES)))
    either = network(image)[:, 1:].amax(1) > 0  # both classes look the same, so only "one of them" can be learnt
    stated = target[:, 1] >= 0
    assert (either == (target[:, 1:].amax(1) > 0))[stated].float().mean() > 0.9


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_two_epochs_and_two_resumed_ones_equal_four(tmp_path: Path, ema_decay: float) -> None:
    two, four = (replace(SHORT, epochs=epochs, ema_decay=ema_decay) for epochs in (2, 4))
    run(tmp_path / "whole", four)
    run(tmp_path / "parts", two)
    run(tmp_path / "parts", four, resume=True)
    for name in ("last.ckpt", "best.ckpt"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "parts")


@pytest.mark.parametrize("validates", [True, False])
def test_a_resumed_training_halves_its_learning_rate_where_a_whole_one_does(tmp_path: Path, validates: bool) -> None:
    training = replace(SHORT, learning_rate=1e-6, lr_patience=0, seed=2)  # too little to improve
    for folder, epochs, resume in (("whole", 4, False), ("parts", 2, False), ("parts", 4, True)):
        run(tmp_path / folder, replace(training, epochs=epochs), resume, validates=validates)
    rates = [row["learning_rate"] for row in metrics(tmp_path / "whole")]
    assert float(rates[-1]) < float(rates[0])
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "parts")
    assert same_weights(tmp_path / "whole" / "last.ckpt", tmp_path / "parts" / "last.ckpt")


def test_a_one_cycle_schedule_of_another_length_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path / "run", TrainingConfig("adamw", epochs=1))
    with pytest.raises(TrainingError, match=r"started for 4 steps, but this training has 8: resume with the same"):
        run(tmp_path / "run", TrainingConfig("adamw", epochs=2), resume=True)


def test_the_best_score_is_remembered_after_the_run_folder_was_moved(tmp_path: Path) -> None:
    before, after = (Checkpoint(tmp_path / name, "best", monitor="validation_dice", mode="max") for name in "ab")
    path, score = str(tmp_path / "a" / "best.ckpt"), torch.tensor(0.9)
    known = {"best_model_path": path, "best_model_score": score, "best_k_models": {path: score}, "kth_value": score}
    after.load_state_dict(before.state_dict() | known | {"kth_best_model_path": path})
    assert after.best_model_path == str(tmp_path / "b" / "best.ckpt")
    assert after.best_k_models == {after.best_model_path: score}
    assert after.best_model_score == score


def test_the_seed_determines_the_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        run(tmp_path / name, TrainingConfig(learning_rate=1e-3, epochs=1, seed=seed))
    a, again, b = (tmp_path / name / "last.ckpt" for name in ("a", "again", "b"))
    assert same_weights(a, again)
    assert not same_weights(a, b)


def test_the_papers_schedule_halves_the_learning_rate_and_stops_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_no_improvement(module: LesionModule) -> None:
        module.log_dict({"validation_loss": 1.0, "validation_dice": 0.0})

    monkeypatch.setattr(LesionModule, "on_validation_epoch_end", log_no_improvement)
    run(tmp_path / "run", TrainingConfig(learning_rate=1e-3, epochs=30, lr_patience=2, early_stopping_patience=5))
    rates = [float(row["learning_rate"]) for row in metrics(tmp_path / "run")]
    # The first epoch counts as an improvement; three without one halve the rate, five stop the training.
    assert rates == [1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4]


def test_without_a_validation_part_the_last_epoch_is_the_result(tmp_path: Path) -> None:
    assert run(tmp_path / "run", SHORT, validates=False).name == "last.ckpt"
    assert not (tmp_path / "run" / "best.ckpt").exists()
    assert set(metrics(tmp_path / "run")[0]) == {"epoch", "loss", "learning_rate", "seconds", "data_share"}


def test_averaged_weights_are_scored_and_stored(tmp_path: Path) -> None:
    config = TrainingConfig("adamw", learning_rate=1e-2, epochs=3, early_stopping_patience=0, ema_decay=0.9)
    checkpoint = run(tmp_path / "run", config)
    stored = torch.load(checkpoint, weights_only=True)
    averaged, current = stored["state_dict"], stored["current_model_state"]
    assert any(not torch.equal(averaged[name], current[name]) for name in averaged)
    logged = [float(row["validation_dice"]) for row in metrics(tmp_path / "run")]
    assert dice(load_network(checkpoint, NETWORK)) == pytest.approx(max(logged), abs=1e-4)


def test_resuming_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(tmp_path / "run", TrainingConfig(epochs=1), resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = run(tmp_path / "run", TrainingConfig(epochs=1))
    with pytest.raises(TrainingError, match=r"does not match the config\.json"):
        load_network(checkpoint, NetworkConfig(widths=(4, 8), attention=False))
    with pytest.raises(TrainingError, match="train first"):
        load_network(tmp_path / "none.ckpt", NETWORK)


@pytest.mark.slow
def test_a_training_in_bfloat16_learns(tmp_path: Path) -> None:
    config = TrainingConfig("adamw", learning_rate=2e-2, epochs=30, early_stopping_patience=0, precision="bf16-mixed")
    run(tmp_path / "run", config)
    assert float(metrics(tmp_path / "run")[-1]["validation_dice"]) > 0.9


def test_unavailable_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot provide 0 devices"):
        run(tmp_path / "run", devices=0)


def test_the_share_of_time_spent_on_data_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_augment(*arguments: object) -> object:
        time.sleep(0.2)
        return augment(*arguments)  # type: ignore[arg-type]

    run(tmp_path / "fast", replace(SHORT, epochs=1))
    monkeypatch.setattr("groundglass.training.batches.augment", slow_augment)
    run(tmp_path / "slow", replace(SHORT, epochs=1))
    (fast,), (slowed,) = metrics(tmp_path / "fast"), metrics(tmp_path / "slow")
    assert 0 < float(fast["data_share"]) < float(slowed["data_share"]) < 1
    assert float(slowed["data_share"]) > 0.5
    assert float(slowed["seconds"]) > 4 * 0.2


def test_versions_machine_and_git_state_are_described() -> None:
    machine = describe_machine()
    assert {"groundglass", "python", "torch", "lightning", "numpy", "machine", "threads", "gpu", "git"} == set(machine)
    if (Path(__file__).parents[2] / ".git").exists():
        assert len(machine["git"]["commit"]) == 40
        assert machine["git"]["dirty"] in (True, False)


def test_without_git_there_is_no_git_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_machine()["git"] is None
