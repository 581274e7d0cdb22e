"""The receiver of uploads: how much, how fast, and in which form."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from groundglass.apps.service.upload import (
    MAX_HEADER_BYTES,
    OVERHEAD_BYTES,
    Upload,
    UploadError,
    receive,
    without_stalls,
)

LIMIT = 4 << 20
FORM = "multipart/form-data; boundary=x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n'
END = b"\r\n--x--\r\n"


def send(folder: Path, *chunks: bytes) -> Upload:
    async def run() -> Upload:
        async def body() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        return await receive(body(), FORM, folder / "scan", LIMIT, 10)

    return anyio.run(run)


def test_a_form_is_received_in_pieces_of_any_size(tmp_path: Path) -> None:
    form = HEAD + bytes(range(256)) * 40 + b"\r" * 20_000 + END
    for size in (1, 7, 100_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        upload = send(folder, *(form[start : start + size] for start in range(0, len(form), size)))
        assert upload == Upload("a.nii", 256 * 40 + 20_000)
        assert (folder / "scan").read_bytes() == form[len(HEAD) : -len(END)]


@pytest.mark.parametrize("place", ["before", "inside", "behind", "between headers", "in many headers"])
def test_bytes_are_counted_wherever_they_are_in_the_form(tmp_path: Path, place: str) -> None:
    filling = [b" " * 65536] * ((LIMIT + OVERHEAD_BYTES) // 65536 + 1)
    many = [b"X: y\r\n" * 10_000] * len(filling)
    form = {
        "before": [*filling, HEAD, END],
        "inside": [HEAD, *filling, END],
        "behind": [HEAD, b"abc", END, *filling],
        "between headers": [b"--x\r\nX: ", *filling, b"\r\n\r\n", END],
        "in many headers": [b"--x\r\n", *many, b"\r\n\r\n", END],
    }[place]
    with pytest.raises(UploadError) as refused:
        send(tmp_path, *form)
    assert refused.value.status == (400 if "header" in place or place == "before" else 413)


def test_headers_of_a_part_are_limited_but_those_of_all_parts_together_are_not(tmp_path: Path) -> None:
    padded = HEAD.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * (MAX_HEADER_BYTES - 500) + b"\r\n\r\n")
    assert send(tmp_path, (padded + b"abc\r\n") * 9 + padded + b"abc" + END).size_bytes == 30


async def drip(piece: bytes, pause_s: float) -> AsyncIterator[bytes]:
    while True:
        yield piece
        await anyio.sleep(pause_s)


@pytest.mark.parametrize(
    ("piece", "pause_s", "total_s", "reason"),
    [
        (b"x", 0.05, 60.0, "less than 1 MiB arrived within 0.3 s"),
        (bytes(1 << 18), 0.1, 60.0, "less than 1 MiB arrived within 0.3 s"),
        (bytes(1 << 20), 0.05, 1.0, "it took more than 1 s"),
    ],
    ids=["a byte now and then", "below the rate", "too long"],
)
def test_slow_and_endless_uploads_are_given_up(
    monkeypatch: pytest.MonkeyPatch, piece: bytes, pause_s: float, total_s: float, reason: str
) -> None:
    monkeypatch.setattr("groundglass.apps.service.upload.STALL_S", 0.3)
    monkeypatch.setattr("groundglass.apps.service.upload.TOTAL_S", total_s)

    async def run() -> None:
        async for _ in without_stalls(drip(piece, pause_s)):
            pass

    with pytest.raises(UploadError, match=reason) as refused:
        anyio.run(run)
    assert refused.value.status == 408


def test_an_upload_at_the_least_rate_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.apps.service.upload.STALL_S", 0.5)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(20):
            await anyio.sleep(0.05)
            yield bytes(1 << 18)

    async def run() -> int:
        return sum([len(chunk) async for chunk in without_stalls(slow())])

    assert anyio.run(run) == 20 << 18


def test_a_scan_is_called_as_its_file_or_as_the_folder_of_its_files(tmp_path: Path) -> None:
    def part(name: str) -> bytes:
        return HEAD.replace(b"a.nii", name.encode()) + b"x\r\n"

    labels = []
    for number, names in enumerate((["x/ct.nii"], ["study/a/1", "study/b/2"], ["a/1", "b/1"], ["1", "2"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        form = b"".join(part(name) for name in names)
        labels.append(send(folder, form + b"--x--\r\n").label)
    assert labels == ["ct.nii", "study", "2 files", "2 files"]
