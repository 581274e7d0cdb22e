"""Options that a user may name on the command line; without heavy imports, so that `--help` is quick."""

from __future__ import annotations

from enum import StrEnum


class IntensityKind(StrEnum):
    """Meaning of a scan's numbers."""

    HU = "hu"
    SHIFTED_HU = "shifted-hu"
    LUNG_WINDOW_8BIT = "8-bit-lung-window"
    UNIT = "unit-lung-window"


class FieldOfView(StrEnum):
    """Part of a slice that the network sees: the lung field, or the whole slice as in the paper."""

    LUNGS = "lungs"
    SLICE = "slice"
