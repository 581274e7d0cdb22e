"""From a dataset to a model in one call, and the line of each epoch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from groundglass.cli import app
from groundglass.data.prepared import read_prepared
from groundglass.data.protocols import make_training_folds
from groundglass.data.slices import Slices
from groundglass.data.splits import resolve_split
from groundglass.errors import ConfigError, DatasetError
from groundglass.inference.model_card import BUNDLED, read_card
from groundglass.io.nifti import write_scan
from groundglass.report.scan_masks import ScanMask
from groundglass.scan.phantom import chest_phantom
from groundglass.training.callbacks import describe_epoch
from groundglass.training.config import parse_config
from groundglass.training.folds import train_folds

CONFIG = """
name = "mine"
[field]
size = [64, 64]
[network]
widths = [4, 8]
[loss]
cross_entropy = 0.5
[sampling]
batch_size = 4
samples = 8
lesion_free = true
[training]
epochs = 1
early_stopping_patience = 0
"""


def slices_of(cases: dict[str, str]) -> Slices:
    """One slice with lesion for each case; {case: patient}."""
    count = len(cases)
    labels = np.ones((count, 8, 8), np.uint8)
    names = np.array(list(cases))
    numbers, patients = np.zeros(count, np.int64), np.array(list(cases.values()))
    return Slices(np.zeros((count, 8, 8), np.int16), labels, names, numbers, patients, np.full(count, np.nan))


def test_the_folds_hold_out_each_patient_once_and_the_last_run_trains_on_all() -> None:
    slices = slices_of({f"own/{n}": f"patient-{n // 2}" for n in range(12)})
    splits = make_training_folds(slices, 3)
    assert [split.name for split in splits] == ["fold_0", "fold_1", "fold_2", "fold_all"]
    *folds, everything = (resolve_split(split, slices) for split in splits)
    assert (np.sum([fold.test for fold in folds], axis=0) == 1).all()
    assert everything.train.all()
    for fold in folds:
        assert not set(slices.patient[fold.test]) & set(slices.patient[fold.train | fold.validation])


def test_folds_are_of_like_burdens_and_hold_scans_and_pictures_out() -> None:
    """Six scans, then six pictures, the more lesion the higher their number."""
    slices = slices_of({f"own/{n:02}": f"patient-{n:02}" for n in range(12)})
    for n, labels in enumerate(slices.labels):
        labels.reshape(-1)[1 + 5 * n :] = 0
    slices = replace(slices, spacing_mm=np.where(np.arange(12) < 6, 5.0, np.nan))
    folds = [resolve_split(split, slices) for split in make_training_folds(slices, 3)[:-1]]
    assert [np.flatnonzero(fold.test).tolist() for fold in folds] == [[0, 5, 6, 11], [1, 4, 7, 10], [2, 3, 8, 9]]


def test_the_public_test_volumes_are_in_no_fold() -> None:
    slices = slices_of({f"volumes/{n}": f"patient-{n}" for n in range(1, 10)})
    public = np.isin(slices.case, ["volumes/4", "volumes/5", "volumes/8"])
    for split in make_training_folds(slices, 3):
        parts = resolve_split(split, slices)
        assert not (parts.train | parts.validation)[public].any()
        assert split.name == "fold_all" or not parts.test[public].any()


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(DatasetError, match="3 patients cannot make 4 folds: give fewer with --folds"):
        make_training_folds(slices_of({f"own/{n}": str(n) for n in range(3)}), 4)


def test_a_model_of_ones_own_never_carries_the_bundled_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the name of a bundled model: give the configuration another name"):
        train_folds(parse_config({"name": BUNDLED}, "own"), tmp_path, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


def test_an_epoch_is_described_on_one_line() -> None:
    metrics = {"loss": 0.51234, "validation_dice": 0.7, "seconds": 12.4, "data_share": 0.1}
    assert describe_epoch(2, 12, metrics) == "epoch 3 of 12: loss 0.512, validation Dice 0.700, 12 s"


def test_the_command_needs_a_split_or_folds(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CONFIG)
    command = ["train", str(tmp_path / "mine.toml"), "--data", str(tmp_path)]
    for more in ([], ["--folds", "2", "--split", "a.json"]):
        done = CliRunner().invoke(app, [*command, *more], env={"COLUMNS": "200"})
        assert done.exit_code == 2
        assert "either a split or the number of folds" in done.output


def write_nnunet_dataset(root: Path) -> None:
    """Write four phantoms with masks in nnU-Net's layout."""
    for seed in range(4):
        phantom = chest_phantom(seed, shape=(12, 96, 128))
        mask = ScanMask(phantom.lesions.voxels, phantom.scan.geometry, phantom.scan)
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        write_scan(phantom.scan, root / "imagesTr" / f"case{seed}_0000.nii.gz")
        mask.save(root / "labelsTr" / f"case{seed}.nii.gz")
    (root / "dataset.json").write_text('{"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}')


@pytest.mark.slow
def test_one_command_leads_from_a_dataset_to_a_model(tmp_path: Path) -> None:
    write_nnunet_dataset(tmp_path / "data")
    (tmp_path / "mine.toml").write_text(CONFIG)
    command = ["train", str(tmp_path / "mine.toml"), "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--folds", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "epoch 1 of 1: loss " in done.stderr
    folders = {path.name for path in (tmp_path / "out").iterdir()}
    assert folders == {"prepared", "fold_0", "fold_1", "fold_all", "model"}
    card = read_card(tmp_path / "out" / "model" / "mine.onnx")
    _, slices = read_prepared(tmp_path / "out" / "prepared")
    assert card.name == "mine"
    assert card.trained_on is not None
    assert set(card.trained_on.members) == set(slices.case.tolist())
    exported = (tmp_path / "out" / "model" / "mine.onnx").stat().st_mtime_ns
    again = CliRunner().invoke(app, [*command, "--folds", "2"], catch_exceptions=False)
    assert "epoch" not in again.stderr  # what is trained stays
    assert (tmp_path / "out" / "model" / "mine.onnx").stat().st_mtime_ns > exported
