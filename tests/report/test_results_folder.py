"""`save` writes all files of a result or none, also into a folder that holds an earlier result."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundglass.errors import OutputError
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.scan.phantom import Phantom
from helpers.dicom_phantom import write_series

NIFTI_NAMES = {"lesions.nii.gz", "findings.json", "preview.png", "report.html"}


@dataclass(frozen=True)
class Analyses:
    """Results of three kinds, each with files of its own."""

    volume: Analysis
    dicom: Analysis
    images: Analysis


@pytest.fixture(scope="module")
def analyses(phantom: Phantom, grey_band: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Analyses:
    folder = tmp_path_factory.mktemp("sources")
    write_series(phantom.scan, folder / "series")
    (folder / "images").mkdir()
    grey = np.clip((phantom.scan.values.astype(float) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    for z in (12, 13):
        Image.fromarray(grey[z]).save(folder / "images" / f"{z}.png")
    return Analyses(
        segment(phantom.scan, grey_band),
        segment(read_scan(folder / "series"), grey_band),
        segment(read_scan(folder / "images"), grey_band),
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.thorough
def test_a_result_of_another_kind_leaves_no_file_of_the_earlier_one(analyses: Analyses, tmp_path: Path) -> None:
    out = tmp_path / "out"
    analyses.dicom.save(out)
    assert set(content(out)) == NIFTI_NAMES | {"lesions.dcm", "findings.dcm"}
    analyses.volume.save(out)
    assert set(content(out)) == NIFTI_NAMES
    analyses.images.save(out)
    assert set(content(out)) == {
        "lesions/12.png",
        "lesions/13.png",
        "findings.json",
        "preview.png",
        "report.html",
    }
    analyses.volume.save(out)
    assert {path.name for path in out.iterdir()} == NIFTI_NAMES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_files_in_the_folder_stay(analyses: Analyses, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    analyses.dicom.save(tmp_path)
    analyses.volume.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_an_earlier_result_no_file_is_removed(analyses: Analyses, tmp_path: Path) -> None:
    (tmp_path / "lesions").mkdir()
    (tmp_path / "lesions" / "drawn.png").write_text("mine")
    analyses.volume.save(tmp_path)
    assert (tmp_path / "lesions" / "drawn.png").read_text() == "mine"


def test_a_folder_of_masks_that_is_not_an_earlier_result_is_never_replaced(analyses: Analyses, tmp_path: Path) -> None:
    (tmp_path / "lesions").mkdir()
    (tmp_path / "lesions" / "drawn.png").write_text("mine")
    with pytest.raises(OutputError, match="lesions is not a folder of an earlier result: name another folder"):
        analyses.images.save(tmp_path)
    assert content(tmp_path) == {"lesions/drawn.png": b"mine"}


@pytest.mark.parametrize("name", ["lesions.dcm", "findings.dcm", "lesions.png"])
def test_masks_and_dicom_of_which_no_findings_are_there_are_not_left_beside_another_scan(
    analyses: Analyses, tmp_path: Path, name: str
) -> None:
    analyses.dicom.save(tmp_path)
    (tmp_path / "findings.json").unlink()
    (tmp_path / name).write_text("of another patient")
    before = content(tmp_path)
    with pytest.raises(OutputError, match=r"is not a file of an earlier result: name another folder, or remove it"):
        analyses.volume.save(tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["lesions.nii.gz", "preview.png", "report.html"])
@pytest.mark.parametrize("is_link", [False, True])
def test_without_an_earlier_result_no_file_is_replaced(
    analyses: Analyses, tmp_path: Path, name: str, is_link: bool
) -> None:
    """Data sets call the masks that people drew `lesions.nii.gz`, and lay them beside the scan."""
    if is_link:
        (tmp_path / name).symlink_to("/nowhere")
    else:
        (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} is not a file of an earlier result: name another folder, or remove"):
        analyses.volume.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert is_link or (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("last_move", range(1, 11))
@pytest.mark.thorough
def test_what_a_process_leaves_that_is_killed_while_files_are_exchanged_is_known_as_a_result(
    last_move: int, analyses: Analyses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyses.dicom.save(tmp_path)
    process = os.fork()
    if not process:
        rename, moved = Path.rename, list[Path]()

        def rename_or_end(path: Path, target: Path) -> Path:
            if len(moved) == last_move:
                os._exit(0)
            moved.append(path)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_or_end)
        analyses.volume.save(tmp_path)
        os._exit(0)
    os.waitpid(process, 0)
    analyses.volume.save(tmp_path)
    assert {name for name in content(tmp_path) if not name.startswith(".")} == NIFTI_NAMES


@pytest.mark.parametrize(("name", "command"), [("follow.json", "follow"), ("overview.html", "batch")])
def test_a_result_is_not_written_beside_those_of_another_command(
    analyses: Analyses, tmp_path: Path, name: str, command: str
) -> None:
    (tmp_path / name).write_text("of another patient")
    with pytest.raises(OutputError, match=f"holds results of groundglass {command}: name another folder"):
        analyses.volume.save(tmp_path)
    assert content(tmp_path) == {name: b"of another patient"}


@pytest.mark.parametrize(("name", "command"), [("follow.json", "follow"), ("overview.html", "batch")])
def test_a_result_is_not_written_beside_those_that_another_command_wrote_meanwhile(
    analyses: Analyses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    def render(*_: object) -> str:
        (tmp_path / name).write_text("of another patient")
        return ""

    monkeypatch.setattr("groundglass.report.results_folder.render_report", render)
    with pytest.raises(OutputError, match=f"holds results of groundglass {command}"):
        analyses.volume.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("failing", [1, 4, 7, 10], ids=["first file out", "fourth file out", "first in", "last in"])
def test_an_error_while_files_are_exchanged_keeps_the_earlier_result(
    failing: int, analyses: Analyses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyses.dicom.save(tmp_path)
    before, rename, moved = content(tmp_path), Path.rename, []

    def rename_or_fail(self: Path, target: Path) -> Path:
        moved.append(self)
        if len(moved) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    with pytest.raises(OutputError, match="cannot be written: Input/output error"):
        analyses.volume.save(tmp_path)
    assert len(moved) == 2 * failing - 1  # the moves before it were undone
    assert content(tmp_path) == before


def test_a_folder_whose_name_is_too_long_is_refused_in_one_line(analyses: Analyses, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: File name too long; make room or name another folder"):
        analyses.volume.save(tmp_path / ("n" * 300))
