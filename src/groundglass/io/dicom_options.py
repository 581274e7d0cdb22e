"""What a user may ask for when a DICOM series is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DicomOptions:
    """Requests of a user, each of which is optional.

    Attributes:
        series: Number of the series to read, as `info` shows it, as text or `int`, or its UID or the end of that; None:
            chosen by rule.
        acquisition: The acquisition to read, of a series that holds several; None: all of the series.
        force_modality: Read a series that is no plain CT by its header.
        by_instance_number: Order images that state no usable position by their InstanceNumber.
        with_identity: Name series by their descriptions too, which may name the patient.
    """

    series: str | None = None
    acquisition: str | None = None
    force_modality: bool = False
    by_instance_number: bool = False
    with_identity: bool = False

    def __post_init__(self) -> None:
        for name in ("series", "acquisition"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else str(value))
