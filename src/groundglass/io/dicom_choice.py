"""Choose one of the DICOM series of an input, and name it and the others for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from groundglass.errors import FormatError
from groundglass.io.dicom_directory import note_on_absent
from groundglass.io.dicom_header import text_value
from groundglass.io.dicom_join import is_alike
from groundglass.io.dicom_options import DicomOptions
from groundglass.io.dicom_series import ImageSeries, SeriesListing
from groundglass.io.other_files import list_losses

_FEWEST_PIECES = 3  # images with a series each: from here on they are taken for a scan in pieces


def choose_series(name: str, listing: SeriesListing, options: DicomOptions) -> ImageSeries:
    """Return the series that the user named, or else the one of the highest rank.

    Raises:
        FormatError: There is none, or the name fits several, or slices of one scan lie in series that do not fit.
    """
    if options.series is not None:
        return _series_named(name, listing, options.series, options.with_identity)
    best = listing.series[0]
    if not is_accepted(best, options):
        available = "; ".join(series.name(options.with_identity) for series in listing.series[:5])
        hint = " (--force-modality reads it all the same)" if best.can_be_forced else ""
        raise FormatError(f"{name} holds no CT series but series {available}; give the CT itself{hint}")
    pieces = [series for series in listing.series if series.is_offered and len(series.uids) == len(series.slices)]
    like_best = [series for series in pieces if len(best.slices) == len(series.slices) == 1 or is_alike(series, best)]
    count = sum(len(series.slices) for series in like_best)
    if best in pieces and len(like_best) > 1 and count >= _FEWEST_PIECES:
        listed = "; ".join(series.name(options.with_identity) for series in like_best[:5])
        more = f"; and {len(like_best) - 5} more" if len(like_best) > 5 else ""
        raise FormatError(
            f"{name} holds {count} images with a series each, which do not fit together to one scan (in patient, "
            "study, frame of reference, series number, description, matrix, orientation or kernel): export the scan as "
            f"one series, or name one of these with --series: {listed}{more}"
        )
    return best


def describe_choice(listing: SeriesListing, series: ImageSeries, options: DicomOptions) -> str | None:
    """Say which series was chosen and which others are there; None if there are no others."""
    others = [other for other in listing.series if other is not series and other.is_offered]
    if not others:
        return None
    names = [other.name(options.with_identity) for other in others]
    listed = "; ".join(names[:5]) + (f"; and {len(names) - 5} more" if len(names) > 5 else "")
    patients = {text_value(one.header, "PatientID") for one in (series, *others)} - {""}
    owners = f", of {len(patients)} patients by their IDs" if len(patients) > 1 else ""
    chosen = series.name(options.with_identity)
    return f"series {chosen} was chosen; others there{owners}: {listed} (--series NUMBER takes another)"


@contextmanager
def naming_the_choice(listing: SeriesListing, series: ImageSeries, options: DicomOptions) -> Iterator[None]:
    """Add to a refusal what may be lost of the series, which one was chosen and which others are there."""
    try:
        yield
    except FormatError as error:
        losses = list_losses(listing.others)
        added = [f"left out: {losses}"] if losses else []
        added += note_on_absent(listing.absent, series.uids)
        added += filter(None, [describe_choice(listing, series, options)])
        raise (FormatError("; ".join([str(error), *added])) if added else error) from None


def is_accepted(series: ImageSeries, options: DicomOptions) -> bool:
    """Return whether a series may be read: plain CT, or what the user has read as CT."""
    return series.rejection_reason is None or (options.force_modality and series.can_be_forced)


def _series_named(name: str, listing: SeriesListing, wanted: str, with_identity: bool = False) -> ImageSeries:
    """Return the series of this number or UID, or whose UID ends so.

    Args:
        name: Name of the input, for messages.
        listing: The series that are there.
        wanted: Series number with its letter if it has one, UID, or the end of a UID.
        with_identity: Whether the message may hold descriptions.

    Raises:
        FormatError: There is none, or there are several.
    """
    wanted = wanted.strip()
    for matching in (
        [series for series in listing.series if wanted in series.uids],
        [series for series in listing.series if series.label == wanted.lower()],
        [series for series in listing.series if str(series.number) == wanted and series.is_offered],
        [series for series in listing.series if str(series.number) == wanted],
        [series for series in listing.series if any(uid.endswith(wanted) for uid in series.uids)],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            break
    offered = [series for series in listing.series if series.is_offered] or listing.series
    available = "; ".join(series.name(with_identity) for series in matching or offered)
    count = len(matching) or "no"
    raise FormatError(f"{name} holds {count} series of number or UID {wanted}, expected one of: {available}")
