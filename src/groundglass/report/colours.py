"""Colours of lungs and lesions: the same in previews, reports and DICOM Segmentations, and on the page of the service.

They are told apart with any kind of colour vision.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundglass.report.findings import Findings

Rgb = tuple[int, int, int]

LUNG: Rgb = (95, 195, 207)
CLASSES: dict[str, Rgb] = {
    "lesion": (255, 150, 50),
    "ground-glass": (255, 150, 50),
    "consolidation": (230, 25, 85),
    "effusion": (80, 90, 235),
}
OTHERS: tuple[Rgb, ...] = ((255, 215, 60), (150, 220, 90), (200, 130, 255))  # of classes with other names, in turn


def class_colours(names: Sequence[str]) -> tuple[Rgb, ...]:
    """Return the colour of each class of lesions, in the order of their numbers in the class map."""
    return tuple(CLASSES.get(name, OTHERS[i % len(OTHERS)]) for i, name in enumerate(names))


def named_colours(findings: Findings) -> dict[str, Rgb]:
    """Return {class: its colour} in the order of the numbers in the class map; without classes, that of lesions."""
    names = [each.name for each in findings.classes] or ["lesion"]
    return dict(zip(names, class_colours(names), strict=True))
