import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from groundglass.errors import ModelError
from groundglass.files import sha256_of
from groundglass.inference.model_card import BurdenInterval, ModelCard, bundled_model, read_card, write_card
from groundglass.scan.intensity import Window

CARD = ModelCard(
    name="test",
    sha256="",
    network={"widths": [4, 8]},
    window_hu=(-1250, 250),
    size=(32, 48),
    threshold=0.5,
    training_data=("phantoms",),
    never_trained_on=(),
    intended_use="tests",
    limits=(),
)


def write_model(folder: Path, **changes: object) -> Path:
    model = folder / "test.onnx"
    model.write_bytes(b"weights")
    card = json.loads(CARD.model_copy(update={"sha256": sha256_of(model)}).model_dump_json()) | changes
    model.with_suffix(".json").write_text(json.dumps(card))
    return model


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    card = read_card(write_model(tmp_path))
    assert card.model_copy(update={"sha256": ""}) == CARD
    assert card.window == Window(-1250, 250)


def test_sha256_of_an_empty_file() -> None:
    assert sha256_of(Path("/dev/null")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_weights_that_do_not_match_their_card_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    model.write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"has sha256 .*its card states .*take both from one export"):
        read_card(model)


def test_the_network_of_the_mirror_images_is_checked_as_well(tmp_path: Path) -> None:
    model = write_model(tmp_path, mirrored=True, mirror_sha256=hashlib.sha256(b"more weights").hexdigest())
    with pytest.raises(ModelError, match=r"test-mirror\.onnx is not there, and its model's card names it"):
        read_card(model)
    (tmp_path / "test-mirror.onnx").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"test-mirror\.onnx has sha256 .*its card states .*take both from one export"):
        read_card(model)
    (tmp_path / "test-mirror.onnx").write_bytes(b"more weights")
    assert read_card(model).mirrored


def test_the_error_names_a_missing_model_or_card(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"test\.onnx is not there"):
        read_card(tmp_path / "test.onnx")
    write_model(tmp_path).with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"test\.json is not there"):
        read_card(tmp_path / "test.onnx")


@pytest.mark.parametrize(
    ("changes", "message"), [({"size": [32]}, "size"), ({"threshold": "high"}, "threshold"), ({"colour": 1}, "colour")]
)
def test_a_card_with_a_wrong_or_unknown_key_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=f"not a model card: {message}"):
        read_card(write_model(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"threshold": number}, "threshold") for number in (float("nan"), 45, 1, 0, -0.5)),
        *(({"window_hu": ends}, "window_hu") for ends in ([250, -1250], [-1250, float("inf")], [5, 5])),
        *(({"size": size}, "size") for size in ([0, 48], [-32, 48])),
        *(({name: -1}, name) for name in ("neighbours_mm", "smoothing_mm", "smallest_ml", "repeatability")),
        *(({name: float("nan")}, name) for name in ("light_hu", "consolidation_hu", "smoothing_mm")),
        ({"classes": []}, "classes"),
        (
            {"burden_interval": {"offset_percent": 0.1, "low": 2, "high": 1, "scans": 3, "coverage": 0.8}},
            "burden_interval",
        ),
        (
            {"burden_interval": {"offset_percent": 0.1, "low": 1, "high": 2, "scans": 3, "coverage": 80}},
            "burden_interval",
        ),
    ],
)
def test_a_card_with_a_number_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=f"not a model card: {message}"):
        read_card(write_model(tmp_path, **changes))


def test_a_model_whose_weights_lie_in_other_files_is_refused(tmp_path: Path) -> None:
    """The checksum of a card covers the ONNX file alone."""
    model = onnx.load(bundled_model())
    onnx.save_model(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    card = read_card(bundled_model()).model_copy(update={"sha256": sha256_of(tmp_path / "model.onnx")})
    write_card(tmp_path / "model.onnx", card)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        read_card(tmp_path / "model.onnx")


@pytest.mark.parametrize("key", [b"\x0a\x08", b"\x0a\x88\x00", b"\x8a\x00\x08", b"\x8a\x80\x00\x88\x80\x80\x00"])
def test_weights_in_other_files_are_found_however_their_key_is_encoded(tmp_path: Path, key: bytes) -> None:
    """Protocol Buffers may write a number in more bytes than it needs."""
    model = onnx.load(bundled_model())
    onnx.save_model(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    content = (tmp_path / "model.onnx").read_bytes()
    assert b"\x0a\x08location" in content
    (tmp_path / "model.onnx").write_bytes(content.replace(b"\x0a\x08location", key + b"location"))
    card = read_card(bundled_model()).model_copy(update={"sha256": sha256_of(tmp_path / "model.onnx")})
    write_card(tmp_path / "model.onnx", card)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        read_card(tmp_path / "model.onnx")


def test_the_interval_of_a_share_scales_with_it_and_begins_at_zero_for_the_smallest() -> None:
    interval = BurdenInterval(offset_percent=0.1, low=0.5, high=2.0, scans=11, coverage=0.82)
    assert interval.of(9.9) == pytest.approx((4.9, 19.9))
    assert interval.of(0.05) == pytest.approx((0.0, 0.2))
    assert interval.of(80.0)[1] == 100.0


def test_the_rules_of_a_card_are_all_that_results_follow_from() -> None:
    card = read_card(bundled_model())
    same: dict[str, Any] = {"scores": {}, "limits": ("none",), "training_data": (), "repeatability": None}
    assert card.model_copy(update=same).rules == card.rules
    others: list[dict[str, Any]] = [{"sha256": "0" * 64}, {"threshold": 0.123}, {"consolidation_hu": -300.0}]
    others += [{"mirrored": not card.mirrored}, {"smoothing_mm": 9.0}, {"smallest_ml": 9.0}, {"light_hu": None}]
    for changes in others:
        assert card.model_copy(update=changes).rules != card.rules
