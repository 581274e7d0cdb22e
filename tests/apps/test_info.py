"""The description of an input before it is segmented."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from groundglass.apps.foretelling import SAMPLED_SLICES
from groundglass.apps.info import describe_input
from groundglass.errors import FormatError
from groundglass.inference.lungs.network import LungMaps, LungNetwork
from groundglass.io import nifti
from groundglass.io.dicom_options import DicomOptions
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom, chest_phantom
from groundglass.scan.scan import Scan
from helpers.chests import part_of
from helpers.dicom_phantom import NAME, write_series


def test_a_dicom_folder_is_described_by_its_series_and_grid(phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "a" / "1", ConvolutionKernel="B70f", SeriesDescription=NAME)
    write_series(phantom.scan, tmp_path / "a" / "2", Modality="MR")
    info = describe_input(tmp_path / "a")
    assert info.format == "DICOM (folder)"
    assert info.shape == phantom.scan.geometry.shape
    assert info.spacing_mm == pytest.approx(phantom.scan.geometry.spacing, abs=1e-3)
    assert info.axes == "z to the head, y to the back, x to the left"
    assert info.intensity is not None
    assert info.intensity.startswith("recognised as HU")
    assert [(series.modality, series.chosen, series.rejection_reason) for series in info.series] == [
        ("CT", True, None),
        ("MR", False, "modality MR"),
    ]
    assert (info.series[0].kernel, info.series[0].slices) == ("B70f", len(phantom.scan.values))
    assert info.refused is None
    assert NAME not in "\n".join([*info.lines, info.model_dump_json()])
    assert describe_input(tmp_path / "a", DicomOptions(with_identity=True)).series[0].description == NAME


def test_the_reason_is_given_if_segment_would_refuse_the_input(phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "a")[5].unlink()
    info = describe_input(tmp_path / "a")
    assert info.refused is not None
    assert "lacks 1 slice (behind slice 5" in info.refused
    assert info.series[0].slices == len(phantom.scan.values) - 1
    write_series(phantom.scan, tmp_path / "b", Modality="MR")
    refused = describe_input(tmp_path / "b").refused
    assert refused is not None
    assert refused.startswith("the input holds no CT series but series 2 (32 slices 7.5 mm apart, modality MR); give")
    with pytest.raises(FormatError, match=r"the input holds no series of number or UID 7\.7, expected one of: 2 \("):
        describe_input(tmp_path / "a", DicomOptions(series="7.7"))
    (tmp_path / "c").mkdir()
    with pytest.raises(FormatError, match="holds no DICOM, PNG or JPEG slice"):
        describe_input(tmp_path / "c")


def test_a_nifti_and_a_picture_are_described_by_their_grid(phantom: Phantom, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "a.nii.gz")
    info = describe_input(tmp_path / "a.nii.gz")
    assert (info.format, info.shape) == ("NIfTI", phantom.scan.geometry.shape)
    grey = np.clip((phantom.scan.values[16].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    info = describe_input(tmp_path / "a.png")
    assert (info.format, info.spacing_mm, info.axes) == ("PNG", None, None)
    assert any("not stated" in line for line in info.lines)


@pytest.mark.thorough
def test_the_command_prints_json_and_loads_neither_torch_nor_openvino(phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "a")
    arguments = ["groundglass", "info", str(tmp_path / "a"), "--json"]
    code = (
        f"import sys; sys.argv = {arguments}\nfrom groundglass.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'openvino', 'onnxruntime'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["shape"] == list(phantom.scan.geometry.shape)
    assert done.stderr.strip() == "['onnxruntime']"  # which the lungs need


@pytest.mark.thorough
def test_what_is_no_dicom_is_described_without_the_libraries_for_it(phantom: Phantom, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "a.nii.gz")
    code = (
        f"import sys; sys.argv = ['groundglass', 'info', {str(tmp_path / 'a.nii.gz')!r}]\n"
        "from groundglass.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'pydicom', 'nibabel', 'scipy', 'highdicom'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "axes" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.thorough
def test_lungs_that_are_far_too_small_for_the_body_are_foretold(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "a.nii.gz")
    monkeypatch.setattr("groundglass.report.plausibility.NO_LUNG_PERCENT", 101.0)
    monkeypatch.setattr("groundglass.report.plausibility.CUT", 1.0)
    refused = describe_input(tmp_path / "a.nii.gz").refused
    assert refused is not None
    assert refused.startswith("no lung was found: the only air inside the body fills")


def write_dicom(scan: Scan, path: Path) -> Path:
    return write_series(scan, path)[0].parent


def write_nifti(scan: Scan, path: Path) -> Path:
    nifti.write_scan(scan, path.with_suffix(".nii"))
    return path.with_suffix(".nii")


def test_lungs_are_looked_for_in_a_few_slices_of_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nifti.write_scan(chest_phantom(shape=(200, 64, 80)).scan, tmp_path / "many.nii.gz")
    seen = 0
    run = LungNetwork.maps

    def counting(network: LungNetwork, slices: Iterable[Any], limits: tuple[float, float] | None) -> Iterator[LungMaps]:
        nonlocal seen
        for found in run(network, slices, limits):
            seen += 1
            yield found

    monkeypatch.setattr(LungNetwork, "maps", counting)
    info = describe_input(tmp_path / "many.nii.gz")
    assert info.refused is None
    assert info.shape == (200, 64, 80)
    assert 0 < seen <= 2 * SAMPLED_SLICES


@pytest.mark.parametrize("write", [write_dicom, write_nifti])
@pytest.mark.thorough
def test_warnings_about_the_lungs_are_foretold_as_segment_gives_them(
    write: Callable[[Scan, Path], Path], tmp_path: Path
) -> None:
    scan = chest_phantom(shape=(60, 64, 80)).scan
    path = write(scan, tmp_path / "whole")
    assert describe_input(path).notes == ()
    path = write(part_of(scan, slice(20, 60)), tmp_path / "cut")
    (note,) = describe_input(path).notes
    assert note.startswith("the lungs reach the lowest slice: the scan does not cover them whole")
    thin = np.diag([1 / 8, 1, 1, 1])  # an eighth of the distance between slices
    path = write(Scan(scan.values, Geometry(scan.geometry.shape, scan.geometry.affine_lps @ thin)), tmp_path / "flat")
    (note,) = describe_input(path).notes
    assert re.match(
        r"by 48 of 60 slices, the lungs measure \d+ ml in \d\d slices, \d+ mm wide and \d\d mm high: .* "
        rf"check the slice distance \({scan.geometry.spacing[0] / 8:.3g} mm\)",
        note,
    )
