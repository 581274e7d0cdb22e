"""The masks and maps of an analysis: axes, volumes, conversions, files; thresholds and probabilities."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from groundglass.errors import ConfigError
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.analysis import Analysis, segment
from groundglass.report.scan_masks import ScanMask
from groundglass.scan.phantom import Phantom


@pytest.fixture(scope="module")
def ct(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "ct.nii.gz"
    nifti.write_scan(phantom.scan, path)
    return path


@pytest.fixture(scope="module")
def of_file(ct: Path, grey_band: Segmenter) -> Analysis:
    return segment(str(ct), grey_band, keep_probability=True)


@pytest.fixture(scope="module")
def of_image(ct: Path, grey_band: Segmenter) -> Analysis:
    return segment(Nifti1Image.from_filename(ct), grey_band, keep_probability=True)


def test_a_mask_has_the_axes_of_the_image_that_was_given(of_image: Analysis, ct: Path) -> None:
    image = Nifti1Image.from_filename(ct)
    for found in (of_image.lesions, of_image.lungs, of_image.probability):
        assert found.voxels.shape == image.shape
        assert np.array_equal(found.affine, image.affine)
    assert of_image.findings.mean_intensity.lesion_hu == pytest.approx(
        np.asarray(image.dataobj)[of_image.lesions.voxels].mean(), abs=0.2
    )


def test_the_voxels_and_the_affine_of_any_mask_make_an_image_in_place(of_file: Analysis, of_image: Analysis) -> None:
    assert np.array_equal(of_file.lesions.voxels, of_image.lesions.voxels.T)
    places = [
        nib.affines.apply_affine(mask.affine, np.argwhere(mask.voxels)).mean(0)
        for mask in (of_file.lesions, of_image.lesions)
    ]
    assert np.allclose(*places)


def test_the_volumes_are_those_of_the_findings(of_file: Analysis) -> None:
    assert of_file.lesions.volume_ml == pytest.approx(of_file.findings.lesion_volume_ml, abs=1e-3)
    assert of_file.lungs.volume_ml == pytest.approx(of_file.findings.lung_volume_ml, abs=1e-2)
    assert (of_file.lungs.voxels & of_file.lesions.voxels).sum() > 0.9 * of_file.lesions.voxels.sum()


def test_the_probability_is_the_networks_and_lesions_lie_where_it_is_high(of_file: Analysis) -> None:
    probability = of_file.probability
    assert probability.voxels.dtype == np.float32
    high = probability.voxels >= of_file.card.threshold
    assert (of_file.lesions.voxels <= high).all()
    lowest, highest = (1 / (1 + np.exp(-logit)) for logit in (-5, 5))  # the engine's two logits
    looked_at = probability.voxels[probability.voxels > 0]
    assert (looked_at.min(), looked_at.max()) == pytest.approx((lowest, highest), rel=1e-3)
    expected = probability.voxels.sum(dtype=float) * of_file.lesions.geometry.voxel_ml
    assert probability.volume_ml == pytest.approx(expected)


def test_the_probability_is_kept_on_request_only(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    analysis = segment(phantom.scan, grey_band)
    with pytest.raises(ConfigError, match="keep_probability=True"):
        analysis.save(tmp_path / "out", probability=True)
    assert not (tmp_path / "out").exists()


def test_a_higher_threshold_marks_less_and_is_named(phantom: Phantom, grey_band: Segmenter) -> None:
    high = segment(phantom.scan, grey_band, threshold=0.995)
    assert not high.lesions.voxels.any()
    assert high.card.threshold == 0.995
    assert any("from a probability of 0.995 on request" in warning for warning in high.findings.warnings)
    assert grey_band.card.threshold == 0.5


@pytest.mark.parametrize("threshold", [0, 1, 50, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(
    phantom: Phantom, grey_band: Segmenter, threshold: float
) -> None:
    with pytest.raises(ConfigError, match="expected a probability between 0 and 1"):
        segment(phantom.scan, grey_band, threshold=threshold)


def test_an_intensity_may_be_named_in_text(phantom: Phantom, grey_band: Segmenter) -> None:
    assert "on request" in segment(phantom.scan, grey_band, "HU").findings.intensity.reason
    with pytest.raises(ConfigError, match="'grey', expected one of hu, shifted-hu"):
        segment(phantom.scan, grey_band, "grey")


def test_masks_become_nibabel_images_on_the_grid_of_the_source(of_file: Analysis, of_image: Analysis, ct: Path) -> None:
    image = Nifti1Image.from_filename(ct)
    for analysis in (of_file, of_image):
        for found, voxels in ((analysis.lesions, of_image.lesions), (analysis.probability, of_image.probability)):
            converted = found.to_nibabel()
            assert np.array_equal(np.asarray(converted.dataobj), voxels.voxels)
            assert np.allclose(converted.affine, image.affine, atol=1e-4)


def test_masks_become_simpleitk_images_on_the_grid_of_the_source(
    of_file: Analysis, of_image: Analysis, ct: Path
) -> None:
    source = SimpleITK.ReadImage(str(ct))
    for analysis in (of_file, of_image):
        for found, expected in ((analysis.lesions, of_file.lesions), (analysis.probability, of_file.probability)):
            image = found.to_simpleitk()
            assert np.array_equal(SimpleITK.GetArrayFromImage(image), expected.voxels)
            for index in ((0, 0, 0), (20, 30, 5)):
                place = source.TransformIndexToPhysicalPoint(index)
                assert np.allclose(image.TransformIndexToPhysicalPoint(index), place, atol=1e-3)


def test_saved_masks_lie_on_exactly_the_grid_of_the_file(
    of_file: Analysis, of_image: Analysis, ct: Path, tmp_path: Path
) -> None:
    image = Nifti1Image.from_filename(ct)
    for analysis in (of_file, of_image):
        for found, expected in ((analysis.lungs, of_image.lungs), (analysis.probability, of_image.probability)):
            saved = Nifti1Image.from_filename(found.save(str(tmp_path / "m.nii.gz")))
            assert np.array_equal(np.asarray(saved.dataobj), expected.voxels)
            assert np.allclose(saved.affine, image.affine, atol=1e-4)
    assert np.array_equal(Nifti1Image.from_filename(of_file.lungs.save(tmp_path / "m.nii")).affine, image.affine)


def test_a_folder_of_results_holds_lungs_and_probability_if_they_are_asked_for(
    of_image: Analysis, tmp_path: Path
) -> None:
    names = {path.name for path in of_image.save(str(tmp_path), lungs=True, probability=True)}
    assert {"lesions.nii.gz", "lungs.nii.gz", "probability.nii.gz"} < names
    lesions, lungs = (Nifti1Image.from_filename(tmp_path / f"{name}.nii.gz") for name in ("lesions", "lungs"))
    assert np.array_equal(np.asarray(lesions.dataobj), of_image.lesions.voxels)
    assert np.array_equal(np.asarray(lungs.dataobj), of_image.lungs.voxels)
    of_image.save(tmp_path)
    assert not (tmp_path / "lungs.nii.gz").exists()  # that of an earlier result must not survive


def test_the_mask_of_a_picture_is_a_picture(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    grey = np.clip((phantom.scan.values[16] + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    analysis = segment(read_scan(tmp_path / "a.png"), grey_band, keep_probability=True)
    analysis.save(tmp_path / "out", lungs=True, probability=True)
    with Image.open(tmp_path / "out" / "lungs.png") as picture:
        assert np.array_equal(np.asarray(picture) == 255, analysis.lungs.voxels[0])
    with Image.open(tmp_path / "out" / "probability.png") as picture:
        assert np.abs(np.asarray(picture) / 255 - analysis.probability.voxels[0]).max() < 0.5 / 255 + 1e-6


def test_numpy_takes_a_mask_and_a_map_for_their_voxels(of_file: Analysis) -> None:
    assert np.array_equal(np.asarray(of_file.lesions), of_file.lesions.voxels)
    assert np.asarray(of_file.lesions, dtype=np.uint8).sum() == of_file.lesions.voxels.sum()
    assert np.asarray(of_file.probability) is of_file.probability.voxels


def test_a_file_of_another_kind_is_refused(of_file: Analysis, tmp_path: Path) -> None:
    for name in ("m.nrrd", "m", "m.png"):
        with pytest.raises(ConfigError, match=r"expected a name that ends in \.nii\.gz or \.nii, or in \.png"):
            of_file.lesions.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_classes_are_masks_that_make_up_the_lesions(phantom: Phantom, class_bands: Segmenter) -> None:
    analysis = segment(phantom.scan, class_bands)
    assert list(analysis.classes) == ["ground-glass", "consolidation"]
    parts = list(analysis.classes.values())
    assert all(isinstance(part, ScanMask) for part in parts)
    assert np.array_equal(parts[0].voxels ^ parts[1].voxels, analysis.lesions.voxels)


def test_a_model_without_classes_has_none(of_file: Analysis) -> None:
    assert of_file.classes == {}
