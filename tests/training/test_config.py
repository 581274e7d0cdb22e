import json
from pathlib import Path

import pytest

from groundglass.errors import ConfigError
from groundglass.network.baselines import BaselineConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.config import RENAMED_KEYS, RunConfig, read_config, read_stored_config

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = {
    "paper-1-baseline-dice": (False, 0.5, 0.5, 1.0),
    "paper-2-baseline-focal-tversky": (False, 0.7, 0.3, 4 / 3),
    "paper-3-attention-dice": (True, 0.5, 0.5, 1.0),
    "paper-4-attention-focal-tversky": (True, 0.7, 0.3, 4 / 3),
}


@pytest.mark.parametrize(
    "path", sorted(set(CONFIGS.glob("*.toml")) - set(CONFIGS.glob("study-*.toml"))), ids=lambda path: path.stem
)
def test_every_configuration_of_the_repository_is_valid_and_survives_json(path: Path) -> None:
    config = read_config(path)
    assert config.name == path.stem
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_the_papers_table_differ_in_attention_and_loss(name: str) -> None:
    config = read_config(CONFIGS / f"{name}.toml")
    loss = config.loss
    attention, *weights = ROWS[name]
    assert config.network.attention is attention
    assert [loss.fn_weight, loss.fp_weight, loss.gamma] == pytest.approx(weights)
    assert loss.cross_entropy == 0
    assert config.network.widths == (32, 64, 128, 256, 512)
    training = config.training
    assert (training.optimiser, training.learning_rate) == ("adam", 5e-5)
    assert (training.lr_patience, training.early_stopping_patience) == (10, 50)


def test_a_baseline_has_widths_and_no_switches(tmp_path: Path) -> None:
    path = tmp_path / "baseline.toml"
    path.write_text('name = "baseline"\nbaseline = "DynUNet"\n[network]\nwidths = [8, 16]\n')
    assert read_config(path).network_config == BaselineConfig("DynUNet", (8, 16), 1)
    path.write_text(path.read_text() + "attention = false\n")
    with pytest.raises(ConfigError, match="DynUNet has no switches"):
        read_config(path)


def test_each_class_adds_an_output_map_after_the_lesion(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text('name = "two"\nclasses = ["consolidation", "effusion"]\n')
    config = read_config(path)
    assert config.output_classes == ("lesion", "consolidation", "effusion")
    assert config.network_config == NetworkConfig(classes=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n[network]\nwidth = [8]\n', "network.width: Unexpected keyword argument"),
        ('name = "x"\n[lossy]\n', "lossy: Extra inputs are not permitted"),
        ("[network]\n", "name: Field required"),
        ('name = "x"\n[training]\nepochs = "many"\n', "training.epochs: "),
        ('name = "x"\n[training]\nlearning_rate = -1.0\n', "training: Value error, learning_rate must be above 0"),
        ('name = "x"\n[field]\nwindow_hu = [250.0, -1250.0]\n', "field.window_hu: .*lower end comes first"),
        ('name = "x"\n[network]\nwidths = [8]\n', "network: Value error, a network has two levels"),
        ('name = "x"\n[training]\noptimiser = "sgd"\n', "training.optimiser: "),
        ('name = "x"\n[field]\nview = "heart"\n', "field.view: "),
        ('name = "x"\nclasses = ["lesion"]\n', "classes: Value error, expected any of ground-glass, consolidation"),
        ('name = "x"\n[sampling]\ntransplant_prob = 0.3\n', "sampling.transplant_prob needs lung_map = true"),
        ("name = \n", "is not valid TOML"),
        (f"name = {'[' * 10_000}", "is not valid TOML"),
    ],
)
def test_an_unknown_key_or_an_invalid_value_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_config(tmp_path / "none.toml")


OLD_KEYS = {  # version 0.1 -> 0.2, as documented in the changelog
    "draw": "sampling",
    "peer": "baseline",
    "augment.upside_down": "augment.rotate_180_prob",
    "augment.alone": "augment.drop_neighbours_prob",
    "training.halve_after": "training.lr_patience",
    "training.stop_after": "training.early_stopping_patience",
}


def test_every_renamed_key_is_known() -> None:
    assert RENAMED_KEYS == OLD_KEYS


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
def test_an_old_key_is_refused_with_its_new_name(tmp_path: Path, old: str, new: str) -> None:
    value = "{ batch_size = 4 }" if old == "draw" else "0"
    path = tmp_path / "old.toml"
    path.write_text(f'name = "old"\n{old} = {value}\n')
    with pytest.raises(ConfigError, match=rf"old\.toml: the key {old} is now called {new}$"):
        read_config(path)


@pytest.mark.parametrize(("old", "new"), OLD_KEYS.items())
def test_the_configuration_of_an_old_run_is_refused_with_the_new_name(tmp_path: Path, old: str, new: str) -> None:
    section, _, key = old.rpartition(".")
    (tmp_path / "config.json").write_text(json.dumps({"name": "old"} | ({section: {key: 0}} if section else {key: 0})))
    with pytest.raises(ConfigError, match=rf"is a run of an older version.* the key {old} is now called {new}$"):
        read_stored_config(tmp_path)


def test_the_configuration_of_a_run_that_nests_without_end_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nest without end"):
        read_stored_config(tmp_path)
