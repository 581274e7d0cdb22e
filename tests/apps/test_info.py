"""What is seen of an input before it is segmented."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.apps.info import describe
from groundglass.errors import FormatError
from groundglass.io import nifti
from groundglass.scan.phantom import Phantom
from helpers.dicom_phantom import NAME, write_series


def test_a_dicom_folder(phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "a" / "1", ConvolutionKernel="B70f", SeriesDescription=NAME)
    write_series(phantom.scan, tmp_path / "a" / "2", Modality="MR")
    seen = describe(tmp_path / "a")
    assert seen.format == "DICOM (folder)"
    assert seen.shape == phantom.scan.geometry.shape
    assert seen.spacing_mm == pytest.approx(phantom.scan.geometry.spacing, abs=1e-3)
    assert seen.axes == "z to the head, y to the back, x to the left"
    assert seen.intensity is not None
    assert seen.intensity.startswith("recognised as HU")
    assert [(each.modality, each.chosen, each.rejection_reason) for each in seen.series] == [
        ("CT", True, None),
        ("MR", False, "modality MR"),
    ]
    assert (seen.series[0].kernel, seen.series[0].slices) == ("B70f", len(phantom.scan.values))
    assert seen.refused is None
    assert NAME not in "\n".join([*seen.lines, seen.model_dump_json()])
    assert describe(tmp_path / "a", with_identity=True).series[0].description == NAME


def test_what_segment_would_refuse_is_said(phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "a")[5].unlink()
    seen = describe(tmp_path / "a")
    assert seen.refused is not None
    assert "lacks 1 slice (behind slice 5" in seen.refused
    assert seen.series[0].slices == len(phantom.scan.values) - 1
    write_series(phantom.scan, tmp_path / "b", Modality="MR")
    assert describe(tmp_path / "b").refused == "no CT series: modality MR"
    with pytest.raises(FormatError, match=r"the input holds 0 series that end in 7\.7, expected one of: "):
        describe(tmp_path / "a", "7.7")
    (tmp_path / "c").mkdir()
    with pytest.raises(FormatError, match="holds no DICOM, PNG or JPEG slice"):
        describe(tmp_path / "c")


def test_other_formats(phantom: Phantom, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "a.nii.gz")
    seen = describe(tmp_path / "a.nii.gz")
    assert (seen.format, seen.shape) == ("NIfTI", phantom.scan.geometry.shape)
    grey = np.clip((phantom.scan.values[16].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    seen = describe(tmp_path / "a.png")
    assert (seen.format, seen.spacing_mm, seen.axes) == ("PNG", None, None)
    assert any("not stated" in line for line in seen.lines)


def test_the_command_and_its_json(phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "a")
    words = ["groundglass", "info", str(tmp_path / "a"), "--json"]
    code = (
        f"import sys; sys.argv = {words}\nfrom groundglass.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'openvino', 'onnxruntime'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["shape"] == list(phantom.scan.geometry.shape)
    assert done.stderr.strip() == "[]"
