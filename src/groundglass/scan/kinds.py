"""The choices that a user may name on the command line. Light, so that `--help` loads nothing else."""

from __future__ import annotations

from enum import StrEnum


class IntensityKind(StrEnum):
    """What a scan's numbers are."""

    HU = "hu"
    SHIFTED_HU = "shifted-hu"
    LUNG_WINDOW_8BIT = "8-bit-lung-window"
    UNIT = "unit-lung-window"


class FieldOfView(StrEnum):
    """What the network sees of a slice: the lung field, or the whole slice as in the paper."""

    LUNGS = "lungs"
    SLICE = "slice"
