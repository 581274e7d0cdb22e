"""Trainings that build on finished runs and exported models: that begin with their weights, or are taught by them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from groundglass.cli import app
from groundglass.config import RunConfig, checked
from groundglass.data.batches import plain_batches
from groundglass.data.prepare import Settings, prepare
from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split
from groundglass.errors import ConfigError, ModelError, TrainingError
from groundglass.experiment import train
from groundglass.export import export, open_run
from groundglass.inference.card import BUNDLED, bundled_model, read_card
from groundglass.lineage import ancestor, remembered, taught
from groundglass.network.peers import PeerConfig, network_of
from groundglass.training.weights import exported_weights
from medseg_phantoms import write_phantoms

SPLIT = Split(name="apart", protocol="B", rule="", train=("volumes/1",), validation=("volumes/5",), test=("volumes/4",))
CONFIG = {
    "name": "tiny",
    "network": {"widths": [4, 8, 8]},
    "draw": {"batch_size": 4, "samples": 8, "lesion_free": True},
    "training": {"optimiser": "adamw", "learning_rate": 1e-3, "epochs": 1, "stop_after": 0},
}


def config(**changes: object) -> RunConfig:
    return checked(RunConfig, CONFIG | changes, "tiny")


def still(**changes: object) -> RunConfig:
    """A training that moves no weight."""
    return config(training=CONFIG["training"] | {"learning_rate": 1e-12}, **changes)  # type: ignore[operator]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "all"
    prepare([write_phantoms(tmp_path_factory.mktemp("data"), grey=False)], path, Settings((72, 96)))
    return path


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    train(config(), prepared, SPLIT, path)
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    return export(run, "first", run.parent / "models")[0]


def same(one: Path, other: Path) -> bool:
    weights = (open_run(run, "")[0].state_dict() for run in (one, other))
    first, second = weights
    return all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_training_begins_with_an_exported_model(run: Path, model: Path, prepared: Path, tmp_path: Path) -> None:
    train(still(), prepared, SPLIT, tmp_path / "next", start=model)
    assert same(run, tmp_path / "next")
    train(config(), prepared, SPLIT, tmp_path / "chance")
    assert same(run, tmp_path / "chance")  # one seed
    assert not same(run, _trained(tmp_path / "further", prepared, run))


def _trained(folder: Path, prepared: Path, start: Path) -> Path:
    train(config(), prepared, SPLIT, folder, start=start)
    return folder


def test_what_it_began_with_is_remembered_and_counts_as_trained_on(
    run: Path, model: Path, prepared: Path, tmp_path: Path
) -> None:
    other = Split(name="other", protocol="-", rule="", train=("volumes/5",), validation=(), test=())
    for start in (run, model):
        folder = tmp_path / start.name
        train(still(), prepared, other, folder, start=start)
        train(still(), prepared, other, folder, resume=True)
        assert remembered(folder).start == start
        card = open_run(folder, "next")[1]
        assert card.trained_on.members == card.trained_on.patients == ("volumes/1", "volumes/5")
        again = read_card(export(folder, "next", folder / "models")[0])
        assert again.trained_on == card.trained_on
    (folder / "last.ckpt").unlink()
    train(still(), prepared, other, folder)
    assert not (folder / "lineage.json").exists()
    assert open_run(folder, "new")[1].trained_on.members == ("volumes/5",)


@pytest.mark.parametrize("member", ["volumes/1", "volumes/1:9", "volumes/5"])
def test_what_taught_it_is_no_test(run: Path, model: Path, prepared: Path, tmp_path: Path, member: str) -> None:
    other = Split(name="swapped", protocol="B", rule="", train=("volumes/4",), validation=(), test=(member,))
    for start in (run, model):
        with pytest.raises(ConfigError, match=rf"was trained on {member} or its patient, which split swapped tests on"):
            train(config(), prepared, other, tmp_path / "next", start=start)
    assert not (tmp_path / "next").exists()


def test_another_scan_of_its_patients_is_no_test_either(run: Path, prepared: Path, tmp_path: Path) -> None:
    kin = Split(
        name="kin",
        protocol="B",
        rule="",
        train=("volumes/5",),
        validation=(),
        test=("volumes/4",),
        groups={"volumes/4": ("volumes/1",)},
    )
    with pytest.raises(ConfigError, match="was trained on volumes/4 or its patient"):
        train(config(), prepared, kin, tmp_path / "next", start=run)


def test_the_bundled_model_is_begun_with_by_its_name(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = read_card(bundled_model())
    network = network_of(card.network)
    switches = {name: value for name, value in card.network.items() if name not in ("classes", "slices")}
    own = Split(name="own", protocol="-", rule="", train=("volumes/4",), validation=(), test=())
    bundled = still(network=switches, field={"neighbours_mm": 5.0})
    assert bundled.built == network
    train(bundled, prepared, own, tmp_path / "mine", start=Path(BUNDLED))
    module, mine = open_run(tmp_path / "mine", "mine")
    stored = exported_weights(bundled_model(), network)
    assert all(torch.allclose(weight, stored[name], atol=1e-6) for name, weight in module.state_dict().items())
    assert {"volumes/1", "volumes/4", "coronacases/001", "slices/001"} < set(mine.trained_on.members)
    with pytest.raises(ConfigError, match="was trained on volumes/1 or its patient, which split swapped tests on"):
        train(
            bundled,
            prepared,
            own.model_copy(update={"name": "swapped", "test": ("volumes/1",)}),
            tmp_path / "x",
            start=Path(BUNDLED),
        )


def test_the_bundled_cards_tell_case_by_case_what_trained_them() -> None:
    cards = [read_card(bundled_model().with_name(f"{BUNDLED}{kind}.onnx")) for kind in ("", "-int8")]
    assert cards[0].trained_on == cards[1].trained_on
    known = cards[0].trained_on
    assert not set(known.members) & {"volumes/4", "volumes/5", "volumes/8"}
    assert len(known.members) == 109
    assert "volumes/2+3" in known.patients


def learner(weight: float = 1.0) -> RunConfig:
    return config(teachers={"weight": weight})


def test_soft_targets_are_between_the_reader_and_the_teachers(run: Path, model: Path, prepared: Path) -> None:
    teachers = [ancestor(path, SPLIT) for path in (run, model)]
    _, slices = read_prepared(prepared)
    (image, _), *_ = plain_batches(slices, (-1250.0, 250.0), len(slices))
    with torch.inference_mode():
        said = torch.sigmoid(open_run(run, "")[0](image)[:, 0]).numpy()
    assert np.allclose(taught(teachers, slices, 1.0), said, atol=2e-3)
    assert np.array_equal(taught(teachers, slices, 0.0), slices.labels > 0)
    assert np.allclose(taught(teachers, slices, 0.25), 0.25 * said + 0.75 * (slices.labels > 0), atol=2e-3)


def test_a_taught_run_remembers_its_teachers_and_goes_on_with_them(
    run: Path, model: Path, prepared: Path, tmp_path: Path
) -> None:
    folder, own = tmp_path / "pupil", SPLIT.model_copy(update={"validation": ()})
    train(learner(), prepared, own, folder, teachers=[run, model])
    assert remembered(folder).teachers == (run, model)
    assert open_run(folder, "pupil")[1].trained_on.members == ("volumes/1", "volumes/5")
    alone = tmp_path / "alone"
    train(config(), prepared, own, alone)
    assert not same(folder, alone)

    whole, halves = learner(), tmp_path / "halves"
    twice = whole.model_copy(update={"training": replace(whole.training, optimiser="adam", epochs=2)})
    once = whole.model_copy(update={"training": replace(twice.training, epochs=1)})
    train(once, prepared, own, halves, teachers=[run])
    train(twice, prepared, own, halves, resume=True)
    train(twice, prepared, own, tmp_path / "whole", teachers=[run])
    assert same(halves, tmp_path / "whole")
    assert remembered(halves).teachers == (run,)


def test_teachers_and_their_weight_come_together(run: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teachers.weight = 0.5, and 0 teachers are named: name them with --teacher"):
        train(learner(0.5), prepared, SPLIT, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"teachers.weight = 0, and 1 teachers are named"):
        train(config(), prepared, SPLIT, tmp_path / "x", teachers=[run])
    swapped = SPLIT.model_copy(update={"train": ("volumes/4",), "validation": (), "test": ("volumes/1",)})
    with pytest.raises(ConfigError, match="was trained on volumes/1 or its patient"):
        train(learner(), prepared, swapped, tmp_path / "x", teachers=[run])
    assert not (tmp_path / "x").exists()


def test_a_leaky_split_is_gone_on_with_but_not_on_the_slices_that_it_tests(prepared: Path, tmp_path: Path) -> None:
    leaky = SPLIT.model_copy(
        update={"train": ("volumes/4:9",), "validation": (), "test": ("volumes/4:10",), "leaky": True}
    )
    train(config(), prepared, leaky, tmp_path / "first")
    assert ancestor(tmp_path / "first", leaky).trained_on.patients == ("volumes/4",)
    with pytest.raises(ConfigError, match="was trained on volumes/4:9 or its patient"):
        ancestor(tmp_path / "first", leaky.model_copy(update={"test": ("volumes/4:9",)}))
    with pytest.raises(ConfigError, match="was trained on volumes/4 or its patient"):
        ancestor(tmp_path / "first", SPLIT.model_copy(update={"groups": {"volumes/4": ("volumes/4",)}}))


def test_what_cannot_be_begun_with_is_refused_in_a_line(model: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is int8: take the float32 model"):
        train(config(), prepared, SPLIT, tmp_path / "x", start=bundled_model().with_name(f"{BUNDLED}-int8.onnx"))
    with pytest.raises(ModelError, match=r"none\.onnx is not there"):
        train(config(), prepared, SPLIT, tmp_path / "x", start=tmp_path / "none.onnx")
    wider = config(network={"widths": [6, 8, 8]})
    with pytest.raises(TrainingError, match="of another network"):
        train(wider, prepared, SPLIT, tmp_path / "x", start=model)
    with pytest.raises(TrainingError, match="does not hold network"):
        exported_weights(model, replace(config().network, widths=(4, 8, 8, 8)))
    assert not (tmp_path / "x").exists()


def test_a_card_describes_a_peer_too() -> None:
    peer = PeerConfig("DynUNet", (4, 8), classes=2, slices=3)
    assert network_of(json.loads(json.dumps(peer.__dict__))) == peer


def test_the_command_says_what_is_wrong(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text('name = "tiny"\n[network]\nwidths = [4, 8, 8]\n')
    (tmp_path / "split.json").write_text(SPLIT.model_dump_json())
    words = ["train", str(tmp_path / "tiny.toml"), "--data", str(prepared), "--split", str(tmp_path / "split.json")]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "x"), "--from", str(tmp_path / "nothing")])
    assert isinstance(done.exception, ConfigError)
    assert "no finished run to build on: name a folder that train wrote, or a model, NAME.onnx" in str(done.exception)
