"""The demonstration, which is the first that a user runs."""

from pathlib import Path

import pytest

from groundglass.apps.demo import run_demo
from groundglass.scan.phantom import chest_phantom


def test_the_demonstration_names_the_files_of_the_bundled_model_and_the_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom = chest_phantom(shape=(12, 96, 128))
    monkeypatch.setattr("groundglass.apps.demo.chest_phantom", lambda: phantom)
    lines = run_demo(tmp_path)
    named = {Path(line.split()[-1]) for line in lines if str(tmp_path) in line}
    assert named == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert f"{phantom.lesions.volume_ml:.1f} ml true" in lines[-2]
