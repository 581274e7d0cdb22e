"""Phantom series that name their patients in each kind of character set: stated rightly, wrongly or not at all."""

from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from groundglass.io.dicom_header import silence_pydicom
from groundglass.scan.scan import Scan
from helpers.dicom_phantom import write_series
from helpers.fuzz_seeds import NAMED, NAMES, save_unchanged

# {kind: (Specific Character Set (None: not stated), a name in it, the name as it is to be read)}
SETS: dict[str, tuple[bytes | None, bytes, str]] = {
    **{
        kind: (*NAMES[kind], name)
        for kind, name in {
            "western": "Müller^Jürgen",
            "cyrillic": "Люкceмбypг",
            "arabic": "قباني^لنزار",
            "thai": "สมชาย",
            "katakana": "ﾔﾏﾀﾞ^ﾀﾛｳ",
            "japanese": "Yamada^Tarou=山田^太郎=やまだ^",
            "korean": "Hong^Gildong=洪^吉洞",
            "chinese": "Zhang^XiaoDong=张^小东",
            "gb18030": "Wang^XiaoDong=王^小东",
            "unicode": "Wang^XiaoDong=王^小东",
            "unstated": "Wałęsa^L",
            "misspelt": "Müller^J",
        }.items()
    },
    "empty": (b"", "Müller^J".encode(), "Müller^J"),
    "unknown": (b"KLINGON", "Müller^J".encode("latin_1"), "Müller^J"),
    "unicode as Latin-1": (b"ISO_IR 100", "Wałęsa^L".encode(), "Wałęsa^L"),
    "Latin-1 as ASCII": (b"ISO_IR 6", "Müller^J".encode("latin_1"), "Müller^J"),
    "Japanese as Latin-1": (b"ISO_IR 100", NAMES["japanese"][1], "Yamada^Tarou=山田^太郎=やまだ^"),
    "Japanese, unstated": (None, NAMES["japanese"][1], "Yamada^Tarou=山田^太郎=やまだ^"),
    "Korean, unstated": (None, NAMES["korean"][1], "Hong^Gildong=洪^吉洞"),
    "Chinese as Unicode": (b"ISO_IR 192", "Wang=王^小东".encode("gb18030"), "Wang=\ufffd\ufffd^\u0421\ufffd\ufffd"),
}


def write_named_series(scan: Scan, folder: Path, kind: str) -> list[Path]:
    """Write a series whose texts are the name of a kind of `SETS`, in its bytes."""
    character_set, name, _ = SETS[kind]
    paths = write_series(scan, folder)
    with silence_pydicom():
        for path in paths:
            data = dcmread(path)
            for keyword in ("SpecificCharacterSet", *NAMED):
                tag = Tag(keyword)
                value = character_set if keyword == "SpecificCharacterSet" else name
                representation = data[tag].VR if tag in data else "CS" if value is character_set else "LO"
                data.pop(tag, None)
                if value is not None:
                    padded = value + b" " * (len(value) % 2)
                    data[tag] = RawDataElement(tag, representation, len(padded), padded, 0, False, True)
            save_unchanged(data, path)
    return paths
