"""Scans of arrays, nibabel and SimpleITK images, pydicom data sets and lists of files."""

import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage
from PIL import Image
from pydicom import Dataset, dcmread

from groundglass.errors import ConfigError, FormatError
from groundglass.io import nifti
from groundglass.io.array_scan import ArrayScan
from groundglass.io.in_memory import as_scan
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_enhanced, write_series

SPACING = (5.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def ct(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "ct.nii.gz"
    nifti.write_scan(phantom.scan, path)
    return path


@pytest.fixture(scope="module")
def series(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_series(phantom.scan, folder)
    return folder


def same(found: Scan, expected: Scan) -> bool:
    return np.array_equal(found.values, expected.values) and found.geometry.matches(expected.geometry)


def grey(shape: tuple[int, ...] = (4, 60, 60)) -> np.ndarray:
    return np.full(shape, -500, dtype=np.int16)


def test_a_path_may_be_text_or_path(ct: Path) -> None:
    assert same(as_scan(str(ct)), read_scan(ct))
    assert same(as_scan(ct), read_scan(ct))


def test_a_scan_is_returned_as_it_is(phantom: Phantom) -> None:
    assert as_scan(phantom.scan) is phantom.scan


def test_a_nibabel_image_is_the_scan_of_its_file(ct: Path) -> None:
    scan = as_scan(Nifti1Image.from_filename(ct))
    assert same(scan, read_scan(ct))
    assert isinstance(scan, ArrayScan)
    assert as_scan(nib.loadsave.load(ct)).notes == read_scan(ct).notes


def test_a_nibabel_image_without_codes_has_no_directions(phantom: Phantom) -> None:
    image = Nifti1Image(phantom.scan.values.T, None)
    image.header["pixdim"][1:4] = SPACING[::-1]
    scan = as_scan(image)
    assert (scan.geometry.spacing, scan.geometry.has_directions) == (SPACING, False)


def test_a_nibabel_image_of_another_format_keeps_its_affine(phantom: Phantom) -> None:
    geometry = phantom.scan.geometry
    scan = as_scan(SpatialImage(phantom.scan.values.T, geometry.affine_ras))
    assert same(scan, phantom.scan)


def test_an_affine_that_was_changed_in_place_counts_as_nibabel_saves_it(phantom: Phantom, tmp_path: Path) -> None:
    """The header, which does not know of it yet, was taken: volumes were eight times as large."""
    scan = phantom.scan
    image = Nifti1Image(scan.values.T, scan.geometry.affine_ras)
    image.affine[:3, :3] *= 0.5
    found = as_scan(image)
    nib.save(image, tmp_path / "a.nii")
    assert found.geometry.matches(read_scan(tmp_path / "a.nii").geometry, tolerance_mm=0.01)
    assert found.geometry.spacing == pytest.approx(np.array(scan.geometry.spacing) / 2)


def test_a_nibabel_image_of_a_slice_is_refused_with_the_way_to_make_a_volume() -> None:
    with pytest.raises(FormatError, match=r"the shape \(64, 64\), expected one volume: nibabel\.Nifti1Image\(.*None\]"):
        as_scan(Nifti1Image(np.zeros((64, 64), np.int16), np.eye(4)))


def test_a_nibabel_image_of_several_volumes_is_refused() -> None:
    with pytest.raises(FormatError, match=r"expected one volume: take one, e\.g\. image\.slicer"):
        as_scan(Nifti1Image(np.zeros((40, 40, 3, 2), np.int16), np.diag([4.0, 4, 5, 1])))
    assert as_scan(Nifti1Image(grey((40, 40, 3, 1)), np.diag([4.0, 4, 5, 1]))).values.shape == (3, 40, 40)


def test_a_simpleitk_image_is_the_scan_of_its_file(ct: Path) -> None:
    scan = as_scan(SimpleITK.ReadImage(str(ct)))
    assert np.array_equal(scan.values, read_scan(ct).values)
    assert scan.geometry.matches(read_scan(ct).geometry, tolerance_mm=0.01)  # ITK rounds directions
    assert not isinstance(scan, ArrayScan)


def test_a_simpleitk_slice_is_refused() -> None:
    with pytest.raises(FormatError, match="has 2 axes and 1 numbers a voxel, expected one volume"):
        as_scan(SimpleITK.Image(40, 40, SimpleITK.sitkInt16))


def test_an_array_with_affine_has_the_axes_of_a_nifti_image(ct: Path) -> None:
    image = Nifti1Image.from_filename(ct)
    scan = as_scan(np.asarray(image.dataobj), affine=image.affine)
    assert same(scan, read_scan(ct))


def test_an_array_with_spacing_and_direction_lies_as_they_say() -> None:
    scan = as_scan(grey(), spacing=SPACING, direction=np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]))
    assert scan.geometry.spacing == SPACING
    assert scan.geometry.has_directions
    assert scan.notes == ()
    step = scan.geometry.position((0, 0, 1)) - scan.geometry.position((0, 0, 0))
    assert step.tolist() == [-2, 0, 0]  # axis 2 runs to the patient's right


def test_the_sides_of_an_array_without_directions_are_unknown() -> None:
    scan = as_scan(grey(), spacing=SPACING)
    assert (scan.geometry.in_mm, scan.geometry.has_directions) == (True, False)
    assert any("give direction, or affine" in note for note in scan.notes)


def test_the_volumes_of_an_array_without_spacing_are_unknown() -> None:
    scan = as_scan(grey())
    assert scan.geometry.voxel_ml is None
    assert any("give spacing, or affine" in note for note in scan.notes)


class Tensor:
    """What NumPy makes an array of."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self.values


def test_anything_that_numpy_takes_for_an_array_is_one() -> None:
    assert as_scan(Tensor(grey()), spacing=SPACING).values.shape == (4, 60, 60)


@pytest.mark.parametrize(
    ("array", "grid", "message"),
    [
        (grey((60, 60)), {}, r"has 2 axes, expected 3: array\[None\]"),
        (grey((60,)), {}, r"has 1 axis, expected 3: a scan has the axes \(z, y, x\)"),
        (grey((2, 4, 60, 60)), {}, r"has 4 axes, expected 3: array\[0\] or"),
        (grey(), {"spacing": (2, 2)}, r"expected three distances in mm along \(z, y, x\)"),
        (grey(), {"spacing": (2, 2, -1)}, "expected three distances"),
        (grey(), {"spacing": 2.0}, "the spacing is 2.0, expected three distances"),
        (grey(), {"spacing": {"z": 5}}, "the spacing is {'z': 5}, expected three distances"),
        (grey(), {"spacing": [5, (2, 3), 2]}, "expected three distances"),
        (grey(), {"spacing": (2, 2, 5)}, r"seem to be along \(x, y, z\), expected \(z, y, x\): give spacing\[::-1\]"),
        (grey((60, 60, 20)), {}, r"axes of an array of 60 x 60 x 20 seem to be \(x, y, z\), .* give array\.T"),
        (grey((80, 60, 20)), {"spacing": (2, 2, 5)}, r"seem to be \(x, y, z\), expected \(z, y, x\)"),
        (grey((20, 60, 60)), {"affine": np.diag([2, 2, 5, 1])}, r"not to be those of the affine.*give array\.T, or"),
        (grey(), {"spacing": SPACING, "direction": np.eye(3).ravel()}, "give a SimpleITK or nibabel image itself"),
        (grey(), {"spacing": SPACING, "direction": "RAS"}, r"the direction is 'RAS', expected \(3, 3\)"),
        (grey(), {"spacing": SPACING, "direction": 2 * np.eye(3)}, r"have the lengths \[2.0, 2.0, 2.0\], expected 1"),
        (
            grey(),
            {"spacing": SPACING, "direction": 1e200 * np.eye(3)},
            r"have the lengths \[inf, inf, inf\], expected 1",
        ),
        (grey(), {"affine": "RAS"}, r"the affine is 'RAS', expected \(4, 4\)"),
        (grey((4, 512, 512)), {"spacing": (0.7, 5.0, 5.0)}, r"makes no chest .* in the order of the axes \(z, y, x\)"),
        (grey((4, 512, 512)), {"spacing": (0.005, 0.0007, 0.0007)}, "give it in mm"),
        (grey(), {"spacing": SPACING, "direction": np.eye(4)}, r"direction has the shape \(4, 4\), expected \(3, 3\)"),
        (grey(), {"affine": np.eye(3)}, r"affine has the shape \(3, 3\), expected \(4, 4\)"),
        (grey(), {"affine": np.zeros((4, 4))}, "no usable grid"),
        (grey((4, 8, 60)), {}, "this is no CT slice"),
        (grey() > 0, {}, "holds bool voxels, expected integers or floats: convert them to int16"),
        (grey().astype(object), {}, "holds object voxels"),
        (np.ma.masked_less(grey(), 0), {}, r"has masked voxels: array\.filled\(-1024\)"),
        (np.full((4, 60, 60), np.nan), {}, "that are NaN or infinite, or padding: nearly nothing is left"),
    ],
)
def test_an_array_that_is_no_chest_is_refused(array: np.ndarray, grid: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        as_scan(array, **grid)  # type: ignore[arg-type]


def test_a_grid_is_not_taken_twice(ct: Path) -> None:
    with pytest.raises(TypeError, match=r"a (Posix|Windows)Path states its own"):
        as_scan(ct, spacing=SPACING)
    with pytest.raises(TypeError, match="give it alone"):
        as_scan(grey(), spacing=SPACING, affine=np.eye(4))


def test_data_sets_are_the_scan_of_their_files_in_any_order(series: Path) -> None:
    expected = read_scan(series)
    data = [dcmread(path) for path in sorted(series.iterdir())]
    scan = as_scan(data[::-1])
    assert same(scan, expected)
    assert scan.source is None
    assert scan.series is not None
    assert len(scan.series.headers) == len(data)


def test_data_sets_need_no_file_meta_and_stay_as_they_are(series: Path) -> None:
    data = [dcmread(path) for path in sorted(series.iterdir())]
    for one in data:
        del one.file_meta
    assert same(as_scan(data), read_scan(series))
    assert not any(hasattr(one, "file_meta") for one in data)


def test_a_multi_frame_data_set_is_a_scan(phantom: Phantom, tmp_path: Path) -> None:
    path = write_enhanced(phantom.scan, tmp_path / "enhanced.dcm")
    assert same(as_scan(dcmread(path)), read_scan(path))


def test_a_list_of_files_is_one_series(series: Path) -> None:
    files = sorted(series.iterdir())
    assert same(as_scan(files), read_scan(series))
    assert same(as_scan(map(str, files)), read_scan(series))
    part = as_scan([path for path in files if dcmread(path, stop_before_pixels=True).InstanceNumber <= 5])
    assert np.array_equal(part.values, read_scan(series).values[:5])


def test_a_list_of_pictures_is_a_stack_in_its_order(tmp_path: Path) -> None:
    for name, level in (("a.png", 50), ("b.png", 90)):
        Image.fromarray(np.full((40, 40), level, np.uint8)).save(tmp_path / name)
    assert as_scan([tmp_path / "b.png", str(tmp_path / "a.png")]).values[:, 0, 0].tolist() == [90, 50]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "an int is no scan: expected a path, an array"),
        (None, "a NoneType is no scan"),
        (np.ndarray, "a type is no scan"),
        (b"ct.nii.gz", "a bytes is no scan: .*; give the path of the file"),
        (io.BytesIO(), "a BytesIO is no scan: .*; give the path of the file"),
        ({"image": grey()}, "a dict is no scan: .*; give what it holds"),
        (Image.new("L", (60, 60)), r"an Image is no scan: .*numpy\.asarray\(image\)\[None\]"),
        ([], "the list holds nothing"),
        (iter(()), "the list holds nothing"),
        (grey((2, 3, 4)).tolist(), "the list holds list, expected paths, pydicom data sets, or slices as arrays"),
        ([Dataset(), "a.dcm"], "the list holds Dataset, str"),
    ],
)
def test_what_is_no_scan_is_refused(source: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        as_scan(source)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the path is empty"),
        ("~/ct.nii.gz", r"~ has no meaning in Python; give Path\(\.\.\.\)\.expanduser"),
        ("https://example.org/ct.nii.gz", "nothing is read from a network; download it"),
        (Path("https://example.org/ct.nii.gz"), "nothing is read from a network"),
        ("series/*.dcm", r"it is a pattern; give sorted\(glob\.glob"),
        ("none.nii.gz", "there is no such file or folder"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_what_was_meant(path: str | Path, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        as_scan(path)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", "i8", ">f8", "f2"])
def test_an_array_of_any_numbers_and_byte_order_is_a_scan(phantom: Phantom, dtype: str) -> None:
    values = np.clip(phantom.scan.values, 0, 200).astype(dtype)
    scan = as_scan(values, spacing=SPACING)
    assert np.array_equal(scan.values, values)
    assert scan.values.dtype.isnative


def test_an_array_may_lie_in_memory_in_any_way(phantom: Phantom) -> None:
    values = phantom.scan.values
    fixed = values.copy()
    fixed.flags.writeable = False
    for array in (np.asfortranarray(values), fixed, values[:, ::-1], values[:, ::2, ::2]):
        assert np.array_equal(as_scan(array, spacing=SPACING).values, array)


def test_a_list_of_slices_is_the_volume_that_they_make(phantom: Phantom) -> None:
    whole = as_scan(phantom.scan.values, spacing=SPACING)
    assert same(as_scan(list(phantom.scan.values), spacing=SPACING), whole)
    assert same(as_scan(iter(phantom.scan.values), spacing=SPACING), whole)
    with pytest.raises(FormatError, match=r"the list holds arrays of 4 x 60 x 60, expected slices \(y, x\)"):
        as_scan([grey(), grey()])
    with pytest.raises(TypeError, match="an affine is that of one array"):
        as_scan(list(grey()), affine=np.eye(4))


def test_axes_that_are_in_an_unusual_order_are_taken_where_directions_say_so() -> None:
    scan = as_scan(grey((60, 60, 20)), spacing=(2, 2, 5), direction=np.eye(3))
    assert scan.geometry.shape == (60, 60, 20)
    assert as_scan(Nifti1Image(grey((20, 60, 60)), np.diag([2.0, 2, 5, 1]))).values.shape == (60, 60, 20)


def test_an_array_may_state_its_affine(phantom: Phantom) -> None:
    class MetaTensor(Tensor):
        affine = phantom.scan.geometry.affine_ras

    assert same(as_scan(MetaTensor(phantom.scan.values.T)), phantom.scan)


def test_a_tensor_that_gives_no_array_is_refused() -> None:
    class OnGpu(Tensor):
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise RuntimeError("it is on a GPU")

    with pytest.raises(TypeError, match=r"NumPy makes no array of the OnGpu \(it is on a GPU\): .*\.detach\(\)\.cpu"):
        as_scan(OnGpu(grey()))


def test_data_sets_without_pixels_and_lists_of_folders_are_refused(series: Path) -> None:
    headers = [dcmread(path, stop_before_pixels=True) for path in series.iterdir()]
    for source in (headers, Dataset()):
        with pytest.raises(FormatError, match="hold no pixels: read images, by pydicom"):
            as_scan(source)
    with pytest.raises(FormatError, match="is a folder: give it alone, or list the files in it"):
        as_scan([series])


def test_read_scan_says_what_takes_other_things_than_paths(series: Path) -> None:
    with pytest.raises(TypeError, match="read_scan takes a path; as_scan and segment may take a list"):
        read_scan(list(series.iterdir()))  # type: ignore[arg-type]
    assert same(read_scan(series, series=2), read_scan(series))


def test_a_scan_is_written_as_nifti_alone(phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.mha: expected a name that ends in \.nii\.gz or \.nii"):
        nifti.write_scan(phantom.scan, tmp_path / "a.mha")


def test_a_file_that_is_missing_in_a_list_is_named(series: Path) -> None:
    with pytest.raises(FormatError, match=r"none\.dcm cannot be read"):
        as_scan([*series.iterdir(), series / "none.dcm"])
