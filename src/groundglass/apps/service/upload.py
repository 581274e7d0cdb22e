"""A scan as it arrives: streamed to numbered files; what they were called decides their order and a label, no path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import anyio
from anyio.to_thread import run_sync
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from groundglass.io.image_slices import natural_order

FIELD = "files"
BUFFER = 1 << 20  # bytes gathered before they are written
MAX_LABEL = 100  # characters
STALL_S = 60.0  # without a byte


class UploadError(Exception):
    """What is sent is not taken; `status` is that of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Upload:
    """What was received.

    Attributes:
        label: The file's name, or the number of files; printable.
        bytes: Of all files.
    """

    label: str
    bytes: int


@dataclass
class _Receiver:
    """Called by the parser; gathers what is to be written."""

    folder: Path
    max_files: int
    names: list[str] = field(default_factory=list)
    size: int = 0
    _gathered: list[tuple[int, bytes]] = field(default_factory=list)
    _gathered_bytes: int = 0
    _header: list[bytes] = field(default_factory=lambda: [b"", b""])
    _disposition: bytes = b""
    _is_file: bool = False
    _open: tuple[int, BinaryIO] | None = None
    whole: bool = False

    @property
    def is_full(self) -> bool:
        return self._gathered_bytes >= BUFFER

    def on_part_begin(self) -> None:
        self._disposition, self._is_file = b"", False

    def on_header_begin(self) -> None:
        self._header = [b"", b""]

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise UploadError(400, f"expected files in the field {FIELD!r} of a multipart/form-data body")
        if len(self.names) == self.max_files:
            raise UploadError(413, f"more than {self.max_files:,} files, which is the limit: send one series alone")
        self.names.append(options[b"filename"].decode("utf-8", "replace"))
        self._is_file = True

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._gathered.append((len(self.names) - 1, data[start:end]))
        self._gathered_bytes += end - start
        self.size += end - start

    def on_part_end(self) -> None:
        self._gathered.append((len(self.names) - 1, b""))  # an empty file is one too

    def on_end(self) -> None:
        self.whole = True

    def flush(self) -> None:
        for number, data in self._gathered:
            if self._open is None or self._open[0] != number:
                self.close()
                self._open = number, (self.folder / f"{number:06}").open("wb")
            self._open[1].write(data)
        self._gathered.clear()
        self._gathered_bytes = 0

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


async def flowing(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body, as long as some of it comes.

    Raises:
        UploadError: Nothing came for `STALL_S` seconds: who sends nothing keeps no place in the queue.
    """
    while True:
        try:
            with anyio.fail_after(STALL_S):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UploadError(408, f"nothing came for {STALL_S:g} s: send it again") from None
        yield chunk


async def receive(
    body: AsyncIterator[bytes], content_type: str, target: Path, max_bytes: int, max_files: int
) -> Upload:
    """Write the files of a multipart/form-data body, as they arrive, to a file or a folder of numbered files.

    Args:
        body: Of the request.
        content_type: Of it, with the boundary.
        target: What will be the file where there is one, or the folder where there are several.
        max_bytes: Of all.
        max_files: How many.

    Raises:
        UploadError: It is too much, empty or broken.
        OSError: It cannot be written.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise UploadError(400, f"expected multipart/form-data with files in the field {FIELD!r}")
    folder = target.with_name("received")
    folder.mkdir()
    receiver = _Receiver(folder, max_files)
    callbacks = {name: getattr(receiver, name) for name in dir(receiver) if name.startswith("on_")}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        async for chunk in flowing(body):
            parser.write(chunk)
            if receiver.size > max_bytes:
                raise UploadError(413, f"more than {max_bytes:,} bytes, which is the limit of this server")
            if receiver.is_full:
                await run_sync(receiver.flush)
        parser.finalize()
        await run_sync(receiver.flush)
    except MultipartParseError:
        raise UploadError(400, "the body is no whole multipart/form-data: send it again") from None
    finally:
        receiver.close()
    if not receiver.whole or not receiver.names:
        raise UploadError(400, f"no file came in the field {FIELD!r}, or not all of it: send it again")
    await run_sync(_put_in_order, folder, target, receiver.names)
    return Upload(_label(receiver.names), receiver.size)


def _put_in_order(folder: Path, target: Path, names: list[str]) -> None:
    """One file alone becomes the target; several are numbered in the natural order of their names."""
    if len(names) == 1:
        (folder / "000000").replace(target)
        folder.rmdir()
        return
    order = sorted(range(len(names)), key=lambda i: natural_order(Path(names[i].replace("\0", ""))))
    target.mkdir()
    for place, number in enumerate(order, start=1):
        (folder / f"{number:06}").replace(target / f"{place:06}")
    folder.rmdir()


def _label(names: list[str]) -> str:
    if len(names) > 1:
        return f"{len(names):,} files"
    name = PurePosixPath(names[0].replace("\\", "/")).name
    return "".join(c if c.isprintable() else "?" for c in name)[:MAX_LABEL] or "a scan"
