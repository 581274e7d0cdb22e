"""Trainings that build on finished runs and exported models, by their weights or by distillation."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from groundglass.cli import app
from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split, resolve_split
from groundglass.errors import ConfigError, ModelError, TrainingError
from groundglass.inference.model_card import BUNDLED, Quantized, TrainedOn, bundled_model, read_card, write_card
from groundglass.network.baselines import BaselineConfig, parse_network_config
from groundglass.training.batches import plain_batches
from groundglass.training.config import RunConfig, parse_config
from groundglass.training.export import export
from groundglass.training.finished_run import open_run
from groundglass.training.held_out import FoldCalibration
from groundglass.training.parents import ParentModels, check_test_leakage, open_parent
from groundglass.training.provenance import Provenance, read_provenance
from groundglass.training.run import train, with_prepared_settings
from groundglass.training.weights import exported_weights, untrained_module

pytestmark = pytest.mark.slow
SPLIT = Split(name="apart", protocol="B", rule="", train=("volumes/1",), validation=("volumes/5",), test=("volumes/4",))
OTHER = Split(name="other", protocol="-", rule="", train=("volumes/5",), validation=(), test=())
CONFIG = {
    "name": "tiny",
    "network": {"widths": [4, 8, 8]},
    "loss": {"cross_entropy": 0.5},
    "sampling": {"batch_size": 4, "samples": 8, "lesion_free": True},
    "training": {"optimiser": "adam", "learning_rate": 1e-3, "epochs": 1, "early_stopping_patience": 0},
}


def config(**changes: object) -> RunConfig:
    return parse_config(CONFIG | changes, "tiny")


def frozen(**changes: object) -> RunConfig:
    """Return a training that hardly changes any weight."""
    return config(training=CONFIG["training"] | {"learning_rate": 1e-12}, **changes)  # type: ignore[operator]


def distilled(weight: float = 1.0) -> RunConfig:
    return config(teachers={"weight": weight})


def with_epochs(config: RunConfig, epochs: int) -> RunConfig:
    return config.model_copy(update={"training": replace(config.training, epochs=epochs)})


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    train(config(), prepared, SPLIT, path)
    return path


@pytest.fixture(scope="module")
def between(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another network (2.5D) with another window, trained on another case."""
    path = tmp_path_factory.mktemp("runs") / "between"
    field = {"neighbours_mm": 5.0, "window_hu": [-1000.0, 0.0]}
    train(config(field=field, network={"widths": [4, 8]}), prepared, OTHER, path)
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    return export(run, "first", run.parent / "models")[0]


def same(one: Path, other: Path) -> bool:
    first, second = (open_run(run, "")[0].state_dict() for run in (one, other))
    return all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def exposure(run: Path) -> TrainedOn:
    trained_on = open_run(run, "")[1].trained_on
    assert trained_on is not None
    return trained_on


def provenance(run: Path) -> Provenance:
    recorded = read_provenance(run)
    assert recorded is not None
    return recorded


def test_a_run_and_its_export_initialise_a_training(run: Path, model: Path, prepared: Path, tmp_path: Path) -> None:
    train(frozen(), prepared, SPLIT, tmp_path / "next", start=model)
    assert same(run, tmp_path / "next")
    train(config(), prepared, SPLIT, tmp_path / "random")
    assert same(run, tmp_path / "random")  # the same seed
    train(config(), prepared, SPLIT, tmp_path / "further", start=run)
    assert not same(run, tmp_path / "further")


def test_the_provenance_records_the_start_and_its_training_data(
    run: Path, model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start in (run, model):
        folder = tmp_path / start.name
        train(frozen(), prepared, OTHER, folder, start=start)
        recorded = provenance(folder)
        assert recorded.start is not None
        assert recorded.start.path == start
        train(with_epochs(frozen(), 2), prepared, OTHER, folder, resume=True)
        assert provenance(folder) == recorded
        assert exposure(folder).members == exposure(folder).patients == ("volumes/1", "volumes/5")
    # The weights are still those of the start, which `export` checks; tracing the network again would take seconds.
    monkeypatch.setattr("groundglass.training.export.write_onnx", lambda _, __, path: shutil.copy(model, path))
    chosen_on = TrainedOn(members=("volumes/9",), patients=("volumes/9",))
    calibration = FoldCalibration(0.5, {"volumes/9": 0.7}, None, chosen_on)
    exported = read_card(export(folder, "next", folder / "models", calibration=calibration)[0])
    assert exported.threshold == 0.5
    assert exported.trained_on == exposure(folder) | chosen_on
    train(frozen(), prepared, OTHER, tmp_path / "alone")
    assert provenance(tmp_path / "alone").start is None
    assert exposure(tmp_path / "alone").members == ("volumes/5",)


@pytest.mark.parametrize("member", ["volumes/1", "volumes/1:9", "volumes/5"])
def test_a_parent_trained_on_the_test_part_is_refused(
    run: Path, model: Path, prepared: Path, tmp_path: Path, member: str
) -> None:
    swapped = Split(name="swapped", protocol="B", rule="", train=("volumes/4",), validation=(), test=(member,))
    case = member.partition(":")[0]
    for start in (run, model):
        for parents in ({"start": start}, {"teachers": [start]}):
            chosen = distilled() if "teachers" in parents else config()
            with pytest.raises(
                ConfigError, match=rf"was trained on {case} or its patient, which split swapped tests on"
            ):
                train(chosen, prepared, swapped, tmp_path / "next", **parents)
    assert not (tmp_path / "next").exists()


def refusal(members: tuple[str, ...], patients: tuple[str, ...], split: Split, prepared: Path, run: Path) -> str:
    """Return the error about a parent that was trained on these; empty if it is accepted."""
    parent = open_parent(run)
    trained_on = TrainedOn(members=members, patients=patients)
    parent = replace(parent, card=parent.card.model_copy(update={"trained_on": trained_on}))
    _, slices = read_prepared(prepared)
    try:
        check_test_leakage(ParentModels(start=parent), split, resolve_split(split, slices).test, slices)
    except ConfigError as error:
        return str(error)
    return ""


def test_leakage_is_checked_by_slice_and_unless_leaky_by_patient(run: Path, prepared: Path) -> None:
    def split_testing(*members: str, leaky: bool = False) -> Split:
        return Split(name="s", protocol="-", rule="", leaky=leaky, train=("volumes/1",), validation=(), test=members)

    for members, split in (
        (("volumes/4:9",), split_testing("volumes/4")),
        (("volumes/4:9",), split_testing("volumes/4", leaky=True)),
        (("volumes/4",), split_testing("volumes/4:9", leaky=True)),
        (("volumes/4:3",), split_testing("volumes/4:9")),  # another slice of the patient
    ):
        assert "was trained on volumes/4 or its patient" in refusal(members, (), split, prepared, run)
    assert "volumes/4" in refusal(("elsewhere/7",), ("volumes/4",), split_testing("volumes/4"), prepared, run)
    assert not refusal(("volumes/4:3",), ("volumes/4",), split_testing("volumes/4:9", leaky=True), prepared, run)
    assert not refusal(("volumes/1", "volumes/5"), ("volumes/1",), split_testing("volumes/4"), prepared, run)


def test_a_near_duplicate_of_a_training_case_is_refused_as_test(run: Path, prepared: Path) -> None:
    """The prepared folder joins cases that the parent knows as different patients."""
    _, slices = read_prepared(prepared)
    duplicates = np.isin(slices.case, ["volumes/1", "volumes/4"])
    joined = replace(slices, patient=np.where(duplicates, "volumes/1+volumes/4", slices.patient))
    with pytest.raises(ConfigError, match="was trained on volumes/4 or its patient"):
        check_test_leakage(ParentModels(start=open_parent(run)), SPLIT, resolve_split(SPLIT, slices).test, joined)


def test_the_bundled_model_initialises_a_training_by_its_name(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = read_card(bundled_model())
    network = parse_network_config(card.network)
    switches = {name: value for name, value in card.network.items() if name not in ("classes", "slices")}
    own = Split(name="own", protocol="-", rule="", train=("volumes/4",), validation=(), test=())
    bundled = frozen(network=switches, field={"neighbours_mm": 5.0}, classes=card.classes[1:])
    assert bundled.network_config == network
    train(bundled, prepared, own, tmp_path / "mine", start=Path(BUNDLED))
    module, mine = open_run(tmp_path / "mine", "mine")
    stored = exported_weights(bundled_model(), network)
    assert all(torch.allclose(weight, stored[name], atol=1e-6) for name, weight in module.state_dict().items())
    assert {"volumes/1", "volumes/4", "coronacases/001", "slices/001"} < set(exposure(tmp_path / "mine").members)
    assert len(mine.training_data) == 3  # including those of the bundled model
    swapped = own.model_copy(update={"name": "swapped", "test": ("volumes/1",)})
    with pytest.raises(ConfigError, match="was trained on volumes/1 or its patient, which split swapped tests on"):
        train(bundled, prepared, swapped, tmp_path / "x", start=Path(BUNDLED))


def test_a_training_of_fewer_classes_starts_with_the_lesions_of_the_bundled_model() -> None:
    parent = open_parent(Path(BUNDLED))
    switches = {name: value for name, value in parent.card.network.items() if name not in ("classes", "slices")}
    lesion_and_lungs = config(network=switches, field={"neighbours_mm": 5.0}, lung_map=True)
    weights = ParentModels(start=parent).initial_weights(lesion_and_lungs)
    assert weights is not None
    own, bundled = (
        untrained_module(network).eval()
        for network in (lesion_and_lungs.training_network, parse_network_config(parent.card.network))
    )
    own.load_state_dict(weights)
    bundled.load_state_dict(parent.weights)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        maps = own(image)
        assert torch.allclose(maps[:, :1], bundled(image)[:, :1], atol=1e-5)
    assert not maps[:, 1:].any()


def test_the_bundled_card_lists_the_training_cases() -> None:
    known = read_card(bundled_model()).trained_on or TrainedOn()
    assert not any(known.holds(f"volumes/{test}") for test in (4, 5, 8))
    assert len(known.members) == 111
    assert {"volumes/2+3", "slices/004"} < set(known.patients)


def test_soft_targets_mix_the_readers_mask_and_the_teachers(run: Path, between: Path, prepared: Path) -> None:
    manifest, slices = read_prepared(prepared)
    teachers = ParentModels(teachers=(open_parent(run), open_parent(between)))
    images = (
        next(iter(plain_batches(slices, (-1250.0, 250.0), len(slices)))),
        next(iter(plain_batches(slices, (-1000.0, 0.0), len(slices), neighbours_mm=5.0))),
    )
    with torch.inference_mode():
        first, second = (
            torch.sigmoid(open_run(path, "")[0](image)[:, 0]).numpy()
            for path, (image, _) in zip((run, between), images, strict=True)
        )
    assert np.abs(first - second).max() > 0.01
    reader = slices.labels > 0
    for weight in (0.25, 1.0):
        soft = teachers.soft_targets(slices, with_prepared_settings(distilled(weight), manifest))
        assert soft is not None
        assert np.allclose(soft, weight * (first + second) / 2 + (1 - weight) * reader, atol=2e-3)
    assert ParentModels().soft_targets(slices, with_prepared_settings(config(), manifest)) is None


def test_a_teacher_with_another_input_is_refused(run: Path, prepared: Path) -> None:
    manifest, slices = read_prepared(prepared)
    wide = with_prepared_settings(distilled(), manifest.model_copy(update={"size": (96, 96)}))
    with pytest.raises(
        ConfigError, match=r"takes \(72, 96\) \(lungs\), but tiny takes \(96, 96\) \(lungs\): choose a teacher"
    ):
        ParentModels(teachers=(open_parent(run),)).soft_targets(slices, wide)


def test_a_distilled_run_is_resumed_with_its_teachers(run: Path, between: Path, prepared: Path, tmp_path: Path) -> None:
    own = SPLIT.model_copy(update={"train": ("volumes/1",), "validation": ()})
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    train(distilled(), prepared, own, halves, start=run, teachers=[run, between])
    recorded = provenance(halves)
    assert [teacher.path for teacher in recorded.teachers] == [run, between]
    assert exposure(halves).members == ("volumes/1", "volumes/5")
    train(with_epochs(distilled(), 2), prepared, own, halves, resume=True)
    assert provenance(halves) == recorded
    train(with_epochs(distilled(), 2), prepared, own, whole, start=run, teachers=[run, between])
    assert same(halves, whole)
    train(with_epochs(config(), 2), prepared, own, tmp_path / "untaught", start=run)
    assert not same(whole, tmp_path / "untaught")


def test_a_run_is_resumed_only_with_its_own_parents(run: Path, between: Path, prepared: Path, tmp_path: Path) -> None:
    folder, moved = tmp_path / "student", tmp_path / "moved"
    teacher = shutil.copytree(run, tmp_path / "teacher")
    train(distilled(), prepared, SPLIT, folder, teachers=[teacher])
    again = with_epochs(distilled(), 2)
    with pytest.raises(
        ConfigError, match="--from initialises a new training, but --resume continues with its own weights"
    ):
        train(again, prepared, SPLIT, folder, resume=True, start=run)
    with pytest.raises(ConfigError, match="student was started with other teachers"):
        train(again, prepared, SPLIT, folder, resume=True, teachers=[between])
    shutil.move(teacher, moved)
    with pytest.raises(
        ConfigError, match=r"a teacher of .*student, no longer exists: name its new path with --teacher"
    ):
        train(again, prepared, SPLIT, folder, resume=True)
    train(again, prepared, SPLIT, folder, resume=True, teachers=[moved])


def test_teachers_need_a_weight_and_a_weight_needs_teachers(run: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teachers.weight = 0.5, but 0 teachers are named: name them with --teacher"):
        train(distilled(0.5), prepared, SPLIT, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"teachers.weight = 0, but 1 teachers are named"):
        train(config(), prepared, SPLIT, tmp_path / "x", teachers=[run])
    with pytest.raises(ConfigError, match=r"needs loss.cross_entropy above 0"):
        config(teachers={"weight": 0.5}, loss={})
    assert not (tmp_path / "x").exists()


def test_a_training_on_a_leaky_split_builds_on_another(prepared: Path, tmp_path: Path) -> None:
    leaky = SPLIT.model_copy(
        update={"train": ("volumes/4:9",), "validation": (), "test": ("volumes/4:10",), "leaky": True}
    )
    train(config(), prepared, leaky, tmp_path / "first")
    train(config(), prepared, leaky, tmp_path / "second", start=tmp_path / "first")
    assert open_run(tmp_path / "second", "")[1].never_trained_on == ()


def test_unsuitable_parents_are_refused(run: Path, model: Path, prepared: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, start: Path, chosen: RunConfig | None = None) -> None:
        with pytest.raises(error, match=match):
            train(chosen or config(), prepared, SPLIT, tmp_path / "x", start=start)

    shutil.copy(model, tmp_path / "small.onnx")
    quantized = Quantized(of="", slices=1, dice=0.5, dice_f32=0.5)
    write_card(tmp_path / "small.onnx", read_card(model).model_copy(update={"quantized": quantized}))
    refused(ConfigError, "is int8: choose the float32 model", tmp_path / "small.onnx")
    refused(ModelError, r"none\.onnx is not there", tmp_path / "none.onnx")
    refused(ModelError, r"nothing is not a finished run", tmp_path / "nothing")
    refused(TrainingError, "of another network", model, config(network={"widths": [6, 8, 8]}))
    train(config(classes=["ground-glass"]), prepared, SPLIT, tmp_path / "classes")
    consolidation = config(classes=["consolidation"])
    refused(
        ConfigError,
        "has the output maps lesion, ground-glass, but tiny has lesion, consol",
        tmp_path / "classes",
        consolidation,
    )
    with pytest.raises(TrainingError, match=r"holds no weight called .*: use the run that it was exported from"):
        exported_weights(model, replace(config().network, widths=(4, 8, 8, 8)))
    for name in ("old.onnx", "old.json"):
        shutil.copy(model.with_suffix(Path(name).suffix), tmp_path / name)
    write_card(tmp_path / "old.onnx", read_card(model).model_copy(update={"trained_on": None}))
    refused(
        ModelError, r"old\.onnx is of an older version that did not record its training data", tmp_path / "old.onnx"
    )
    old = shutil.copytree(run, tmp_path / "old")
    (old / "provenance.json").write_text("{}")
    refused(ModelError, r"provenance\.json is damaged: train the run again", old)
    (old / "provenance.json").unlink()
    refused(ModelError, "is of an older version that did not record its training data: train or export it again", old)
    assert open_run(old, "old")[1].never_trained_on == ("volumes/4",)
    content = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps(content | {"draw": content.pop("sampling")}))
    refused(ModelError, "is a run of an older version, train it again.* draw is now called sampling", old)
    with pytest.raises(
        ConfigError, match=r"is a run of an older version, train it again.* draw is now called sampling"
    ):
        train(config(), prepared, SPLIT, old, resume=True)
    assert not (tmp_path / "x").exists()


def test_a_baseline_is_restored_from_its_card() -> None:
    baseline = BaselineConfig("DynUNet", (4, 8), classes=2, slices=3)
    assert parse_network_config(json.loads(json.dumps(asdict(baseline)))) == baseline


def test_the_command_line_names_start_and_teachers_and_warns_about_training_data(
    run: Path, model: Path, prepared: Path, tmp_path: Path
) -> None:
    content = config(teachers={"weight": 0.5}).model_dump(mode="json", exclude_unset=True)
    lines = ['name = "tiny"', *(f"{key} = {value}" for key, value in dotted_keys(content))]
    (tmp_path / "tiny.toml").write_text("\n".join(lines))
    (tmp_path / "split.json").write_text(SPLIT.model_dump_json())
    arguments = ["train", tmp_path / "tiny.toml", "--data", prepared, "--split", tmp_path / "split.json"]
    arguments += ["-o", tmp_path / "x", "--from", run, "--teacher", run, "--teacher", model]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    recorded = provenance(tmp_path / "x")
    assert recorded.start is not None
    assert [recorded.start.path, *(teacher.path for teacher in recorded.teachers)] == [run, run, model]
    for parent in (run, model):
        done = CliRunner().invoke(app, ["evaluate", str(parent), "--data", str(prepared), "--case", "volumes/1"])
        assert "1 of 1 cases (volumes/1) trained this model or chose its threshold" in " ".join(done.output.split())


def dotted_keys(content: dict[str, object]) -> list[tuple[str, str]]:
    """Flatten sections to dotted keys of TOML."""
    return [
        (f"{section}.{name}", json.dumps(value))
        for section, values in content.items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]
