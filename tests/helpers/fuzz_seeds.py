"""A small intact file for each format that `read_scan` reads: the files that fuzzing damages."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.dicom_phantom import write_enhanced, write_series


def write_seeds(folder: Path) -> list[Path]:
    """Write the files into a folder, and return their paths in the order of their names."""
    scan = chest_phantom(shape=(6, 48, 64)).scan
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
    with zipfile.ZipFile(folder / "k.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in slices:
            archive.write(path, path.name)
    shutil.rmtree(folder / "series")
    return sorted(folder.iterdir())
