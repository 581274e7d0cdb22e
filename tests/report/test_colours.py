"""Lungs and classes of lesions have the same colours everywhere, which are told apart."""

import base64
import io
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from groundglass.inference.pipeline import SegmentedScan
from groundglass.inference.segmenter import Segmenter
from groundglass.report.colours import CLASSES, LUNG, OTHERS, Rgb, class_colours
from groundglass.report.findings import ModelRef
from groundglass.report.level_images import draw_levels
from groundglass.report.measurement import measure
from groundglass.report.preview import draw_preview
from groundglass.report.report_page import render_report
from groundglass.scan.geometry import Geometry
from groundglass.scan.lung_field import Box, LungField
from groundglass.scan.packed_mask import PackedMask
from helpers.segmented import segmented_scan

PAGE = Path(__file__).parents[2] / "page" / "src" / "colours.ts"
NAMES = ("ground-glass", "consolidation", "effusion")
LEAST_DIFFERENCE = 30  # of CIE 1976; about 2 can just be seen side by side

# Colours as people without one kind of cones see them (Machado et al. 2009, severity 1), for linear RGB.
VISION = {
    "all cones": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.fixture(scope="module")
def three_classes() -> SegmentedScan:
    """A block of lung with three lesions side by side, each of another class."""
    shape = (12, 60, 90)
    lung, classes = np.zeros(shape, bool), np.zeros(shape, np.uint8)
    lung[:, 6:54, 6:84] = True
    for number in (1, 2, 3):
        classes[3:9, 20:40, 20 * number : 20 * number + 14] = number
    steps = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])
    field = LungField(lung, np.zeros_like(lung), (Box(0, 60, 0, 90),) * 12)
    hu = np.where(lung, -850, 40).astype(np.float32)
    segmented = segmented_scan(Geometry(shape, steps), field, classes > 0, hu)
    return replace(segmented, class_map=PackedMask.from_slices(classes))


def pixels_near(image: Image.Image, colour: Rgb) -> int:
    difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - colour)
    return int((difference.max(-1) < 30).sum())


def images_in(text: str, kind: str) -> list[Image.Image]:
    found = re.findall(rf"data:image/{kind};base64,([\w+/=]+)", text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_the_page_has_the_same_colours() -> None:
    text = PAGE.read_text(encoding="utf-8")
    triple = r"\[(\d+), (\d+), (\d+)\]"
    named = {name: (int(r), int(g), int(b)) for name, r, g, b in re.findall(rf'^ +"?([\w-]+)"?: {triple}', text, re.M)}
    others = [(int(r), int(g), int(b)) for r, g, b in re.findall(rf"^ +{triple},", text, re.M)]
    lung = re.search(rf"LUNG: Rgb = {triple}", text)
    assert named == CLASSES
    assert tuple(others) == OTHERS
    assert lung is not None
    assert tuple(map(int, lung.groups())) == LUNG


def seen(colour: Rgb, vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return L*, a*, b* of a colour as it is seen."""
    level = np.array(colour) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    changed = np.clip(vision @ linear, 0, 1)
    back = np.where(changed <= 0.0031308, 12.92 * changed, 1.055 * changed ** (1 / 2.4) - 0.055)
    return np.asarray(cv2.cvtColor(back.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0], np.float64)


@pytest.mark.parametrize("vision", VISION)
def test_classes_and_lungs_are_told_apart_with_any_colour_vision(vision: str) -> None:
    lab = [seen(colour, np.array(VISION[vision])) for colour in (*class_colours(NAMES), LUNG)]
    assert min(np.linalg.norm(one - other) for one, other in combinations(lab, 2)) > LEAST_DIFFERENCE


@pytest.mark.thorough
def test_preview_report_and_levels_show_each_class_in_its_colour(
    three_classes: SegmentedScan, grey_band: Segmenter
) -> None:
    findings = measure(three_classes, ModelRef(name="m", sha256="0" * 64), classes=NAMES)
    preview = draw_preview(three_classes, findings)
    report = render_report(three_classes, findings, None, grey_band.card)
    contours = images_in(report, "png")
    levels = [image for level in draw_levels(three_classes, findings) for image in images_in(level.image, "jpeg")]
    for name, colour in zip(NAMES, class_colours(NAMES), strict=True):
        assert pixels_near(preview, colour) > 300
        assert sum(pixels_near(image, colour) for image in contours) > 300
        assert sum(pixels_near(image, colour) for image in levels) > 20
        assert f'fill="rgb{colour}"/></svg>{name}' in report
