"""Options that a user may name on the command line; without heavy imports, so that `--help` is quick."""

from __future__ import annotations

from enum import StrEnum

from groundglass.errors import ConfigError


class IntensityKind(StrEnum):
    """Meaning of a scan's numbers."""

    HU = "hu"
    SHIFTED_HU = "shifted-hu"
    WINDOW_8BIT = "8-bit-window"
    WINDOW_UNIT = "unit-window"

    @classmethod
    def named(cls, name: str) -> IntensityKind:
        """Return the kind of a name, in capitals or not.

        Raises:
            ConfigError: There is no such kind.
        """
        try:
            return cls(name.lower())
        except (AttributeError, ValueError):
            raise ConfigError(f"the intensity is {name!r}, expected one of {', '.join(cls)}") from None

    @property
    def is_window(self) -> bool:
        """Whether the numbers are grey levels of a window in HU that the file does not state."""
        return self in (IntensityKind.WINDOW_8BIT, IntensityKind.WINDOW_UNIT)


class FieldOfView(StrEnum):
    """Part of a slice that the network sees: the lung field, or the whole slice as in the paper."""

    LUNGS = "lungs"
    SLICE = "slice"
