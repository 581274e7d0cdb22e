"""A copy of the bundled model under another name."""

import shutil
from pathlib import Path

from groundglass.inference.model_card import bundled_model, mirror_model_path


def copy_bundled_model(copy: Path) -> Path:
    """Copy the files of the bundled model but its int8 version, and return the copy: NAME.onnx."""
    shutil.copy(bundled_model(), copy)
    shutil.copy(bundled_model().with_suffix(".json"), copy.with_suffix(".json"))
    shutil.copy(mirror_model_path(bundled_model()), mirror_model_path(copy))
    return copy
