"""`open_model`: the bundled model, an ONNX file, a run folder, and paths that hold none of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groundglass.errors import EngineError, GroundglassError, ModelError
from groundglass.inference.engine import import_engine
from groundglass.inference.engine_config import EngineConfig, EngineName, Precision
from groundglass.inference.model_card import bundled_model, read_card
from groundglass.inference.open_model import open_in_background, open_model, resolve_model
from groundglass.inference.pipeline import segment_scan
from groundglass.scan.packed_mask import voxels_per_slice
from groundglass.scan.phantom import chest_phantom
from helpers.medseg_phantoms import write_phantoms
from helpers.model_copy import copy_bundled_model

PHANTOM_ML = 124.0  # lesions of a phantom as the bundled model marks them
RUN_CONFIG = """
name = "tiny"
[network]
widths = [4, 8]
[training]
epochs = 1
early_stopping_patience = 0
"""


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """A copy of the bundled float32 model under another name, without an int8 version."""
    return copy_bundled_model(tmp_path / "copy.onnx")


@pytest.mark.thorough
def test_without_a_path_the_bundled_model_is_opened() -> None:
    segmenter = open_model()
    assert segmenter.card.name.startswith("groundglass-ct")
    assert voxels_per_slice(segment_scan(chest_phantom(shape=(12, 96, 128)).scan, segmenter).class_map).any()


def test_a_model_that_is_opened_in_the_background_says_what_is_wrong_when_it_is_needed(
    onnx_file: Path, tmp_path: Path
) -> None:
    assert open_in_background(onnx_file).result().card.name == open_model(onnx_file).card.name
    opening = open_in_background(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="missing"):
        opening.result()


def test_the_library_of_the_engine_is_there_before_the_caller_imports_more_without_its_telemetry() -> None:
    code = (
        "import sys; from groundglass.inference import engine; engine.import_engine(); "
        "print(*(name in sys.modules for name in ('openvino', 'openvino_telemetry', engine.OPENVINO_CONVERTER)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False False\n"


def test_a_library_that_cannot_be_imported_is_a_matter_of_opening_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    import_engine(EngineConfig(EngineName.OPENVINO))
    with pytest.raises(EngineError, match="openvino"):
        open_model(None, EngineConfig(EngineName.OPENVINO))


def test_an_onnx_file_is_opened_with_its_card(onnx_file: Path) -> None:
    segmenter = open_model(onnx_file, EngineConfig(precision=Precision.F32))
    assert segmenter.card == read_card(bundled_model())
    assert segmenter.engine.card.precision == "f32"


@pytest.mark.slow
def test_a_run_folder_is_opened_in_torch(tmp_path: Path) -> None:
    from groundglass.data.prepare import PreparationSettings, prepare
    from groundglass.data.splits import Split
    from groundglass.training.config import read_config
    from groundglass.training.run import train

    folder = write_phantoms(tmp_path, grey=True)
    prepare([folder], tmp_path / "prepared", PreparationSettings((72, 96)))
    (tmp_path / "tiny.toml").write_text(RUN_CONFIG)
    split = Split(
        name="apart", protocol="B", rule="", train=("volumes/1",), validation=("volumes/5",), test=("volumes/4",)
    )
    train(read_config(tmp_path / "tiny.toml"), tmp_path / "prepared", split, tmp_path / "run")
    segmenter = open_model(tmp_path / "run")
    assert segmenter.card.name == "run"
    assert segmenter.card.size == (72, 96)
    assert segmenter.engine.card.name.startswith("torch ")
    class_map = segment_scan(chest_phantom(shape=(6, 96, 128)).scan, segmenter).class_map
    assert class_map.shape == (6, 96, 128)


def test_a_run_folder_without_torch_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "groundglass.training.export", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"is a run folder, which needs torch, .*: pip install 'groundglass\[train\]'"):
        open_model(tmp_path)


def test_a_run_folder_is_not_accepted_where_an_onnx_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a run folder, expected an ONNX file: write one with groundglass export"):
        resolve_model(tmp_path)


@pytest.mark.parametrize("path", ["missing.onnx", "missing", "empty-folder", "text.onnx", "no-card.onnx"])
def test_a_wrong_path_gives_an_error_of_one_line_that_names_it(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "text.json").write_text("no card")
    (tmp_path / "no-card.onnx").write_text("no model")
    with pytest.raises(GroundglassError) as caught:
        open_model(tmp_path / path)
    assert isinstance(caught.value, ModelError)
    message = str(caught.value)
    assert path.removesuffix(".onnx") in message
    assert "\n" not in message
    assert ": " in message


def test_a_card_that_is_not_json_is_refused(onnx_file: Path) -> None:
    onnx_file.with_suffix(".json").write_text("{")
    with pytest.raises(ModelError, match=r"copy\.json is not a model card: Invalid JSON"):
        open_model(onnx_file)


@pytest.mark.slow
def test_the_default_marks_what_float32_marks_and_what_it_marked_when_this_was_written() -> None:
    """One number for one scan, on whatever machine this runs."""
    phantom = chest_phantom(2, shape=(48, 256, 320))
    masks = [
        np.asarray(segment_scan(phantom.scan, open_model(None, EngineConfig(precision=precision))).lesions)
        for precision in (None, Precision.F32)
    ]
    both, total = int((masks[0] & masks[1]).sum()), sum(int(mask.sum()) for mask in masks)
    assert 2 * both / total >= 0.99
    voxel_ml = phantom.scan.geometry.voxel_ml
    assert voxel_ml is not None
    for mask in masks:
        assert mask.sum() * voxel_ml == pytest.approx(PHANTOM_ML, rel=0.01)
