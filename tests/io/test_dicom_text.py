"""Text of DICOM headers is decoded by its character set, also by one that is misspelt, missing or wrong."""

import struct
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from groundglass.io.dicom_header import silence_pydicom
from groundglass.io.dicom_legal import legal_copy
from groundglass.io.dicom_text import decode_header

YAMADA = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
HONG = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"
STANDARD = {  # the defined terms of PS3.3 C.12.1.1.2, single-byte sets by Python's codecs
    "ISO_IR 100": ("Müller^J", "latin_1"),
    "ISO_IR 101": ("Wałęsa^L", "iso8859_2"),
    "ISO_IR 109": ("Ħaż^Ġ", "iso8859_3"),
    "ISO_IR 110": ("Ķēniņš^J", "iso8859_4"),
    "ISO_IR 144": ("Люкceмбypг", "iso8859_5"),
    "ISO_IR 127": ("قباني^لنزار", "iso8859_6"),
    "ISO_IR 126": ("Διονυσιος", "iso8859_7"),
    "ISO_IR 138": ("שרון^דבורה", "iso8859_8"),
    "ISO_IR 148": ("Çavuş^Ğ", "iso8859_9"),
    "ISO_IR 203": ("Cœur^€", "iso8859_15"),
    "ISO_IR 13": ("ﾔﾏﾀﾞ^ﾀﾛｳ", "shift_jis"),
    "ISO_IR 166": ("สมชาย", "iso8859_11"),
    "ISO_IR 192": ("Wang^XiaoDong=王^小东", "utf_8"),
    "GB18030": ("Wang^XiaoDong=王^小东", "gb18030"),
    "GBK": ("Wang^XiaoDong=王^小东", "gbk"),
}


def header(character_set: bytes | None, name: bytes) -> Dataset:
    """Read a small file with a patient name of these bytes."""

    def element(tag: tuple[int, int], kind: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return struct.pack("<HH2sH", *tag, kind, len(value)) + value

    body = b"" if character_set is None else element((8, 5), b"CS", character_set)
    syntax = element((2, 0x10), b"UI", b"1.2.840.10008.1.2.1\0")
    meta = element((2, 0), b"UL", struct.pack("<I", len(syntax))) + syntax
    stream = BytesIO(bytes(128) + b"DICM" + meta + body + element((0x10, 0x10), b"PN", name))
    with silence_pydicom():
        read = dcmread(stream)
        decode_header(read)
    return read


@pytest.mark.parametrize("term", STANDARD)
def test_every_defined_term_is_decoded(term: str) -> None:
    name, codec = STANDARD[term]
    assert str(header(term.encode(), name.encode(codec)).PatientName) == name


@pytest.mark.parametrize(
    ("term", "name", "codec"),
    [
        (rb"ISO_IR 100", "O’Brien – Œuvre", "cp1252"),
        (None, "O’Brien", "cp1252"),
        (rb"\ISO 2022 IR 149", "똠^길동", "cp949"),
        (rb"ISO 2022 IR 149", "펲^길동", "cp949"),
    ],
)
def test_characters_that_windows_adds_to_a_set_are_decoded(term: bytes | None, name: str, codec: str) -> None:
    assert str(header(term, name.encode(codec)).PatientName) == name


@pytest.mark.parametrize("name", ["王\u3000小东", "क्\u200dष", "Müller\xa0J"])
def test_blanks_and_joiners_of_a_name_stay_in_what_is_written(name: str) -> None:
    assert str(legal_copy(header(b"ISO_IR 192", name.encode())).PatientName) == name


@pytest.mark.parametrize("padding", [b"", b" ", b"\0"])
def test_a_name_that_ends_in_a_set_of_two_bytes_may_be_padded(padding: bytes) -> None:
    assert str(header(rb"\ISO 2022 IR 87", b"\x1b$B;3ED" + padding).PatientName) == "山田"


@pytest.mark.parametrize("number", [100, 101, 109, 110, 144, 127, 126, 138, 148, 203, 166])
def test_every_single_byte_set_is_decoded_with_code_extensions(number: int) -> None:
    name, codec = STANDARD[f"ISO_IR {number}"]
    assert str(header(b"ISO 2022 IR %d\\ISO 2022 IR 87" % number, name.encode(codec)).PatientName) == name


@pytest.mark.parametrize(
    "term",
    [b"\\ISO 2022 IR 87", b"ISO 2022 IR 6\\ISO 2022 IR 87", b"ISO 2022 IR 87", b"ISO_IR 87", None, b"", b"ISO_IR 100"],
)
def test_japanese_is_decoded_by_its_escape_sequences(term: bytes | None) -> None:
    assert str(header(term, YAMADA).PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize("term", [b"\\ISO 2022 IR 149", b"ISO 2022 IR 149", b"ISO_IR 149", None])
def test_korean_is_decoded_by_its_escape_sequences(term: bytes | None) -> None:
    assert str(header(term, HONG).PatientName) == "Hong^Gildong=洪^吉洞=홍^길동"


def test_chinese_is_decoded_by_its_escape_sequences() -> None:
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab="
    assert str(header(b"\\ISO 2022 IR 58", name).PatientName) == "Zhang^XiaoDong=张^小东"


@pytest.mark.parametrize(
    ("term", "codec", "name"),
    [
        (b"ISO 2022 IR 87", "shift_jis", "山田^太郎"),
        (b"\\ISO 2022 IR 149", "euc_kr", "홍^길동"),
        (b"\\ISO 2022 IR 58", "gb18030", "张^小东"),
    ],
)
def test_multi_byte_text_without_escape_sequences_is_decoded(term: bytes, codec: str, name: str) -> None:
    assert str(header(term, name.encode(codec)).PatientName) == name


@pytest.mark.parametrize(
    ("term", "codec"),
    [
        *[
            (term, "utf_8")
            for term in (b"UTF-8", b"utf8", b"UTF8", b"ISO-IR 192", b"ISO IR 192", b"iso_ir_192", b"IR 192")
        ],
        *[(term, "utf_8") for term in (None, b"", b"FOO", b"ISO_IR 999", b"ISO_IR 6", b"ISO_IR 100", b"\xff\xfe")],
        *[(term, "latin_1") for term in (b"ISO_IR_100", b"iso_ir 100", b"ISO-IR 100", b"ISO 8859-1", b"latin-1")],
        *[(term, "latin_1") for term in (None, b"", b"FOO", b"hex", b"rot13", b"undefined", b"idna", b"\\\\", b"?")],
    ],
)
def test_misspelt_and_unknown_terms_are_read_as_meant(term: bytes | None, codec: str) -> None:
    assert str(header(term, "Müller^Jörg".encode(codec)).PatientName) == "Müller^Jörg"


def test_a_byte_of_a_chinese_character_is_no_separator() -> None:
    assert str(header(b"GBK", b"\x81\x5c^\xd0\xa1").PatientName) == "乗^小"


@pytest.mark.parametrize("term", [b"ISO_IR 192", b"UTF-8", b"ISO 2022 IR 87", b"GB18030"])
def test_bytes_that_do_not_fit_become_replacement_characters(term: bytes) -> None:
    name = str(header(term, b"M\xfc\xff\xffller^J").PatientName)
    assert "\N{REPLACEMENT CHARACTER}" in name
    assert name.startswith("M")


@pytest.mark.parametrize("name", [b"\x1b", b"\x1b$", b"\x1b$B", b"\x1b%/Iabc", b"A\x1b(ZB", b"\x1b$)C\xff"])
def test_broken_escape_sequences_raise_nothing(name: bytes) -> None:
    assert isinstance(str(header(b"\\ISO 2022 IR 87", name).PatientName), str)
