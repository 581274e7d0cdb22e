"""Trainings that build on finished runs and exported models: that begin with their weights, or are taught by them."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from groundglass.cli import app
from groundglass.data.prepare import PreparationSettings, prepare
from groundglass.data.prepared import read_prepared
from groundglass.data.splits import Split, sides_of
from groundglass.errors import ConfigError, ModelError, TrainingError
from groundglass.inference.model_card import BUNDLED, TrainedOn, bundled_model, read_card, write_card
from groundglass.network.baselines import BaselineConfig, network_of
from groundglass.training.batches import plain_batches
from groundglass.training.config import RunConfig, checked
from groundglass.training.export import export
from groundglass.training.provenance import (
    ParentModels,
    Provenance,
    check_test_leakage,
    open_parent,
    open_run,
    read_provenance,
)
from groundglass.training.run import train, with_prepared_settings
from groundglass.training.weights import exported_weights
from helpers.medseg_phantoms import write_phantoms

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
    return checked(RunConfig, CONFIG | changes, "tiny")


def still(**changes: object) -> RunConfig:
    """A training that moves no weight."""
    return config(training=CONFIG["training"] | {"learning_rate": 1e-12}, **changes)  # type: ignore[operator]


def learner(weight: float = 1.0) -> RunConfig:
    return config(teachers={"weight": weight})


def lasting(asked: RunConfig, epochs: int) -> RunConfig:
    return asked.model_copy(update={"training": replace(asked.training, epochs=epochs)})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "all"
    prepare([write_phantoms(tmp_path_factory.mktemp("data"), grey=False)], path, PreparationSettings((72, 96)))
    return path


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    train(config(), prepared, SPLIT, path)
    return path


@pytest.fixture(scope="module")
def between(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another network, that sees neighbours, in another window, and has learnt from another case."""
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


def learnt(run: Path) -> TrainedOn:
    known = open_run(run, "")[1].trained_on
    assert known is not None
    return known


def lineage(run: Path) -> Provenance:
    found = read_provenance(run)
    assert found is not None
    return found


def test_a_training_begins_with_an_exported_model(run: Path, model: Path, prepared: Path, tmp_path: Path) -> None:
    train(still(), prepared, SPLIT, tmp_path / "next", start=model)
    assert same(run, tmp_path / "next")
    train(config(), prepared, SPLIT, tmp_path / "chance")
    assert same(run, tmp_path / "chance")  # one seed
    train(config(), prepared, SPLIT, tmp_path / "further", start=run)
    assert not same(run, tmp_path / "further")


def test_what_it_began_with_is_remembered_and_counts_as_learnt_from(
    run: Path, model: Path, prepared: Path, tmp_path: Path
) -> None:
    for start in (run, model):
        folder = tmp_path / start.name
        train(still(), prepared, OTHER, folder, start=start)
        began = lineage(folder)
        assert began.start is not None
        assert began.start.path == start
        train(lasting(still(), 2), prepared, OTHER, folder, resume=True)
        assert lineage(folder) == began
        assert learnt(folder).members == learnt(folder).patients == ("volumes/1", "volumes/5")
    chosen_on = TrainedOn(members=("volumes/9",), patients=("volumes/9",))
    exported = read_card(export(folder, "next", folder / "models", 0.5, chosen_on=chosen_on)[0])
    assert exported.trained_on == learnt(folder) | chosen_on
    (folder / "last.ckpt").unlink()
    train(still(), prepared, OTHER, folder)
    assert lineage(folder).start is None
    assert learnt(folder).members == ("volumes/5",)


@pytest.mark.parametrize("member", ["volumes/1", "volumes/1:9", "volumes/5"])
def test_what_taught_it_is_no_test(run: Path, model: Path, prepared: Path, tmp_path: Path, member: str) -> None:
    swapped = Split(name="swapped", protocol="B", rule="", train=("volumes/4",), validation=(), test=(member,))
    case = member.partition(":")[0]
    for start in (run, model):
        for way in ({"start": start}, {"teachers": [start]}):
            asked = learner() if "teachers" in way else config()
            with pytest.raises(
                ConfigError, match=rf"was trained on {case} or its patient, which split swapped tests on"
            ):
                train(asked, prepared, swapped, tmp_path / "next", **way)
    assert not (tmp_path / "next").exists()


def refusal(members: tuple[str, ...], patients: tuple[str, ...], split: Split, prepared: Path, run: Path) -> str:
    """What is said of an ancestor that has learnt from these; nothing where it may be built on."""
    found = open_parent(run)
    known = TrainedOn(members=members, patients=patients)
    found = replace(found, card=found.card.model_copy(update={"trained_on": known}))
    _, slices = read_prepared(prepared)
    try:
        check_test_leakage(ParentModels(start=found), split, sides_of(split, slices).test, slices)
    except ConfigError as error:
        return str(error)
    return ""


def test_slices_and_patients_are_told_apart_as_the_split_does(run: Path, prepared: Path) -> None:
    def tests(*members: str, leaky: bool = False) -> Split:
        return Split(name="s", protocol="-", rule="", leaky=leaky, train=("volumes/1",), validation=(), test=members)

    for members, split in (
        (("volumes/4:9",), tests("volumes/4")),
        (("volumes/4:9",), tests("volumes/4", leaky=True)),
        (("volumes/4",), tests("volumes/4:9", leaky=True)),
        (("volumes/4:3",), tests("volumes/4:9")),  # another slice of the patient
    ):
        assert "was trained on volumes/4 or its patient" in refusal(members, (), split, prepared, run)
    assert "volumes/4" in refusal(("elsewhere/7",), ("volumes/4",), tests("volumes/4"), prepared, run)
    assert not refusal(("volumes/4:3",), ("volumes/4",), tests("volumes/4:9", leaky=True), prepared, run)
    assert not refusal(("volumes/1", "volumes/5"), ("volumes/1",), tests("volumes/4"), prepared, run)


def test_another_scan_of_its_patients_is_no_test_either(run: Path, prepared: Path) -> None:
    """A near-duplicate found here, by a name that the ancestor does not know."""
    _, slices = read_prepared(prepared)
    kin = np.isin(slices.case, ["volumes/1", "volumes/4"])
    joined = replace(slices, patient=np.where(kin, "volumes/1+volumes/4", slices.patient))
    with pytest.raises(ConfigError, match="was trained on volumes/4 or its patient"):
        check_test_leakage(ParentModels(start=open_parent(run)), SPLIT, sides_of(SPLIT, slices).test, joined)


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
    assert {"volumes/1", "volumes/4", "coronacases/001", "slices/001"} < set(learnt(tmp_path / "mine").members)
    assert len(mine.training_data) == 3  # the terms of all that it builds on
    swapped = own.model_copy(update={"name": "swapped", "test": ("volumes/1",)})
    with pytest.raises(ConfigError, match="was trained on volumes/1 or its patient, which split swapped tests on"):
        train(bundled, prepared, swapped, tmp_path / "x", start=Path(BUNDLED))


def test_the_bundled_cards_tell_case_by_case_what_trained_them() -> None:
    known, expected = (
        read_card(bundled_model().with_name(f"{BUNDLED}{kind}.onnx")).trained_on or TrainedOn()
        for kind in ("", "-int8")
    )
    assert known == expected
    assert not any(known.holds(f"volumes/{test}") for test in (4, 5, 8))
    assert len(known.members) == 109
    assert {"volumes/2+3", "slices/004"} < set(known.patients)


def test_soft_targets_are_between_the_reader_and_the_teachers(run: Path, between: Path, prepared: Path) -> None:
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
        soft = teachers.soft_targets(slices, with_prepared_settings(learner(weight), manifest))
        assert soft is not None
        assert np.allclose(soft, weight * (first + second) / 2 + (1 - weight) * reader, atol=2e-3)
    assert ParentModels().soft_targets(slices, with_prepared_settings(config(), manifest)) is None


def test_a_teacher_sees_the_same_slices(run: Path, prepared: Path) -> None:
    manifest, slices = read_prepared(prepared)
    wide = with_prepared_settings(learner(), manifest.model_copy(update={"size": (96, 96)}))
    with pytest.raises(ConfigError, match=r"sees \(72, 96\) \(lungs\), tiny \(96, 96\) \(lungs\): a teacher sees the"):
        ParentModels(teachers=(open_parent(run),)).soft_targets(slices, wide)


def test_a_taught_run_remembers_its_teachers_and_goes_on_with_them(
    run: Path, between: Path, prepared: Path, tmp_path: Path
) -> None:
    own = SPLIT.model_copy(update={"train": ("volumes/1",), "validation": ()})
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    train(learner(), prepared, own, halves, start=run, teachers=[run, between])
    began = lineage(halves)
    assert [teacher.path for teacher in began.teachers] == [run, between]
    assert learnt(halves).members == ("volumes/1", "volumes/5")
    train(lasting(learner(), 2), prepared, own, halves, resume=True)
    assert lineage(halves) == began
    train(lasting(learner(), 2), prepared, own, whole, start=run, teachers=[run, between])
    assert same(halves, whole)
    train(lasting(config(), 2), prepared, own, tmp_path / "untaught", start=run)
    assert not same(whole, tmp_path / "untaught")


def test_a_run_goes_on_only_as_it_began(run: Path, between: Path, prepared: Path, tmp_path: Path) -> None:
    folder, moved = tmp_path / "pupil", tmp_path / "moved"
    teacher = shutil.copytree(run, tmp_path / "teacher")
    train(learner(), prepared, SPLIT, folder, teachers=[teacher])
    again = lasting(learner(), 2)
    with pytest.raises(ConfigError, match="--from begins a training, --resume goes on with its own weights"):
        train(again, prepared, SPLIT, folder, resume=True, start=run)
    with pytest.raises(ConfigError, match="pupil was begun with other teachers"):
        train(again, prepared, SPLIT, folder, resume=True, teachers=[between])
    shutil.move(teacher, moved)
    with pytest.raises(ConfigError, match=r"taught .*pupil and is not there any more: name where it is with --teacher"):
        train(again, prepared, SPLIT, folder, resume=True)
    train(again, prepared, SPLIT, folder, resume=True, teachers=[moved])


def test_teachers_and_their_weight_come_together(run: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teachers.weight = 0.5, and 0 teachers teach it: name them with --teacher"):
        train(learner(0.5), prepared, SPLIT, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"teachers.weight = 0, and 1 teachers teach it"):
        train(config(), prepared, SPLIT, tmp_path / "x", teachers=[run])
    with pytest.raises(ConfigError, match=r"wants loss.cross_entropy above 0"):
        config(teachers={"weight": 0.5}, loss={})
    assert not (tmp_path / "x").exists()


def test_a_leaky_split_is_gone_on_with(prepared: Path, tmp_path: Path) -> None:
    leaky = SPLIT.model_copy(
        update={"train": ("volumes/4:9",), "validation": (), "test": ("volumes/4:10",), "leaky": True}
    )
    train(config(), prepared, leaky, tmp_path / "first")
    train(config(), prepared, leaky, tmp_path / "second", start=tmp_path / "first")
    assert open_run(tmp_path / "second", "")[1].never_trained_on == ()


def test_what_cannot_be_built_on_is_refused_in_a_line(run: Path, model: Path, prepared: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, start: Path, asked: RunConfig | None = None) -> None:
        with pytest.raises(error, match=match):
            train(asked or config(), prepared, SPLIT, tmp_path / "x", start=start)

    refused(ConfigError, "is int8: take the float32 model", bundled_model().with_name(f"{BUNDLED}-int8.onnx"))
    refused(ModelError, r"none\.onnx is not there", tmp_path / "none.onnx")
    refused(ModelError, r"nothing is no finished run", tmp_path / "nothing")
    refused(TrainingError, "of another network", model, config(network={"widths": [6, 8, 8]}))
    train(config(classes=["ground-glass"]), prepared, SPLIT, tmp_path / "classes")
    consolidation = config(classes=["consolidation"])
    refused(
        ConfigError, "has maps of lesion, ground-glass, tiny of lesion, consol", tmp_path / "classes", consolidation
    )
    with pytest.raises(TrainingError, match=r"under its name: take the run that it was exported from"):
        exported_weights(model, replace(config().network, widths=(4, 8, 8, 8)))
    for name in ("old.onnx", "old.json"):
        shutil.copy(model.with_suffix(Path(name).suffix), tmp_path / name)
    write_card(tmp_path / "old.onnx", read_card(model).model_copy(update={"trained_on": None}))
    refused(ModelError, r"old\.onnx was trained on is not known, it is of an older version", tmp_path / "old.onnx")
    old = shutil.copytree(run, tmp_path / "old")
    (old / "provenance.json").write_text("{}")
    refused(ModelError, r"provenance\.json is damaged: train the run anew", old)
    (old / "provenance.json").unlink()
    refused(ModelError, "is of an older version: train or export it again", old)
    assert open_run(old, "old")[1].never_trained_on == ("volumes/4",)
    assert not (tmp_path / "x").exists()


def test_a_card_describes_a_peer_too() -> None:
    baseline = BaselineConfig("DynUNet", (4, 8), classes=2, slices=3)
    assert network_of(json.loads(json.dumps(asdict(baseline)))) == baseline


def test_the_command_begins_teaches_and_warns(run: Path, model: Path, prepared: Path, tmp_path: Path) -> None:
    asked = config(teachers={"weight": 0.5}).model_dump(mode="json", exclude_unset=True)
    lines = ['name = "tiny"', *(f"{part} = {value}" for part, value in _tables(asked))]
    (tmp_path / "tiny.toml").write_text("\n".join(lines))
    (tmp_path / "split.json").write_text(SPLIT.model_dump_json())
    words = ["train", tmp_path / "tiny.toml", "--data", prepared, "--split", tmp_path / "split.json"]
    words += ["-o", tmp_path / "x", "--from", run, "--teacher", run, "--teacher", model]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    built_on = lineage(tmp_path / "x")
    assert built_on.start is not None
    assert [built_on.start.path, *(teacher.path for teacher in built_on.teachers)] == [run, run, model]
    for what in (run, model):
        done = CliRunner().invoke(app, ["evaluate", str(what), "--data", str(prepared), "--case", "volumes/1"])
        assert "1 of 1 cases (volumes/1) trained this model or chose its threshold" in " ".join(done.output.split())


def _tables(asked: dict[str, object]) -> list[tuple[str, str]]:
    """Dotted keys of TOML."""
    return [
        (f"{section}.{name}", json.dumps(value))
        for section, values in asked.items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]
