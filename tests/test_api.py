"""The public API: its examples, and its functions with what users give them."""

import doctest
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from nibabel.nifti1 import Nifti1Image

import groundglass
from groundglass.apps.batch.items import find_items
from groundglass.apps.batch.records import ItemStatus
from groundglass.errors import ConfigError, ModelError
from groundglass.inference.engine_config import Precision
from groundglass.inference.model_card import BUNDLED, bundled_model
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.scan.phantom import Phantom

SOURCES = Path(groundglass.__file__).parent


def modules_with_examples() -> list[str]:
    """The modules whose docstrings hold examples."""
    files = (path for path in SOURCES.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
    names = (path.relative_to(SOURCES.parent).with_suffix("").as_posix().replace("/", ".") for path in files)
    return sorted(name.removesuffix(".__init__") for name in names)


def test_there_are_examples() -> None:
    assert {"groundglass", "groundglass.io.in_memory"} <= set(modules_with_examples())


@pytest.mark.parametrize("name", modules_with_examples())
@pytest.mark.thorough
def test_the_examples_of_a_module_give_what_they_show(name: str) -> None:
    module = import_module(name)
    public = {each: getattr(groundglass, each) for each in groundglass.__all__} if name == "groundglass" else {}
    result = doctest.testmod(module, extraglobs=public)
    assert result.attempted
    assert result.failed == 0


def test_every_public_name_is_described() -> None:
    assert [name for name in groundglass.__all__ if not getattr(groundglass, name).__doc__] == []


def test_old_names_are_gone() -> None:
    for name in ("analyse", "save", "Mask"):
        with pytest.raises(AttributeError):
            getattr(groundglass, name)


def test_a_model_may_be_named_in_text() -> None:
    assert groundglass.open_model(str(bundled_model())).card.name == BUNDLED


def test_the_bundled_model_has_a_name() -> None:
    assert groundglass.open_model("groundglass-ct").card.name == BUNDLED
    assert repr(groundglass.open_model()).startswith("Segmenter(groundglass-ct in ")


def test_an_engine_may_be_chosen_by_text() -> None:
    assert groundglass.EngineConfig(precision="f32").precision is Precision.F32  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the precision is 'f16', expected one of f32, bf16, int8"):
        groundglass.EngineConfig(precision="f16")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "the model is of type int, expected a path, or what open_model returned"),
        ({"model": str(bundled_model().with_suffix(".json"))}, ModelError, "is a card, expected the ONNX file beside"),
        ({"threshold": "0.5"}, ConfigError, "the threshold is '0.5', expected a probability between 0 and 1"),
        ({"threshold": 50}, ConfigError, "the threshold is 50, expected a probability"),
        ({"intensity": "grey"}, ConfigError, "the intensity is 'grey', expected one of hu, shifted-hu"),
        ({"progress": True}, TypeError, "progress is True, expected a function of the number of slices done"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_refused_at_once(
    phantom: Phantom, grey_band: Segmenter, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        groundglass.segment(phantom.scan, **{"model": grey_band, **arguments})


@pytest.mark.thorough
def test_follow_takes_what_segment_takes_with_dates_as_text(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    scan = phantom.scan
    image = Nifti1Image(scan.values.T, scan.geometry.affine_ras)
    dates: list[date | str] = ["2020-03-01", date(2020, 3, 20)]
    result = groundglass.follow((each for each in (image, scan)), tmp_path, grey_band, dates)
    assert [visit.folder for visit in result.visits] == ["2020-03-01", "2020-03-20"]


@pytest.mark.parametrize(
    ("sources", "dates", "message"),
    [
        ("ct.nii.gz", (), "found one path: give a list of paths"),
        (["ct.nii.gz"], (), "two or more scans, found 1"),
        (["a", "b"], ("2020-03-01", "March"), "the date of a scan is 'March', expected a date, or text such as 2026"),
    ],
)
def test_a_follow_up_that_cannot_be_is_refused(sources: Any, dates: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        groundglass.follow(sources, "out", dates=dates)


def test_a_batch_may_be_a_list_of_paths(tmp_path: Path) -> None:
    names = ("one/a.nii.gz", "two/b.nii.gz")
    items = find_items([tmp_path / name for name in (*names, names[0])])
    assert [(item.name, item.relative_path) for item in items] == [("one__a", names[0]), ("two__b", names[1])]
    with pytest.raises(ConfigError, match="the intensity is 'grey', expected one of"):
        groundglass.batch([tmp_path / "a.nii.gz"], tmp_path / "out", intensity="grey")


@pytest.mark.thorough
def test_follow_takes_text(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    nifti.write_scan(phantom.scan, tmp_path / "ct.nii.gz")
    seen: list[tuple[int, int]] = []
    name = str(tmp_path / "ct.nii.gz")
    result = groundglass.follow(
        [name, name], str(tmp_path / "out"), grey_band, progress=lambda *done: seen.append(done)
    )
    assert result.changes[0].lesion_volume_ml == 0
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_batch_returns_how_each_scan_ended(phantom: Phantom, tmp_path: Path) -> None:
    scans, seen = tmp_path / "scans", []
    scans.mkdir()
    nifti.write_scan(phantom.scan, scans / "a.nii.gz")
    (scans / "b.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:5000])
    records = groundglass.batch(str(scans), str(tmp_path / "out"), progress=lambda *done: seen.append(done))
    assert {record.status for record in records} == {ItemStatus.DONE, ItemStatus.FAILED}
    (numbers,) = (record.numbers for record in records if record.numbers)
    assert (numbers.lesion_ml or 0) > 0
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (tmp_path / "out" / "summary.csv").is_file()
