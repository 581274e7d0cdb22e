"""Modules that each command loads; import-linter (see pyproject.toml) checks the imports in the source."""

import subprocess
import sys
from pathlib import Path

import pytest

import groundglass
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.medseg_phantoms import write_phantoms

TRAINING_LIBRARIES = {"torch", "lightning", "monai", "onnx"}


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh process has loaded after `code`."""
    code += "\nimport sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def loaded_after_command(command: list[str]) -> set[str]:
    """The top-level modules that a fresh process has loaded after a command."""
    return loaded_after(f"""
import sys
from groundglass.cli import main
sys.argv = ["groundglass", *{command}]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code""")


def test_importing_the_package_loads_no_large_library() -> None:
    assert not {"numpy", "nibabel", "typer", "scipy", "pydantic"} & loaded_after("import groundglass")


def test_what_only_dicom_needs_is_loaded_for_dicom_alone() -> None:
    loaded = loaded_after("import groundglass.report.analysis, groundglass.io.reader")
    assert "cv2" in loaded
    assert not {"pydicom", "highdicom", "nibabel", "requests", "scipy"} & loaded


def test_using_every_public_name_loads_no_training_library() -> None:
    code = "import groundglass; [getattr(groundglass, name) for name in groundglass.__all__]"
    assert not TRAINING_LIBRARIES & loaded_after(code)


@pytest.mark.slow
def test_segment_loads_no_training_library(tmp_path: Path) -> None:
    nifti.write_scan(chest_phantom(shape=(6, 72, 96)).scan, tmp_path / "ct.nii.gz")
    command = ["segment", str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "out")]
    loaded = loaded_after_command(command)
    assert "openvino" in loaded
    assert not {*TRAINING_LIBRARIES, "pydicom", "nibabel"} & loaded
    assert (tmp_path / "out" / "findings.json").is_file()


@pytest.mark.slow
def test_evaluate_with_an_exported_model_loads_no_training_library(tmp_path: Path) -> None:
    data = write_phantoms(tmp_path, grey=False)
    command = ["evaluate", "--data", str(data), "--case", "volumes/1", "--precision", "f32"]
    loaded = loaded_after_command(command)
    assert "openvino" in loaded
    assert not TRAINING_LIBRARIES & loaded


def test_the_public_names_are_sorted_and_resolve() -> None:
    assert groundglass.__all__ == sorted(groundglass.__all__)
    for name in groundglass.__all__:
        assert getattr(groundglass, name).__name__ == name
