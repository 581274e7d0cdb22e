"""An export writes weights and card, or neither."""

import errno
from pathlib import Path

import pytest

from groundglass.errors import OutputError
from groundglass.inference.model_card import bundled_model, read_card
from groundglass.training import export as module
from groundglass.training.export import export


@pytest.mark.parametrize("failing", ["write_onnx", "check_against_torch", "write_card"])
def test_an_export_that_cannot_be_completed_leaves_the_earlier_model(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    card = read_card(bundled_model()).model_copy(update={"name": "tiny"})
    monkeypatch.setattr(module, "open_run", lambda *_: (None, card))
    monkeypatch.setattr(module, "write_onnx", lambda _, shape, path: path.write_bytes(b"new"))
    monkeypatch.setattr(module, "check_against_torch", lambda *_: {})
    for name in ("tiny.onnx", "tiny.json"):
        (tmp_path / name).write_bytes(b"earlier")
    with monkeypatch.context() as patched:
        patched.setattr(module, failing, fill_the_disk)
        with pytest.raises(OutputError, match="No space left on device"):
            export(Path("run"), "tiny", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("tiny.onnx", "tiny.json"), b"earlier"
    )
    assert export(Path("run"), "tiny", tmp_path) == (tmp_path / "tiny.onnx", {})
    assert (tmp_path / "tiny.onnx").read_bytes() == b"new"
