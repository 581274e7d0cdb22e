"""The numbers in a mask: which of them are lesion, and of which class.

The labels that groundglass stores are 0 for no lesion, `CLASS_LABELS`, and `UNSTATED`. What the numbers of a mask mean
is stated, in descending order of precedence, by the option --labels, by the column `labels` of a CSV, by the layout of
a public dataset, or by a file beside the masks (`label_files`), such as the dataset.json of nnU-Net and of the Medical
Segmentation Decathlon. Without any of them a mask holds 0 and 1, 0 and 255, or groundglass's own labels.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundglass.errors import ConfigError, DatasetError
from groundglass.files import read_file
from groundglass.strict_model import StrictModel

CLASS_LABELS = {"ground-glass": 1, "consolidation": 2, "effusion": 3}
UNSTATED = 4  # label of lesions whose class the reference does not state
NO_LESION = 0
# The names of --labels.
LABEL_NAMES = {"lesion": UNSTATED, **CLASS_LABELS, "ignore": NO_LESION}
LARGEST_VALUE = 65535  # in a mask
LAYER = 256  # added to the numbers of each further layer of a mask whose segments overlap
_ITEM = re.compile(r"([a-z-]+)=(\d+(?:[,+]\d+)*)")
_EXAMPLE = "lesion=2, or ground-glass=1 consolidation=2 ignore=3"

# The words of a name, without accents, in English and other languages of public sets. A name with none of them, or with
# a negation beside a lesion, is not understood.
_LESION = re.compile(
    r"infe[ckz]|lesio|lasion|lesao|lesoes|covid|sars|neumon|opaci|infiltrat|crazy.?paving|inflam|entzund|polmonit"
    r"|感染|病灶|病变|病変|肺炎|감염|병변"
)
_GROUND_GLASS = re.compile(r"glass|\bggos?\b|milchglas|verre depoli|vidrio|vetro smerigliato|vidro|玻璃|磨砂")
_CONSOLIDATION = re.compile(r"[ck]onsolid|实变|硬化影|浸潤影")
_EFFUSION = re.compile(r"effusion|pleural fluid|erguss|epanchement|derrame|versamento|积液|胸水")
_NEGATION = re.compile(
    r"\b(no|non|not|without|free|negative|healthy|normal|excluding|except|minus)\b|\b(un|non)(infect|affect|lesion|inflam)"
    r"|\b(ohne|keine?|nicht|gesunde?|sans|pas|sain|sin|sano|senza|sem)\b|无|無|未|非|正常"
)
_BACKGROUND = re.compile(
    r"(background|back ground|bg|none|nothing|empty|unlabel+ed|clear label|hintergrund|fond|fondo|sfondo|fundo|背景"
    r"|배경)"
)
_NORMAL_ANATOMY = re.compile(
    r"(lungs?|lobes?|lingula|healthy|normal|parenchyma|airways?|trachea|bronchus|bronchi|bronchial|vessels?|arter(y|ies)"
    r"|veins?|aorta|heart|body|mediastinum|oesophagus|esophagus|thyroid|liver|stomach|spleen|kidneys?|spine|vertebrae?"
    r"|bones?|ribs?|sternum|muscles?|fat|skin|diaphragm|thorax|chest|outside|air|table"
    r"|lungen?|lungenlappen|poumons?|pulmon(es)?|polmon[ei]|pulmao|pulmoes|[左右]?肺(叶|野|部|实质)?|폐)"
)
_BESIDE_ANATOMY = re.compile(
    r"(left|right|upper|middle|lower|l|r|pulmonary|tissue|tree|wall|both|whole|all|the|of|and|in|field|mask|region|area|\d+"
    r"|linke[rs]?|rechte[rs]?|gauche|droite?|izquierdo|derecho|sinistro|destro|esquerdo|direito)"
)
_ONLY_FOREGROUND = re.compile(r"foreground|fg|mask|target|roi|object|label|segmentation|positive")


class MaskLabels(StrictModel):
    """What the numbers of a mask mean.

    Attributes:
        stated_by: Where this is stated: --labels, a file or a layout.
        values: (number, label) of every number but 0 that has a meaning; the label `NO_LESION` is no lesion.
        others_are_no_lesion: Whether numbers that are not listed are no lesion; otherwise they are refused.
    """

    stated_by: str
    values: tuple[tuple[int, int], ...]
    others_are_no_lesion: bool = False

    @property
    def text(self) -> str:
        """The labels as --labels and the column `labels` of a CSV take them."""
        names = {label: name for name, label in LABEL_NAMES.items()}
        numbers: dict[str, list[int]] = {}
        for value, label in self.values:
            numbers.setdefault(names[label], []).append(value)
        return " ".join(f"{name}={'+'.join(map(str, found))}" for name, found in numbers.items())

    def translate(self, mask: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Return the labels of a mask of whole numbers, and the numbers in it that are not listed and not 0."""
        labels = np.zeros(mask.shape, dtype=np.uint8)
        for value, label in self.values:
            labels[mask == value] = label
        known = {0, *(value for value, _ in self.values)}
        return labels, tuple(value for value in map(int, np.unique(mask)) if value not in known)


def parse_labels(items: Iterable[str], stated_by: str) -> MaskLabels:
    """Parse `lesion=2`, `ground-glass=1`, `ignore=3,4`; numbers that are not named are no lesion.

    Args:
        items: Texts of one or several such items with blanks or semicolons between them.
        stated_by: Where they are stated.

    Raises:
        ConfigError: An item has another form, a number has two meanings, or no number is lesion.
    """
    values: dict[int, int] = {}
    texts = (re.sub(r" ?([=,+]) ?", r"\1", " ".join(text.lower().split())) for text in items)
    for item in (part for text in texts for part in re.split(r"[\s;]+", text) if part):
        match = _ITEM.fullmatch(item)
        if not match or match[1] not in LABEL_NAMES:
            raise ConfigError(
                f"{stated_by}: {item!r} is no label: expected {', '.join(LABEL_NAMES)} and the numbers in the mask, "
                f"such as {_EXAMPLE}"
            )
        for value in map(int, re.split(r"[,+]", match[2])):
            if not 1 <= value <= LARGEST_VALUE:
                raise ConfigError(f"{stated_by}: {item!r}: 0 is always no lesion; expected 1 to {LARGEST_VALUE}")
            if values.setdefault(value, LABEL_NAMES[match[1]]) != LABEL_NAMES[match[1]]:
                raise ConfigError(f"{stated_by}: {value} has two meanings: name each number once")
    if not any(values.values()):
        raise ConfigError(f"{stated_by}: no number is lesion: expected such as {_EXAMPLE}")
    return MaskLabels(stated_by=stated_by, values=tuple(values.items()), others_are_no_lesion=True)


def label_of_name(name: str) -> int | None:
    """Return the label of a structure by its name; None if the name does not say whether it is lesion."""
    words = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", words))  # leftLung
    words = " ".join(re.split(r"[\s_/.,()-]+", words.strip().lower())).strip()
    words = re.sub(r"^(left|right)(lung)", r"\1 \2", words)
    if _BACKGROUND.fullmatch(words):
        return NO_LESION
    classes = {
        CLASS_LABELS[class_name]
        for class_name, pattern in (
            ("ground-glass", _GROUND_GLASS),
            ("consolidation", _CONSOLIDATION),
            ("effusion", _EFFUSION),
        )
        if pattern.search(words)
    }
    if classes or _LESION.search(words):
        if _NEGATION.search(words):
            return None
        return classes.pop() if len(classes) == 1 else UNSTATED
    others = [word for word in words.split() if not _BESIDE_ANATOMY.fullmatch(word)]
    return NO_LESION if others and all(map(_NORMAL_ANATOMY.fullmatch, others)) else None


def read_dataset_json(path: Path) -> MaskLabels | None:
    """Read the labels of a dataset.json; None if it states none.

    It holds {"background": 0, "infection": 2} or {"0": "background", "2": "infection"}; in the former a name may have
    several numbers, and a number several names. A number is lesion if any of its names is.

    Raises:
        DatasetError: The file is damaged, or it is not known what one of its names means.
    """
    try:
        content = json.loads(read_file(path).decode("utf-8-sig"))
        labels = content["labels"] if isinstance(content, dict) and "labels" in content else None
        names = {} if labels is None else _names_of_numbers(labels)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"{path} cannot be read ({type(error).__name__}): expected JSON with labels such as "
            '{"labels": {"background": 0, "infection": 1}}; correct it, or state the labels with --labels lesion=1'
        ) from error
    return labels_of_names(path, names)


def labels_of_names(path: Path, names: Mapping[int, Sequence[str]]) -> MaskLabels | None:
    """Return the labels of numbers by the names of the structures that they stand for; None without a name.

    Args:
        path: The file that states them.
        names: {number in the mask: its names}.

    Raises:
        DatasetError: It is not known what one of the names means.
    """
    names = {value: structures for value, structures in names.items() if value}
    if not names:
        return None
    values = {value: _label_of_names(structures, len(names) == 1) for value, structures in names.items()}
    stated = tuple((value, label) for value, label in values.items() if label is not None)
    unclear = [value for value, label in values.items() if label is None]
    if unclear:
        known = MaskLabels(stated_by="", values=tuple(pair for pair in stated if pair[1])).text
        shown = ", ".join(f"{value} {names[value][0]!r}" for value in unclear)
        example = [f"lesion={unclear[0] if len(unclear) == 1 else 'NUMBER'}"]
        mend = " ".join(f"--labels {item}" for item in (known.split() or example))
        raise DatasetError(
            f"{path} names the label{'s' if len(unclear) > 1 else ''} {shown}, which may be lesion or not: state the "
            f"labels that are lesion, such as {mend}; all others are no lesion then"
        )
    if not any(values.values()):
        listed = ", ".join(f"{value} {' and '.join(structures)}" for value, structures in names.items())
        raise DatasetError(
            f"{path} names no lesion ({listed}): expected a label such as infection, ground-glass or consolidation; "
            "state which one is lesion, such as --labels lesion=1"
        )
    return MaskLabels(stated_by=str(path), values=stated)


def _label_of_names(structures: Sequence[str], is_only_one: bool) -> int | None:
    """Return the label of a number by its names; None if they do not say whether it is lesion."""
    if is_only_one and _ONLY_FOREGROUND.fullmatch(structures[0].strip().lower()):
        return UNSTATED
    meanings = [label_of_name(structure) for structure in structures]
    lesions = {label for label in meanings if label}
    if not lesions:
        return None if None in meanings else NO_LESION
    classes = lesions - {UNSTATED}
    return classes.pop() if len(classes) == 1 else UNSTATED


def _names_of_numbers(labels: Any) -> dict[int, list[str]]:
    """Return {number in the mask: its names} for the labels of a dataset.json, in any of its forms.

    Raises:
        ValueError: They have another form.
    """
    if isinstance(labels, list):  # the number is the place in the list
        labels = {str(number): name for number, name in enumerate(labels)}
    if not isinstance(labels, Mapping):
        raise ValueError("no mapping")
    names: dict[int, list[str]] = {}
    by_number = bool(labels) and all(re.fullmatch(r"\s*\d+\s*", key) for key in labels)
    for key, content in labels.items():
        pairs = (
            [(key, content)] if by_number else [(n, key) for n in (content if isinstance(content, list) else [content])]
        )
        for number, name in pairs:
            if isinstance(number, bool) or isinstance(name, list | dict) or int(number) != float(number):
                raise ValueError("no number")
            if not 0 <= int(number) <= LARGEST_VALUE:
                raise ValueError("out of range")
            names.setdefault(int(number), []).append(str(name))
    return names


def describe(labels: MaskLabels) -> str:
    """Describe on one line which numbers of a mask are lesion."""
    lesion = [str(value) for value, label in labels.values if label]
    others = [str(value) for value, label in labels.values if not label]
    text = f"{labels.stated_by}: label{'s' if len(lesion) > 1 else ''} {', '.join(lesion)} taken as lesion"
    return text + (f", {', '.join(others)} as no lesion" if others else "") + f" ({labels.text})"
