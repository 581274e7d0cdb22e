"""Compressed pixels: decoded in a process that may die, under limits; what ends early is refused, never filled in."""

import errno
import io
import os
import re
import signal
import struct
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openjpeg.utils import decode_pixel_data
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from groundglass.errors import FormatError
from groundglass.io import decoding
from groundglass.io.decoding import MOST_AT_ONCE, decode_frame, decode_picture, take_failure
from groundglass.io.dicom_pixels import _refusing_damage
from groundglass.io.jpeg_scans import is_complete
from groundglass.io.missing_parts import has_all_parts, is_last_part_whole
from groundglass.io.pixel_codecs import DecodeError, FrameTask, PictureTask, make_decoder
from groundglass.io.reader import read_scan
from groundglass.scan.phantom import chest_phantom
from groundglass.workers import Worker, WorkerStartError
from helpers.command import run_command
from helpers.dicom_phantom import write_series
from helpers.fuzz_seeds import pack_lossless

FUZZ = Path(__file__).parent.parent / "fuzz"
ABORTS, HANGS = FUZZ / "129-lossless.dcm", FUZZ / "177-m.dcm"  # GDCM ends its process; CharLS computes for 5 s or more
SYNTAXES = (JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000)
PLAIN = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@pytest.fixture(scope="module")
def plane() -> NDArray[np.int16]:
    """A slice with noise, so that its last pixels take bytes too."""
    values: NDArray[np.int16] = chest_phantom(shape=(6, 48, 64)).scan.values[3]
    return values + np.random.default_rng(0).integers(0, 60, values.shape).astype(np.int16)


@pytest.fixture(scope="module")
def slice_file(plane: NDArray[np.int16], tmp_path_factory: pytest.TempPathFactory) -> Path:
    scan = chest_phantom(shape=(6, 48, 64)).scan
    scan.values[3] = plane
    return write_series(scan, tmp_path_factory.mktemp("series"))[3]


def compressed(slice_file: Path, syntax: UID, folder: Path) -> tuple[Any, bytes]:
    """Return an instance in a transfer syntax, and its frame."""
    data = dcmread(slice_file)
    if syntax == JPEGLosslessSV1:
        pack_lossless(data, data.pixel_array[None], folder)
    elif syntax == JPEGBaseline8Bit:
        grey = (data.pixel_array // 16).clip(0, 255).astype(np.uint8)
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit = 7
        return data, jpeg(grey)
    elif syntax == JPEG2000:
        data.compress(syntax, j2k_cr=[3], generate_instance_uid=False)
    elif syntax == JPEGLSNearLossless:
        data.compress(syntax, jls_error=2, generate_instance_uid=False)
    else:
        data.compress(syntax, generate_instance_uid=False)
    return data, next(generate_frames(data.PixelData, number_of_frames=1))


def save(data: Any, frame: bytes, syntax: UID, path: Path) -> Path:
    """Write an instance with this frame."""
    data.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)
    return path


def jpeg(grey: NDArray[np.uint8], **options: Any) -> bytes:
    written = io.BytesIO()
    Image.fromarray(grey).save(written, "JPEG", quality=95, **options)
    return written.getvalue()


SLOW = (JPEGLSLossless, JPEGLSNearLossless)  # seconds for each frame that ends early


@pytest.mark.parametrize(
    "syntax",
    [
        *(syntax for syntax in (*SYNTAXES, RLELossless) if syntax not in SLOW),
        *(pytest.param(syntax, marks=pytest.mark.slow) for syntax in SLOW),
    ],
    ids=lambda syntax: str(syntax.name).split(",")[0][:30],
)
def test_a_frame_that_ends_early_is_refused_with_an_end_marker_too(
    slice_file: Path, tmp_path: Path, syntax: UID
) -> None:
    data, frame = compressed(slice_file, syntax, tmp_path)
    assert read_scan(save(data, frame, syntax, tmp_path / "whole.dcm")).values.shape == (1, 48, 64)
    for percent in (98, 95, 50, 20):
        for marker in (b"", b"\xff\xd9"):
            cut = frame.rstrip(b"\0")[: len(frame) * percent // 100 - 2] + marker
            with pytest.raises(FormatError, match="damaged or cut short"):
                read_scan(save(data, cut, syntax, tmp_path / "cut.dcm"))


def test_a_frame_that_ends_early_is_refused_on_a_full_disk_too(
    slice_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, frame = compressed(slice_file, JPEGLosslessSV1, tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: slice_file.open("rb"))  # nothing can be written into it
    options = {
        **{"rows": 48, "columns": 64, "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2"},
        **{"bits_allocated": 16, "bits_stored": data.BitsStored, "pixel_representation": data.PixelRepresentation},
        "transfer_syntax_uid": str(JPEGLosslessSV1),
    }
    decode = make_decoder()
    assert decode(FrameTask("lossless JPEG", frame, options))
    with pytest.raises(DecodeError, match="end before"):
        decode(FrameTask("lossless JPEG", frame[: len(frame) // 2] + b"\xff\xd9", options))


@pytest.mark.parametrize("syntax", [*SYNTAXES, RLELossless], ids=lambda syntax: str(syntax.name)[:30])
def test_a_frame_of_which_only_the_first_part_was_written_to_the_disk_is_refused(
    slice_file: Path, tmp_path: Path, syntax: UID
) -> None:
    data, frame = compressed(slice_file, syntax, tmp_path)
    for percent in (95, 50, 20):
        kept = frame[: len(frame) * percent // 100]
        with pytest.raises(FormatError, match="damaged or cut short"):
            read_scan(save(data, kept + bytes(len(frame) - len(kept)), syntax, tmp_path / "cut.dcm"))


@pytest.mark.parametrize("syntax", PLAIN, ids=lambda syntax: str(syntax.name))
def test_plain_pixels_that_end_early_are_refused(slice_file: Path, tmp_path: Path, syntax: UID) -> None:
    data = dcmread(slice_file)
    is_little = syntax != ExplicitVRBigEndian
    pixels = data.pixel_array.astype("<u2" if is_little else ">u2").tobytes()
    for percent in (100, 95, 50, 20):
        data.PixelData = pixels[: len(pixels) * percent // 200 * 2]
        data.file_meta.TransferSyntaxUID = syntax
        dcmwrite(tmp_path / "cut.dcm", data, implicit_vr=syntax.is_implicit_VR, little_endian=is_little)
        if percent == 100:
            assert read_scan(tmp_path / "cut.dcm").values.shape == (1, 48, 64)
        else:
            with pytest.raises(FormatError, match="damaged or cut short"):
                read_scan(tmp_path / "cut.dcm")


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 4}],
    ids=["baseline", "progressive", "optimised", "with restarts"],
)
@pytest.mark.parametrize("colours", [1, 3])
def test_a_jpeg_that_ends_early_is_refused(
    plane: NDArray[np.int16], tmp_path: Path, options: dict[str, Any], colours: int
) -> None:
    grey = ((plane + 1250) / 6).clip(0, 255).astype(np.uint8)
    content = jpeg(grey if colours == 1 else np.stack([grey] * 3, axis=-1), **options)
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    assert read_scan(path).values.shape == (1, 48, 64)
    path.write_bytes(content + b"bytes behind the end" + content)
    assert read_scan(path).values.shape == (1, 48, 64)
    for percent in (99, 95, 50, 20):
        for marker in (b"", b"\xff\xd9", bytes(len(content))):
            path.write_bytes(content[: len(content) * percent // 100 - 2] + marker)
            with pytest.raises(FormatError, match="damaged or cut short"):
                read_scan(path)


@pytest.mark.parametrize("colours", [1, 3])
def test_a_progressive_jpeg_that_was_cut_between_two_scans_is_refused(
    plane: NDArray[np.int16], tmp_path: Path, colours: int
) -> None:
    grey = ((plane + 1250) / 6).clip(0, 255).astype(np.uint8)
    content = jpeg(grey if colours == 1 else np.stack([grey] * 3, axis=-1), progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda\x00", content)]
    assert len(scans) >= 6
    path = tmp_path / "picture.jpg"
    for start in scans[1:]:
        tables = content.rfind(b"\xff\xc4", 0, start)  # of Huffman codes, if the scan has some of its own
        cut = tables if tables > scans[scans.index(start) - 1] else start
        path.write_bytes(content[:cut] + b"\xff\xd9")
        assert Image.open(path).tobytes()  # libjpeg shows it
        with pytest.raises(FormatError, match="parts of its scans are missing"):
            read_scan(path)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("blocks", [1, 5, 8])
def test_a_jpeg_of_which_an_interval_is_missing_or_ends_early_is_refused(
    plane: NDArray[np.int16], tmp_path: Path, progressive: bool, blocks: int
) -> None:
    grey = ((plane + 1250) / 6).clip(0, 255).astype(np.uint8)
    content = jpeg(grey, progressive=progressive, restart_marker_blocks=blocks)
    first, second = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", content)][:2]
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    read_scan(path)
    for kept in (first, first + 2, (first + second) // 2):
        path.write_bytes(content[:kept] + content[second:])
        assert Image.open(path).tobytes()  # libjpeg shows it
        with pytest.raises(FormatError, match=r"parts of its scans are missing|its data end before its pixels"):
            read_scan(path)


def test_a_jpeg_that_lacks_its_last_byte_is_refused(plane: NDArray[np.int16], tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    for seed in range(8):  # of which some end with bits that look like those that the decoder adds
        noise = np.random.default_rng(seed).integers(0, 255, plane.shape).astype(np.uint8)
        path.write_bytes(jpeg(noise).removesuffix(b"\xff\xd9")[:-1] + b"\xff\xd9")
        with pytest.raises(FormatError, match="its data end before its pixels"):
            read_scan(path)


def test_a_jpeg_of_which_a_colour_is_missing_is_refused(plane: NDArray[np.int16]) -> None:
    grey = ((plane + 1250) / 6).clip(0, 255).astype(np.uint8)
    content = jpeg(np.stack([grey] * 3, axis=-1))
    assert is_complete(content)
    start = content.index(b"\xff\xda\x00\x0c\x03")
    in_one_scan = content[start : start + 14]
    of_one_colour = b"\xff\xda\x00\x08\x01" + in_one_scan[5:7] + in_one_scan[11:]
    assert not is_complete(content.replace(in_one_scan, of_one_colour))


def test_a_png_that_ends_early_or_has_changed_pixels_is_refused(plane: NDArray[np.int16], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray((plane + 1250).astype(np.uint16)).save(path)
    content = path.read_bytes()
    assert read_scan(path).values.shape == (1, 48, 64)
    damaged = [content[:-size] + end for size in (17, 30, 100, 2000) for end in (b"", content[-12:])]
    damaged += [content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]]
    for changed in damaged:
        path.write_bytes(changed)
        with pytest.raises(FormatError, match="damaged or cut short"):
            read_scan(path)


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_of_which_rows_are_missing_is_refused(tmp_path: Path, depth: int, is_interlaced: bool) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def png(rows: bytes) -> bytes:
        header = struct.pack(">IIBBBBB", 19, 17, depth, 0, 0, 0, is_interlaced)
        return b"".join(
            (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
        )

    # The columns and rows of the passes of an interlaced image.
    passes = ((3, 3), (2, 3), (5, 2), (5, 5), (10, 4), (9, 9), (19, 8)) if is_interlaced else ((19, 17),)
    rows = b"".join((b"\0" + b"\x80" * (columns * depth // 8)) * count for columns, count in passes)
    path = tmp_path / "picture.png"
    path.write_bytes(png(rows))
    assert len(np.unique(read_scan(path).values)) == 1
    path.write_bytes(png(rows[: -19 * depth // 8 - 1]))
    with pytest.raises(FormatError, match="its data end before its pixels"):
        read_scan(path)


def test_a_jpeg_2000_image_of_which_a_tile_is_missing_is_refused(slice_file: Path, tmp_path: Path) -> None:
    data, frame = compressed(slice_file, JPEG2000Lossless, tmp_path)
    assert has_all_parts(frame)
    size = frame.index(b"\xff\x51")
    taller = bytearray(frame)
    taller[size + 10 : size + 14] = (96).to_bytes(4, "big")  # the tiles have 48 rows
    data.Rows = 96
    with pytest.raises(FormatError, match="damaged or cut short"):
        read_scan(save(data, bytes(taller), JPEG2000Lossless, tmp_path / "cut.dcm"))
    assert not has_all_parts(bytes(taller))


def test_a_jpeg_2000_image_of_which_a_part_of_a_tile_is_missing_is_refused(slice_file: Path, tmp_path: Path) -> None:
    data, frame = compressed(slice_file, JPEG2000Lossless, tmp_path)
    tile = frame.index(b"\xff\x90\x00\x0a")
    of_two = frame[: tile + 11] + b"\2" + frame[tile + 12 :]  # the second one would hold more detail
    with pytest.raises(FormatError, match="parts of them"):
        read_scan(save(data, of_two, JPEG2000Lossless, tmp_path / "cut.dcm"))


def without_length(frame: bytes) -> bytes:
    """A JPEG 2000 frame whose only part states no length, as a last one may."""
    tile = frame.index(b"\xff\x90\x00\x0a")
    return frame[: tile + 6] + bytes(4) + frame[tile + 10 :]


@pytest.mark.parametrize("syntax", [JPEG2000, JPEG2000Lossless], ids=["lossy", "lossless"])
def test_a_jpeg_2000_image_whose_last_part_states_no_length_is_refused_if_it_ends_early(
    slice_file: Path, tmp_path: Path, syntax: UID
) -> None:
    data, stated = compressed(slice_file, syntax, tmp_path)
    whole = read_scan(save(data, stated, syntax, tmp_path / "whole.dcm")).values
    frame = without_length(stated)
    assert np.array_equal(read_scan(save(data, frame, syntax, tmp_path / "cut.dcm")).values, whole)
    begin, end = frame.index(b"\xff\x93") + 2, frame.rindex(b"\xff\xd9")

    def shown(cut: bytes) -> object:
        try:
            return decode_pixel_data(cut, version=2)
        except RuntimeError:
            return None

    between_packets = [stop for stop in range(begin + 1, begin + 200) if shown(frame[:stop] + b"\xff\xd9")]
    assert between_packets
    for stop in (*between_packets, *(begin + (end - begin) * percent // 100 for percent in (95, 50, 20))):
        for marker in (b"\xff\xd9", b""):
            with pytest.raises(FormatError, match="damaged or cut short"):
                read_scan(save(data, frame[:stop] + marker, syntax, tmp_path / "cut.dcm"))


@pytest.mark.parametrize("states_length", [True, False])
@pytest.mark.parametrize("syntax", [JPEG2000, JPEG2000Lossless], ids=["lossy", "lossless"])
def test_a_jpeg_2000_image_with_zeros_before_its_end_marker_is_refused(
    slice_file: Path, tmp_path: Path, syntax: UID, states_length: bool
) -> None:
    data, frame = compressed(slice_file, syntax, tmp_path)
    frame = frame if states_length else without_length(frame)
    begin, end = frame.index(b"\xff\x93") + 2, frame.rindex(b"\xff\xd9")
    in_percent = [begin + (end - begin) * percent // 100 for percent in (95, 50, 20, 5)]
    for stop in (begin + 3, end - 20, end - 8, end - 4, *in_percent):
        zeroed = frame[:stop] + bytes(end - stop) + frame[end:]
        with pytest.raises(FormatError, match="its data end before its pixels"):
            read_scan(save(data, zeroed, syntax, tmp_path / "cut.dcm"))


def test_zeros_that_are_packets_of_a_jpeg_2000_image_are_no_damage() -> None:
    header = b"\xff\x4f\xff\x51" + struct.pack(">HH8I", 41, 0, 64, 64, 0, 0, 64, 64, 0, 0) + b"\0\1\x0b\1\1"
    frame = header + b"\xff\x90\x00\x0a" + struct.pack(">HIBB", 0, 14 + 20, 0, 1) + b"\xff\x93" + bytes(20)

    def decoded(needed: int) -> Callable[[bytes], object]:
        return lambda stream: stream[stream.index(b"\xff\x93") + 2 :][:needed]  # each byte is a packet

    assert is_last_part_whole(frame + b"\xff\xd9", decoded(20))
    assert not is_last_part_whole(frame + b"\xff\xd9", decoded(11))


@pytest.mark.parametrize(
    ("syntax", "rows", "columns"),
    [
        *((syntax, 64, 48) for syntax in SYNTAXES),  # an RLE frame has a number of pixels, but no sides
        *((syntax, *size) for syntax in (*SYNTAXES, RLELossless) for size in ((24, 64), (48, 32), (96, 64))),
    ],
)
def test_a_frame_of_another_size_than_its_header_states_is_refused(
    slice_file: Path, tmp_path: Path, syntax: UID, rows: int, columns: int
) -> None:
    data, frame = compressed(slice_file, syntax, tmp_path)
    data.Rows, data.Columns = rows, columns
    with pytest.raises(FormatError, match="damaged or cut short"):
        read_scan(save(data, frame, syntax, tmp_path / "other.dcm"))


def test_rle_is_unpacked_up_to_the_size_that_its_header_states(slice_file: Path, tmp_path: Path) -> None:
    data, _ = compressed(slice_file, RLELossless, tmp_path)
    runs = b"\x81\0" * (1 << 20)  # 128 bytes each: a pixel plane of 128 MiB
    frame = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13) + runs * 2
    tracemalloc.start()
    with pytest.raises(FormatError, match="damaged or cut short"):
        read_scan(save(data, frame, RLELossless, tmp_path / "bomb.dcm"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.slow
def test_a_small_file_that_states_a_large_image_is_refused(slice_file: Path, tmp_path: Path) -> None:
    data, frame = compressed(slice_file, JPEGLosslessSV1, tmp_path)
    data.Rows = data.Columns = side = 16384
    start = frame.index(b"\xff\xc3") + 5
    frame = frame[:start] + side.to_bytes(2, "big") * 2 + frame[start + 4 :]
    with pytest.raises(FormatError, match="damaged or cut short"):
        read_scan(save(data, frame, JPEGLosslessSV1, tmp_path / "large.dcm"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (ABORTS, "the decoder dies of it: signal 6|its data end before"),
        (HANGS, "more than (8 s of a core|120 s)|Invalid JPEG-LS stream"),
    ],
)
@pytest.mark.thorough
def test_an_image_that_kills_or_occupies_its_decoder_is_refused_in_one_line_and_the_next_is_read(
    path: Path,
    reason: str,
    slice_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run_command(monkeypatch, capsys, "segment", path, "-o", tmp_path / "out")
    assert (code, out) == (3, "")
    assert re.search(reason, err)
    assert len(err.strip().splitlines()) == 1
    data, frame = compressed(slice_file, JPEGLosslessSV1, tmp_path)
    read_scan(save(data, frame, JPEGLosslessSV1, tmp_path / "good.dcm"))


def test_memory_is_limited_and_needing_more_is_one_line(plane: NDArray[np.int16], tmp_path: Path) -> None:
    written = io.BytesIO()
    Image.new("L", (9000, 9000)).save(written, "PNG")
    worker = Worker(make_decoder, 30, 1, 256 << 20)
    try:
        with pytest.raises(DecodeError, match="more memory than decoding may take"):
            worker.run(PictureTask(written.getvalue(), {}, ()))
    finally:
        worker.close()


def test_a_decoder_that_was_killed_is_replaced(plane: NDArray[np.int16]) -> None:
    task = PictureTask(jpeg((plane // 16).clip(0, 255).astype(np.uint8)), {"L": "L"}, ())
    before = decode_picture(task)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    assert decode_picture(task) == before


def children() -> list[int]:
    """Return the workers that this process started, and not what libraries did, such as a tracker of semaphores."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            is_worker = b"groundglass.workers" in stat.with_name("cmdline").read_bytes()
            if is_worker and int(stat.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def test_two_slices_are_decoded_at_once_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = chest_phantom(shape=(6, 48, 64)).scan
    for path in write_series(scan, tmp_path / "series"):
        data = dcmread(path)
        data.compress(JPEG2000Lossless, generate_instance_uid=False)
        data.save_as(path)
    both, decode = threading.Barrier(2), decoding._run

    def wait_for_another(task: FrameTask) -> object:
        both.wait(10)
        return decode(task)

    monkeypatch.setattr(decoding, "_run", wait_for_another)
    assert np.array_equal(read_scan(tmp_path / "series").values, scan.values)


def test_pictures_that_two_threads_ask_for_at_once_come_to_the_right_one(plane: NDArray[np.int16]) -> None:
    grey = (plane // 16).clip(0, 255).astype(np.uint8)
    task, other = (PictureTask(jpeg(image), {"L": "L"}, ()) for image in (grey, grey[::-1]))
    pictures = decode_picture(task), decode_picture(other)
    with ThreadPoolExecutor(2) as pool:
        assert tuple(pool.map(decode_picture, (task, other))) == pictures
    assert len(children()) <= MOST_AT_ONCE


def test_each_thread_learns_why_its_own_frame_was_refused() -> None:
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(DecodeError):
            pool.submit(decode_frame, FrameTask("JPEG-LS", b"", {})).result()
        assert take_failure() is None
        assert isinstance(pool.submit(take_failure).result(), DecodeError)
        assert pool.submit(take_failure).result() is None


def test_a_machine_on_which_no_process_starts_is_not_called_a_damaged_image(
    slice_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, frame = compressed(slice_file, JPEGLosslessSV1, tmp_path)
    path = save(data, frame, JPEGLosslessSV1, tmp_path / "good.dcm")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Worker, "run", fail)
    with pytest.raises(WorkerStartError, match="no process can be started to decode pixels: Too many open files"):
        read_scan(path)


def test_a_program_that_was_forked_has_a_decoder_of_its_own(plane: NDArray[np.int16]) -> None:
    task = PictureTask(jpeg((plane // 16).clip(0, 255).astype(np.uint8)), {"L": "L"}, ())
    expected = decode_picture(task)
    pid = os.fork()
    if not pid:
        os._exit(0 if decode_picture(task) == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert decode_picture(task) == expected


def test_a_fault_of_the_machine_is_not_taken_for_a_damaged_image() -> None:
    with pytest.raises(OSError, match="Too many open files"), _refusing_damage("a.dcm", JPEGLosslessSV1):
        raise OSError(errno.EMFILE, "Too many open files")
