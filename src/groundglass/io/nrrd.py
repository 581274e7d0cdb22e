"""NRRD in."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from groundglass.errors import FormatError
from groundglass.io.limits import check_stored, file_size, plain_values, shown
from groundglass.io.metaimage import check_inside, check_shape, header_fields, lps_geometry, text_header
from groundglass.scan.scan import Scan


def read_nrrd(path: Path) -> Scan:
    """Read a NRRD with its voxels inside (.nrrd), whatever its name.

    Raises:
        FormatError: The file is damaged, cut short, too large, coloured, 4-D, without a usable grid, or no CT.
    """
    name = shown(path)
    text, start = text_header(path, b"\n")
    fields = header_fields(text, ":")
    check_inside(name, fields.get("data file", fields.get("datafile")))
    if any("\ud800" <= c <= "\udfff" for c in str(path)):  # ITK would end the whole program
        raise FormatError(f"the path of {name} is not UTF-8, expected one that ITK can open: rename it")
    sitk: Any = import_module("SimpleITK")  # here, for a quick start of the program
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        check_shape(name, tuple(reader.GetSize()), reader.GetNumberOfComponents())
        bits = sitk.GetPixelIDValueAsString(reader.GetPixelID()).split("-")[0]
        claimed = int(np.prod(reader.GetSize())) * int(bits) // 8
        check_stored(name, claimed, file_size(path) - start, fields.get("encoding", "raw").lower() != "raw")
        image = reader.Execute()
    except (RuntimeError, OverflowError, MemoryError, ValueError):
        raise FormatError(f"{name} is damaged or cut short: ITK cannot read it; copy or download it again") from None
    geometry = lps_geometry(name, image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    return Scan(plain_values(name, sitk.GetArrayFromImage(image).reshape(geometry.shape)), geometry, path)
