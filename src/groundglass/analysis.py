"""From a scan to its findings and files: the one way that the command line, batches and services take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from groundglass.errors import OutputError
from groundglass.inference.segmenter import Segmenter
from groundglass.report.findings import Findings, ModelRef, measure
from groundglass.report.preview import preview
from groundglass.scan import nifti, picture
from groundglass.scan.geometry import AxialView
from groundglass.scan.intensity import Kind, recognise
from groundglass.scan.lungs import LungField, find_lungs
from groundglass.scan.scan import Mask, Scan

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in a scan.

    Attributes:
        scan: The scan itself.
        lesions: Lesion mask on the scan's own grid.
        findings: The numbers.
        preview: A montage of the slices with most lesion.
    """

    scan: Scan
    lesions: Mask
    findings: Findings
    preview: Image.Image


class _Stopwatch:
    """Seconds per stage, in the order of the stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
