"""A small intact file for each format and kind of header that is read: the files that fuzzing damages."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.scan.geometry import Geometry
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_enhanced, write_series
from helpers.fuzz_doors import IMAGE, MASK, OTHER, phantom_scan, write_mask

# {kind: Specific Character Set (None: not stated), a name in it}
NAMES: dict[str, tuple[bytes | None, bytes]] = {
    "western": (b"ISO_IR 100", "Müller^Jürgen".encode("latin_1")),
    "cyrillic": (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5")),
    "arabic": (b"ISO_IR 127", "قباني^لنزار".encode("iso8859_6")),
    "thai": (b"ISO_IR 166", "สมชาย".encode("iso8859_11")),
    "katakana": (b"ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ".encode("shift_jis")),
    "japanese": (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^"),
    "korean": (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7="),
    "chinese": (b"\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="),
    "gb18030": (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    "unicode": (b"ISO_IR 192", "Wang^XiaoDong=王^小东".encode()),
    "unstated": (None, "Wałęsa^L".encode()),
    "misspelt": (b"ISO-8859-1", "Müller^J".encode("latin_1")),
    "hostile": (b"ISO_IR 192", "<b>\"&'\r\n\t\0\x1b[31m\u202e😀^^^=^=^=".encode() + b"\xed\xa0\x80" * 40),
}
NAMED = (
    "PatientName",
    "PatientID",
    "ReferringPhysicianName",
    "SeriesDescription",
    "StudyDescription",
    "AccessionNumber",
)
ODD_HEADERS: dict[str, dict[str, bytes | None]] = {
    "uids": {"StudyInstanceUID": b"1.2.003.abc", "SeriesInstanceUID": b"", "FrameOfReferenceUID": b"1" * 80},
    "dates": {
        "StudyDate": b"2020.03.01",
        "StudyTime": b"25:99",
        "PatientBirthDate": b"00000000",
        "SeriesDate": b"none",
    },
    "emptied": dict.fromkeys(
        (*NAMED, "PatientBirthDate", "PatientSex", "StudyID", "FrameOfReferenceUID", "Manufacturer")
    ),
    "padding": {"PixelPaddingValue": b"\x30\xf8", "PixelPaddingRangeLimit": b"\x00\xfc"},  # -2000 to -1024
    "numbers": {"PixelSpacing": b"5,5\\5,5 ", "SliceThickness": b"-1", "SeriesNumber": b"99999999999 ", "KVP": b"nan "},
}


def write_seeds(folder: Path) -> list[Path]:
    """Write the files into a folder, and return their paths in the order of their names."""
    scan = phantom_scan()
    for name in ("a.nii", "b.nii.gz"):
        nifti.write_scan(scan, folder / name)
    image = SimpleITK.GetImageFromArray(scan.values)
    for name, packed in (("c.mha", False), ("d.mha", True), ("e.nrrd", False), ("f.nrrd", True)):
        SimpleITK.WriteImage(image, str(folder / name), packed)
    nrrd_header, _, _ = (folder / "e.nrrd").read_bytes().partition(b"\n\n")
    as_text = " ".join(map(str, scan.values.ravel())).encode()
    as_hex = scan.values.tobytes().hex().encode()
    for name, encoding, voxels in (("p.nrrd", b"text", as_text), ("q.nrrd", b"hex", as_hex)):
        header = nrrd_header.replace(b"encoding: raw", b"encoding: " + encoding)
        (folder / name).write_bytes(header + b"\n\n" + voxels)
    grey = np.clip((scan.values[3].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    for name in ("g.png", "h.jpg"):
        Image.fromarray(grey).save(folder / name)
    write_enhanced(scan, folder / "i.dcm")
    slices = write_series(scan, folder / "series")
    shutil.copy(slices[3], folder / "j.dcm")
    for name, packing in (("l", RLELossless), ("m", JPEGLSLossless), ("n", JPEG2000Lossless)):
        data = dcmread(slices[3])
        data.compress(packing, generate_instance_uid=False)
        data.save_as(folder / f"{name}.dcm")
    data = dcmread(slices[3])
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(folder / "o.dcm")
    _pack(folder / "k.zip", slices)
    write_mask(read_scan(folder / "series"), folder / "mask.dcm")
    _write_headers(slices, folder)
    _write_frames(scan, folder)
    nibabel.save(nibabel.Nifti2Image(scan.values.T, np.diag([6.0, 6, 40, 1])), folder / "nifti-2.nii")
    _write_without_numbers(scan, folder)
    _write_lists(folder)
    shutil.rmtree(folder / "series")
    return sorted(folder.iterdir())


def _write_without_numbers(scan: Scan, folder: Path) -> None:
    """Write volumes that hold no numbers or bright ones beside the image, and a picture of 8 bits in 16."""
    for name, padding in (("nan", np.nan), ("bright", 3071.0)):
        values = scan.values.astype(np.float32)
        values[:, :6] = values[..., -8:] = padding
        nibabel.save(nibabel.Nifti1Image(values.T, np.diag([6.0, 6, 40, 1])), folder / f"without-{name}.nii")
    grey = np.clip((scan.values[3].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint16)
    Image.fromarray(grey * 257).save(folder / "without-depth.png")


def _pack(archive: Path, files: list[Path]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            packed.write(path, path.name)


def _write_headers(slices: list[Path], folder: Path) -> None:
    """Write a slice with text in each kind of character set and with odd values, and slices that disagree."""
    for kind, (character_set, name) in NAMES.items():
        _change(
            slices[3],
            folder / f"header-{kind}.dcm",
            {"SpecificCharacterSet": character_set} | dict.fromkeys(NAMED, name),
        )
    for kind, values in ODD_HEADERS.items():
        _change(slices[3], folder / f"header-{kind}.dcm", values)
    pieces = [slices[0].parent / f"piece-{number}.dcm" for number in range(3)]
    for number, piece in enumerate(pieces):
        names = dict.fromkeys(("SeriesInstanceUID", "FrameOfReferenceUID"), b"1.2.3.%d " % number)
        _change(slices[number], piece, names)
    _pack(folder / "header-pieces.zip", pieces)


def _change(source: Path, target: Path, values: Mapping[str, bytes | None]) -> None:
    """Copy a DICOM file with these bytes as values; None removes an attribute."""
    data = dcmread(source)
    for keyword, value in values.items():
        tag = Tag(keyword)
        representation = data[tag].VR if tag in data else dictionary_VR(tag).replace("US or SS", "SS")
        data.pop(tag, None)
        if value is not None:
            padded = value + b" " * (len(value) % 2)
            data[tag] = RawDataElement(tag, representation, len(padded), padded, 0, False, True)
    save_unchanged(data, target)


def save_unchanged(data: Dataset, target: Path | BinaryIO) -> None:
    """Write a dataset with the bytes of its text as they are, whatever character set it states."""
    element = data.get(Tag("SpecificCharacterSet"))
    codecs = convert_encodings(element.value) if element else default_encoding
    is_implicit, is_little_endian = data.original_encoding
    data.set_original_encoding(is_implicit, is_little_endian, codecs)
    data.save_as(target)


def _write_frames(scan: Scan, folder: Path) -> None:
    """Write multi-frame files: parts of a concatenation, frames between each other, and JPEG Lossless."""
    names = {"SeriesInstanceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3.1", "FrameOfReferenceUID": "1.2.3.2"}
    parts = []
    for number in (1, 2):
        affine = scan.geometry.affine_lps.copy()
        affine[:, 3] = affine @ [number - 1, 0, 0, 1]
        affine[:, 0] *= 2
        values = scan.values[number - 1 :: 2]
        stated = {"ConcatenationUID": "1.2.3.5", "InConcatenationNumber": number, "InConcatenationTotalNumber": 2}
        path = folder / "series" / f"part-{number}.dcm"
        parts.append(write_enhanced(Scan(values, Geometry(values.shape, affine)), path, **names, **stated))
    _pack(folder / "frames-parts.zip", parts)
    data = dcmread(write_enhanced(scan, folder / "frames-lossless.dcm"))
    pack_lossless(data, data.pixel_array, folder / "series")
    data.save_as(folder / "frames-lossless.dcm")
    data = dcmread(folder / "j.dcm")
    pack_lossless(data, data.pixel_array[None], folder / "series")
    data.save_as(folder / "lossless.dcm")


def pack_lossless(data: Dataset, frames: NDArray[np.uint16], folder: Path) -> None:
    """Replace the pixels of an instance by the same ones as JPEG Lossless, which GDCM encodes."""
    path = folder / "packed.dcm"
    packed: list[bytes] = []
    for frame in frames:
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.SetFileName(str(path))
        writer.Execute(SimpleITK.GetImageFromArray(frame[None]))
        packed += generate_frames(dcmread(path).PixelData, number_of_frames=1)
    data.PixelData = encapsulate(packed)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1


def _write_lists(folder: Path) -> None:
    """Write lists of cases as programs and spreadsheets do, and dataset.json files in all of their forms."""
    rows = (
        ("scan", "case", "image", "mask", "patient", "labels", "unrelated_slices"),
        (IMAGE, "Müller 1", IMAGE, MASK, "Ünal, Ö", "lesion=1+2 ignore=3", "no"),
        (OTHER, "", OTHER, MASK, "", "ground-glass=1", "yes"),
    )
    for name, separator, end, encoding in (
        ("list-comma.csv", ",", "\n", "utf_8"),
        ("list-semicolon.csv", ";", "\r\n", "cp1252"),
        ("list-tab.csv", "\t", "\r", "utf_16"),
        ("list-stated.csv", "|", "\r\n", "utf_8_sig"),
    ):
        lines = [separator.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows]
        head = ["sep=|"] if name == "list-stated.csv" else []
        (folder / name).write_bytes(end.join([*head, *lines, ""]).encode(encoding))
    for kind, labels in {
        "names": {"background": 0, "ground-glass": 1, "consolidation": [2, 3], "lung": 4},
        "numbers": {"0": "background", "1": "infection", "2": "left lung"},
        "sequence": ["background", "lesion"],
    }.items():
        content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
        (folder / f"dataset-{kind}.json").write_text(json.dumps(content, indent=1))
