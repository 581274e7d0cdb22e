"""The layouts of dataset folders, public ones as their publishers ship them and others: the cases in a folder.

tr_im.nii.gz, tr_mask.nii.gz              MedSeg dataset 1 as published: a stack of 100 slices of different patients
rp_im/, rp_msk/                           MedSeg dataset 2 as published: nine volumes
images/, masks/                           pairs with equal names; if called NNN.png, MedSeg dataset 1 as pictures
ct/, lesion/                              coronacases
imagesTr/, labelsTr/                      nnU-Net (NAME_0000.nii.gz and NAME.nii.gz) and the Segmentation Decathlon
COVID-19-CT-Seg_20cases/, Infection_Mask/ Ma et al., Zenodo 3757476; ct_scans/, infection_mask/ as on Kaggle
studies/CT-1/, masks/NAME_mask            MosMedData COVID19_1110, of which 50 studies have a mask
volume-covid19-A-N_ct, _seg               COVID-19-20
NAME, NAME_mask (_seg, _label, _lesion)   pairs in one folder; NAME_ct and NAME_seg, ct_NAME and mask_NAME, too
ct, mask                                  a pair in the folder of its patient
sub-01/, derivatives/                     BIDS (`bids`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from groundglass.data.bids import cases_of_subjects, subject_of
from groundglass.data.case import PICTURE_SUFFIXES, SCAN_SUFFIXES, Case, identifier_of
from groundglass.data.labels import CLASS_LABELS, NO_LESION, UNSTATED, MaskLabels, label_of_name
from groundglass.errors import DatasetError
from groundglass.files import read_file

# Volumes 2 and 3 are series of one patient (study 10_85902), 6 and 7 probably are (29_86490 and 29_86491): each pair
# stays in one part of a split.
SAME_PATIENT = {"2": "2+3", "3": "2+3", "6": "6+7", "7": "6+7"}
# Folder of the images, folder of the masks, source.
PAIRED_FOLDERS = (
    ("images", "masks", "pairs"),
    ("rp_im", "rp_msk", "volumes"),
    ("ct", "lesion", "coronacases"),
    ("imagesTr", "labelsTr", "pairs"),
)
# Other names of such folders, in lower case and without signs; where a dataset has several of them, the first counts.
IMAGE_FOLDERS = (
    *("covid19ctseg20cases", "ctscans", "ctscan", "studies", "images", "image", "imgs", "img"),
    *("cts", "ct", "ctimages", "scans", "scan", "volumes", "frames", "frame", "slices", "ctslices", "originals"),
)
LESION_FOLDERS = (
    *("infectionmask", "infectionmasks", "infection", "infections", "lesionmask", "lesionmasks", "lesions", "lesion"),
)
MASK_FOLDERS = (
    *LESION_FOLDERS,
    *("masks", "mask", "labels", "label", "segmentations", "segmentation", "segs", "seg", "annotations", "annotation"),
    *("groundtruth", "msks", "msk", "targets", "target", "labelmaps", "labelmap", "rois", "roi"),
    *("gt", "lungandinfectionmask", "lungandinfectionmasks"),
)
LUNG_FOLDERS = ("lungmask", "lungmasks", "lungs", "rplungmsk")
# In Lung_and_Infection_Mask 1 is the left lung, 2 the right one, 3 infection; the other mask is 0 and 1.
LUNG_AND_INFECTION = MaskLabels(
    stated_by="Lung_and_Infection_Mask", values=((1, NO_LESION), (2, NO_LESION), (3, UNSTATED))
)
# In CC-CCII 1 is the lung, 2 ground-glass, 3 consolidation; it calls the folder of both parts so.
CC_CCII_FOLDER = "ct_lesion_seg"
CC_CCII = MaskLabels(
    stated_by=CC_CCII_FOLDER,
    values=((1, NO_LESION), (2, CLASS_LABELS["ground-glass"]), (3, CLASS_LABELS["consolidation"])),
)

_MASK_WORDS = r"(?:(?:infection|lesion|covid)[ _-]?)?(?:mask|seg|segmentation|label|lesion|infection|annotation|gt)s?"
_IMAGE_WORDS = ("ct", "image", "imaging", "img", "scan", "volume")
_MASK_NAME = re.compile(rf"(.+?)[ _-]{_MASK_WORDS}$", re.IGNORECASE)
_MASK_FIRST = re.compile(rf"{_MASK_WORDS}([ _-])(.+)", re.IGNORECASE)
_BARE_MASK = re.compile(rf"{_MASK_WORDS}(_seg)?", re.IGNORECASE)
_DATASET1_PICTURE = re.compile(r"\d{3}\.png")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
# A study of Radiopaedia may have several series: 10_85902_1 and 10_85902_3 are one patient, as is case 29.
_RADIOPAEDIA_CASE = re.compile(r"radiopaedia_\d+(?=_)")


def cases_in(folder: Path, on_note: Callable[[str], None]) -> Iterator[Case]:
    """Yield the cases of every layout that a folder itself holds.

    Args:
        folder: The folder.
        on_note: Called with a sentence on what was left out.

    Raises:
        DatasetError: An image has no mask, or there are masks of the lungs alone.
    """
    if (folder / "tr_im.nii.gz").is_file():
        image, mask = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
        if not mask.is_file():
            raise DatasetError(f"{image} has no mask: expected {mask}")
        yield Case("stack/tr", "stack/tr", image, mask, unrelated_slices=True)
    known = [
        (folder / images, folder / masks, source)
        for images, masks, source in PAIRED_FOLDERS
        if (folder / images).is_dir() and (folder / masks).is_dir()
    ]
    subfolders = _subfolders(folder)
    names_lesions = not subfolders.keys().isdisjoint(LESION_FOLDERS)
    if names_lesions and not any(_plain(masks.name) in LESION_FOLDERS for _, masks, _ in known):
        known = []  # masks in a folder beside it are of something else, such as lungs
    for images, masks, source in known or _folders_of_other_names(folder, subfolders):
        unread = [name for name in MASK_FOLDERS if name in subfolders and subfolders[name] != masks]
        unread = [subfolders[name].name for name in unread if "lungandinfection" not in name]
        if unread:
            on_note(
                f"masks are those in {masks}; not read: the folder{'s' if len(unread) > 1 else ''} {', '.join(unread)}"
            )
        yield from _cases_of_paired_folders(images, masks, source, on_note)
    yield from _cases_of_named_pairs(folder, on_note)
    yield from cases_of_subjects(folder, lambda image, masks: _mask_of_lesions(image, masks, on_note), on_note)


def scans_in(folder: Path) -> dict[str, Path]:
    """Return {identifier: file} of the scans in a folder, in natural order.

    Raises:
        DatasetError: Two files differ in their format alone.
    """
    files = [
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(SCAN_SUFFIXES) and path.is_file() and not path.name.startswith(".")
    ]
    scans: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: (len(path.name), path.name)):
        first = scans.setdefault(identifier_of(path), path)
        if first is not path:
            raise DatasetError(f"{folder} holds {path.name} and {first.name}: keep one of them")
    return scans


def _scans_below(folder: Path) -> dict[str, Path]:
    """Return the scans in a folder, or else those in its subfolders, by their names or by those of the subfolders."""
    scans = scans_in(folder)
    if scans:
        return scans
    below = [scans_in(subfolder) for subfolder in sorted(folder.glob("*/")) if not subfolder.name.startswith(".")]
    files = [path for found in below for path in found.values()]
    if len({identifier_of(path) for path in files}) < len(files) and all(len(found) <= 1 for found in below):
        return {path.parent.name: path for path in files}
    is_repeated = len({identifier_of(path) for path in files}) < len(files)
    return {_in_its_folder(path) if is_repeated else identifier_of(path): path for path in files}


def _in_its_folder(path: Path) -> str:
    """Return the name of a file whose name others in other folders have too."""
    return f"{path.parent.name}-{identifier_of(path)}"


def _subfolders(folder: Path) -> dict[str, Path]:
    """Return {name in lower case and without signs: subfolder}."""
    return {_plain(path.name): path for path in sorted(folder.glob("*/"), reverse=True)}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _folders_of_other_names(folder: Path, subfolders: Mapping[str, Path]) -> Iterator[tuple[Path, Path, str]]:
    """Yield the folder of images, that of masks and the source, if the subfolders of a folder are called so.

    Raises:
        DatasetError: There are masks of the lungs alone.
    """
    images = next((name for name in IMAGE_FOLDERS if name in subfolders), None)
    masks = next((name for name in MASK_FOLDERS if name in subfolders), None)
    lungs = next((name for name in LUNG_FOLDERS if name in subfolders), None)
    if images and masks:
        source = "pairs"
        if masks.startswith(("infectionmask", "lungandinfection")) and images in IMAGE_FOLDERS[:3]:
            source = "covid-ct-seg"
        elif (images, masks) == ("studies", "masks"):
            source = "mosmed"
        yield subfolders[images], subfolders[masks], source
    elif images and lungs:
        raise DatasetError(
            f"{folder} holds masks of the lungs alone, {subfolders[lungs].name}: expected a folder of lesion masks "
            "beside it, such as Infection_Mask"
        )


def _cases_of_paired_folders(images: Path, masks: Path, source: str, on_note: Callable[[str], None]) -> Iterator[Case]:
    """Yield the cases of a folder of images and a folder of masks."""
    mask_files, image_files = _scans_below(masks), _scans_below(images)
    names = [image.name for image in image_files.values()]
    if images.name == "images" and names and all(map(_DATASET1_PICTURE.fullmatch, names)):
        source = "slices"
    labels = CC_CCII if masks.parent.name.lower() == CC_CCII_FOLDER else None
    if "lungandinfection" in re.sub(r"[^a-z]", "", masks.name.lower()):
        labels = LUNG_AND_INFECTION
    pairs = _match(image_files, mask_files)
    channel, other_channels, without_mask = _ct_channel(images.parent), 0, []
    for name, image in image_files.items():
        match = _CHANNEL.fullmatch(name) if images.name == "imagesTr" else None
        if match and name not in mask_files and match[2] != channel and match[1] in mask_files:
            other_channels += 1
            continue
        identifier = match[1] if match and name not in mask_files and match[2] == channel else name
        mask = identifier if identifier in mask_files else pairs.get(name)
        if mask is None:
            without_mask.append((identifier, image))
            continue
        if identifier != mask:
            identifier = _MASK_FIRST.sub(r"\2", _MASK_NAME.sub(r"\1", mask))
        patient = _patient(source, identifier)
        is_in_its_folder = identifier == _in_its_folder(image)
        if is_in_its_folder and image.suffix.lower() in PICTURE_SUFFIXES:  # which holds its slices
            patient = f"{source}/{image.parent.name}"
        yield Case(f"{source}/{identifier}", patient, image, mask_files[mask], labels=labels)
    if without_mask and source != "mosmed":
        identifier, image = without_mask[0]
        raise DatasetError(
            f"{image} has no mask: expected {masks / identifier}.*; add it, or take the image out"
            + advice_on_classes(mask_files.values())
        )
    if without_mask:
        on_note(f"{len(without_mask)} of {len(image_files)} images in {images} have no mask, and are left out")
    if other_channels:
        on_note(f"{other_channels} images in {images} are of other channels than {channel}, and are left out")
    if masks_alone := len(mask_files) - (len(image_files) - len(without_mask) - other_channels):
        on_note(f"{masks_alone} of {len(mask_files)} masks in {masks} have no image, and are left out")


def _match(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, str]:
    """Return {image: mask} of the names that are equal but for words such as ct, mask, and what publishers add."""
    images_of: dict[str, list[str]] = {}
    for image in images:
        images_of.setdefault(match_key(image), []).append(image)
    masks_of: dict[str, list[str]] = {}
    for mask in masks:
        masks_of.setdefault(match_key(mask), []).append(mask)
    return {
        found[0]: masks_of[key][0]
        for key, found in images_of.items()
        if len(found) == 1 and len(masks_of.get(key, ())) == 1
    }


def match_key(name: str) -> str:
    """Return what is left of a name without the words that tell an image from its mask."""
    key = re.sub(r"_org(_covid-19-pneumonia)?[-_]", "_", name.lower()).removesuffix("-dcm")  # Kaggle's names of images
    key = _MASK_NAME.sub(r"\1", key)
    key = re.sub(r"_(desc|label|space|res|acq)-[a-z0-9.]+", "", key)  # of BIDS
    key = re.sub(rf"[ _-]({'|'.join(_IMAGE_WORDS)}|0000)$", "", key)
    return re.sub(rf"^({'|'.join(_IMAGE_WORDS)}|{_MASK_WORDS})[ _-](?=.)", "", key)


def is_mask_name(name: str) -> bool:
    """Whether the name of a file without its suffix is that of a mask."""
    return any(pattern.fullmatch(name) for pattern in (_MASK_NAME, _MASK_FIRST, _BARE_MASK))


def looks_like_mask(file: Path, folder: Path) -> bool:
    """Whether the name of a file, or of a folder that it lies in below `folder`, is that of masks."""
    folders = (_plain(part) for part in file.relative_to(folder).parts[:-1])
    return is_mask_name(identifier_of(file)) or any(name in MASK_FOLDERS for name in folders)


def _ct_channel(folder: Path) -> str:
    """Return the number of the channel that dataset.json calls CT, as it ends the names of images; else 0000."""
    try:
        content = json.loads(read_file(folder / "dataset.json").decode("utf-8-sig"))
        channels = content.get("channel_names") or content.get("modality") or {}
        return next(f"{int(number):04}" for number, name in channels.items() if "ct" in str(name).lower())
    except (OSError, ValueError, AttributeError, StopIteration, RecursionError):
        return "0000"


def _patient(source: str, identifier: str) -> str:
    """Return the patient of a case as far as its name tells."""
    if source == "volumes":
        return f"{source}/{SAME_PATIENT.get(identifier, identifier)}"
    case = _RADIOPAEDIA_CASE.match(identifier) if source == "covid-ct-seg" else None
    return f"{source}/{case[0] if case else subject_of(identifier) or identifier}"


def _cases_of_named_pairs(folder: Path, on_note: Callable[[str], None]) -> Iterator[Case]:
    """Yield the cases of files in one folder whose names differ by a word such as mask.

    Raises:
        DatasetError: An image has several masks, and not one of them is called that of its lesions.
    """
    scans = scans_in(folder)
    bare = [name for name in scans if name.lower() in _IMAGE_WORDS]
    masks_of: dict[str, dict[str, str]] = {}  # {image: {mask: identifier}}
    for name in scans:
        identifier, image = _image_of_mask(name, scans)
        if image is None and _BARE_MASK.fullmatch(name) and len(bare) == 1:
            identifier, image = folder.name, bare[0]
        if image is not None:
            masks_of.setdefault(image, {})[name] = identifier
    for image, masks in masks_of.items():
        mask = _mask_of_lesions(scans[image], [scans[name] for name in masks], on_note)
        identifier = masks[identifier_of(mask)]
        source = "covid-19-20" if identifier.startswith("volume-covid19-") else "pairs"
        yield Case(f"{source}/{identifier}", _patient(source, identifier), scans[image], mask)


def _mask_of_lesions(image: Path, masks: Sequence[Path], on_note: Callable[[str], None]) -> Path:
    """Return the only mask of an image, or of several the only one whose name says that it is of lesions.

    Raises:
        DatasetError: There is no such one.
    """
    if len(masks) == 1:
        return masks[0]
    of_lesions = [mask for mask in masks if label_of_name(identifier_of(mask)) == UNSTATED]
    listed = ", ".join(mask.name for mask in masks)
    if len(of_lesions) != 1:
        raise DatasetError(
            f"{image} has several masks, {listed}: expected one of all lesions; take the others out, or name one of "
            f"them in a CSV{advice_on_classes(masks)}"
        )
    on_note(f"of the masks {listed} of {image}, {of_lesions[0].name} is read")
    return of_lesions[0]


def advice_on_classes(masks: Iterable[Path]) -> str:
    """Return how to make one mask of masks of a class each, as the end of a message; "" if none are called so."""
    names = {name for mask in masks for name in (mask.parent.name, identifier_of(mask))}
    found = {label_of_name(name) for name in names}
    one, two = CLASS_LABELS["ground-glass"], CLASS_LABELS["consolidation"]
    if not {one, two} <= found:
        return ""
    return (
        f"; each class seems to have a mask of its own: make one of them, {one} for ground-glass and {two} for "
        "consolidation, e.g. in Python with nibabel.Nifti1Image(numpy.where(numpy.asarray(consolidation.dataobj) > 0, "
        f"{two}, numpy.asarray(ggo.dataobj) > 0).astype('uint8'), ggo.affine)"
    )


def _image_of_mask(name: str, scans: Mapping[str, Path]) -> tuple[str, str | None]:
    """Return the identifier of a mask, and the name of its image; None if it has none or is no mask."""
    identifier, candidates = name, list[str]()
    if match := _MASK_NAME.fullmatch(name):
        identifier = match[1]
        candidates = [identifier, *(f"{identifier}{sign}{word}" for word in (*_IMAGE_WORDS, "0000") for sign in "_- ")]
    elif match := _MASK_FIRST.fullmatch(name):
        identifier = match[2]
        candidates = [f"{word}{match[1]}{identifier}" for word in _IMAGE_WORDS]
    names = {scan.lower(): scan for scan in scans} | {scan: scan for scan in scans}
    return identifier, next(
        (names[image] for text in candidates for image in (text, text.lower()) if image in names), None
    )
