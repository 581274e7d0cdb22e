"""Compare the results of two versions of the program bit for bit.

    python bench/same_results.py record INPUT... -o before.json     # with one version installed
    python bench/same_results.py record INPUT... -o after.json      # with the other
    python bench/same_results.py compare before.json after.json     # exit code 1 where anything differs

`record` segments every input with `groundglass segment` and keeps one entry for each part of the result: voxels and
affine of the mask, findings without times and version, pixels of the preview, text and pictures of the report, and the
datasets of DICOM SEG and SR without the UIDs, dates and versions that change with every run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from PIL import Image

PROGRAM = "from groundglass.cli import main; main()"
CHANGES_WITH_EVERY_RUN = re.compile(
    r"UID$|Date$|Time$|DateTime$|SoftwareVersions$|ManufacturerModelName$|DeviceSerialNumber$"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("inputs", nargs="+", type=Path)
    record.add_argument("-o", "--output", type=Path, required=True)
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "record":
        record_results(arguments.inputs, arguments.output)
    else:
        sys.exit(compare_results(arguments.before, arguments.after))


def record_results(inputs: list[Path], output: Path) -> None:
    """Segment every input and write the digests of its results."""
    results = {}
    for source in inputs:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", PROGRAM, "segment", str(source), "-o", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            parts = {
                "exit code": done.returncode,
                "last line of stderr": (done.stderr.strip().splitlines() or [""])[-1],
            }
            results[source.name] = parts | dict(digests(Path(folder)))
        print(source.name, len(results[source.name]), "parts", flush=True)
        output.write_text(json.dumps(results, indent=1))


def compare_results(before: Path, after: Path) -> int:
    """Print the parts that differ between two recordings; return the exit code."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    differing = 0
    for name in sorted(old.keys() | new.keys()):
        old_parts, new_parts = old.get(name, {}), new.get(name, {})
        parts = [part for part in sorted(old_parts | new_parts) if old_parts.get(part) != new_parts.get(part)]
        differing += bool(parts)
        print(f"{name}: {'differs in ' + ', '.join(parts) if parts else f'{len(old_parts)} parts equal'}")
    print(f"{len(old)} inputs, {differing} differ")
    return int(differing > 0)


def digests(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield (part, sha256 or value) of everything that `segment` wrote."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.endswith(".nii.gz"):
            image = nibabel.Nifti1Image.from_filename(path)
            yield f"{name} voxels", array_digest(np.asarray(image.dataobj))
            yield f"{name} affine", np.round(image.affine, 9).tolist()
        elif path.suffix == ".png":
            yield f"{name} pixels", array_digest(np.asarray(Image.open(path)))
        elif path.suffix == ".dcm":
            dataset = pydicom.dcmread(path)
            pixels = dataset.PixelData if "PixelData" in dataset else None
            if pixels is not None:
                del dataset.PixelData
            yield f"{name} header", text_digest("\n".join(attribute_lines(dataset)))
            if pixels is not None:
                yield f"{name} pixels", hashlib.sha256(pixels).hexdigest()
        elif path.name == "findings.json":
            findings = json.loads(path.read_text())
            for key in sorted(findings.keys() - {"seconds", "version"}):
                yield f"{name} {key}", text_digest(json.dumps(findings[key], sort_keys=True))
        elif path.suffix == ".html":
            yield from report_digests(name, path.read_text())


def report_digests(name: str, html: str) -> Iterator[tuple[str, str]]:
    """Yield digests of the visible words, the pictures and the charts of a report, whatever their tags."""
    parser = ReportParser()
    parser.feed(html)
    yield f"{name} words", text_digest(" ".join(" ".join(parser.words).split()))
    yield f"{name} slices", text_digest(json.dumps(json.loads(parser.slices), sort_keys=True))
    yield f"{name} pictures", text_digest("\n".join(parser.pictures))


class ReportParser(HTMLParser):
    """Collects the words, pictures and charts that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.pictures: list[str] = []
        self.slices = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a picture or a part of a chart."""
        attributes = dict(attrs)
        self._inside = "slices" if attributes.get("type") == "application/json" else tag
        if tag in ("img", "rect", "polyline", "line"):
            self.pictures.append(f"{tag} {sorted((key, value or '') for key, value in attributes.items())}")

    def handle_data(self, data: str) -> None:
        """Collect visible words and the slices of the viewer."""
        if self._inside == "slices":
            self.slices += data
        elif self._inside not in ("style", "script"):
            self.words.append(data)


def attribute_lines(dataset: pydicom.Dataset, depth: int = 0) -> Iterator[str]:
    """Yield the attributes of a dataset and of its sequences, except for those that change with every run."""
    for element in dataset:
        if CHANGES_WITH_EVERY_RUN.search(element.keyword) and element.keyword != "ReferencedSOPInstanceUID":
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield f"{depth} {element.keyword}"
                yield from attribute_lines(item, depth + 1)
        else:
            yield f"{depth} {element.keyword} {element.value!r}"


def array_digest(array: np.ndarray[Any, Any]) -> str:
    """Hash an array with its type and shape."""
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def text_digest(text: str) -> str:
    """Hash a text."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
