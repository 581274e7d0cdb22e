import errno
import itertools
import json
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import Image

from groundglass.errors import OutputError
from groundglass.inference.model_card import BurdenInterval
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.report.sentence import report_sentence, state_uncertainty
from groundglass.scan.geometry import Geometry
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Mask, Scan
from helpers.dicom_phantom import write_series


def centre_mm(mask: Mask) -> np.ndarray:
    return np.asarray(mask.geometry.position(np.argwhere(mask.voxels).mean(0)))


def test_the_lesions_of_the_phantom_are_found(phantom: Phantom, grey_band: Segmenter) -> None:
    result = segment(phantom.scan, grey_band)
    found, truth = result.lesions, phantom.lesions
    assert found.geometry is phantom.scan.geometry
    both = (found.voxels & truth.voxels).sum()
    assert both > 0.9 * truth.voxels.sum()  # grey levels alone: the engine is no network, and takes vessels too
    assert result.findings.lung_volume_ml == pytest.approx(phantom.lungs.volume_ml, rel=0.05)
    assert set(result.findings.seconds) == {"model", "lungs", "lesions", "measure"}


@pytest.mark.thorough
def test_what_was_measured_at_the_own_threshold_of_a_model_is_not_said_of_another(
    phantom: Phantom, grey_band: Segmenter
) -> None:
    interval = BurdenInterval(offset_percent=0.1, low=0.5, high=2.0, scans=11, coverage=0.82)
    scores = {"test": {"pooled": {"whole": {"dice": 0.7, "sensitivity": 0.8, "precision": 0.6}}}}
    stated = {"burden_interval": interval, "scores": scores, "repeatability": 0.05}
    calibrated = Segmenter(grey_band.card.model_copy(update=stated), grey_band.engine)
    own, other = (segment(phantom.scan, calibrated, threshold=t) for t in (calibrated.card.threshold, 0.9))
    assert own.findings.lesion_share_interval_percent
    assert "80 %" in report_sentence(own.findings)
    assert "80 %" in state_uncertainty(own.findings, own.card)
    assert (other.findings.lesion_volume_interval_ml, other.findings.lesion_share_interval_percent) == (None, None)
    assert "interval" not in report_sentence(other.findings)
    assert state_uncertainty(other.findings, other.card) == ""
    assert other.card.repeatability is None


ORIENTATIONS = [
    np.stack([np.array(axes), np.array(flips)], axis=1)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def plain(phantom: Phantom, grey_band: Segmenter) -> Analysis:
    return segment(phantom.scan, grey_band)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=lambda o: "".join(map(str, o.ravel())))
@pytest.mark.thorough
def test_the_order_and_direction_of_the_axes_do_not_change_the_result(
    phantom: Phantom, plain: Analysis, grey_band: Segmenter, orientation: np.ndarray
) -> None:
    values = apply_orientation(phantom.scan.values, orientation)
    affine = phantom.scan.geometry.affine_lps @ inv_ornt_aff(orientation, phantom.scan.values.shape)
    turned = segment(Scan(values, Geometry(values.shape, affine)), grey_band)
    assert np.abs(centre_mm(turned.lesions) - centre_mm(plain.lesions)).max() < 1e-6
    assert turned.findings.lesion_volume_ml == plain.findings.lesion_volume_ml
    assert turned.findings.right_lung == plain.findings.right_lung


def test_a_scan_gives_mask_findings_preview_and_report(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    source = tmp_path / "a scan.nii.gz"
    nifti.write_scan(phantom.scan, source)
    result = segment(read_scan(source), grey_band)
    files = result.save(tmp_path / "out")
    assert [file.name for file in files] == ["lesions.nii.gz", "findings.json", "preview.png", "report.html"]
    mask, ct = Nifti1Image.from_filename(files[0]), Nifti1Image.from_filename(source)
    assert mask.shape == ct.shape
    assert np.array_equal(mask.affine, ct.affine)
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(mask.dataobj)) == {0, 1}
    findings = json.loads(files[1].read_text())
    voxel_ml = abs(np.linalg.det(ct.affine[:3, :3])) / 1000
    assert findings["lesion_volume_ml"] == pytest.approx(np.asarray(mask.dataobj).sum() * voxel_ml, abs=1e-3)
    assert findings["input"]["identity"] is None
    assert "a scan" not in files[1].read_text()
    named = segment(read_scan(source), grey_band, with_identity=True).findings
    assert named.input.identity is not None
    assert named.input.identity.source == "a scan.nii.gz"
    with Image.open(files[2]) as picture:
        assert picture.width > 500


def test_a_label_of_bytes_that_are_no_characters_is_written(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    """A terminal of another character set gives such a label, where commands take it from the command line."""
    segment(phantom.scan, grey_band, label="M\udcfcller").save(tmp_path)
    assert json.loads((tmp_path / "findings.json").read_text())["input"]["label"] == "M?ller"
    assert "M?ller" in (tmp_path / "report.html").read_text()


def test_images_of_different_sizes_give_a_mask_of_their_own_size_each(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    folder = tmp_path / "slices"
    folder.mkdir()
    grey = np.clip((phantom.scan.values[..., ::1].astype(float) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    view = grey[12:14]
    Image.fromarray(view[0]).save(folder / "1.png")
    Image.fromarray(view[1, 5:, 10:]).save(folder / "2.png")
    result = segment(read_scan(folder), grey_band)
    files = result.save(tmp_path / "out")
    masks = []
    for file in files:
        if file.parent.name == "lesions":
            with Image.open(file) as picture:
                masks.append(np.asarray(picture))
    assert [mask.shape for mask in masks] == [view[0].shape, view[1, 5:, 10:].shape]
    assert all(set(np.unique(mask)) == {0, 255} for mask in masks)
    assert result.findings.lesion_volume_ml is None
    assert (result.findings.lesion_share_of_lung_percent or 0) > 0


def test_a_volume_of_one_slice_is_segmented(phantom: Phantom, grey_band: Segmenter) -> None:
    geometry = Geometry((1, *phantom.scan.geometry.shape[1:]), phantom.scan.geometry.affine_lps)
    one = segment(Scan(phantom.scan.values[13:14], geometry), grey_band)
    assert one.findings.slices == 1
    assert one.findings.lesion_slices == 1


def test_a_dicom_series_gives_a_segment_for_each_class(
    phantom: Phantom, class_bands: Segmenter, tmp_path: Path
) -> None:
    write_series(phantom.scan, tmp_path / "ct")
    result = segment(read_scan(tmp_path / "ct"), class_bands)
    assert list(result.classes) == ["ground-glass", "consolidation"]
    dark, dense = (mask.voxels for mask in result.classes.values())
    assert np.array_equal(dark | dense, result.lesions.voxels)
    assert not (dark & dense).any()
    assert dark.any()
    assert dense.any()
    result.save(tmp_path / "out")
    assert [each.volume_ml for each in result.findings.classes] == [
        pytest.approx(mask.volume_ml, abs=0.001) for mask in result.classes.values()
    ]
    stored = hd.seg.segread(tmp_path / "out" / "lesions.dcm")
    assert [item.SegmentLabel for item in stored.SegmentSequence] == ["ground-glass", "consolidation"]
    assert result.scan.series is not None
    uids = [header.SOPInstanceUID for header in result.scan.series.headers]
    pixels = stored.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(pixels[..., 0], dark)
    assert np.array_equal(pixels[..., 1], dense)


def test_saving_again_replaces_the_earlier_result(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    result = segment(phantom.scan, grey_band)
    first = [file.read_bytes() for file in result.save(tmp_path)[:1]]
    assert [file.read_bytes() for file in result.save(tmp_path)[:1]] == first
    assert {path.name for path in tmp_path.iterdir()} == {
        "lesions.nii.gz",
        "findings.json",
        "preview.png",
        "report.html",
    }


def test_nothing_is_left_behind_when_the_disk_is_full(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = segment(phantom.scan, grey_band)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)  # the last of the files
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        result.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        segment(phantom.scan, grey_band).save(tmp_path / "out")
