"""Receiving an upload: streamed to numbered files. The names of the files decide order and label, and never a path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import anyio
from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from groundglass.io.image_slices import natural_order
from groundglass.plain_text import printable

FIELD = "files"
BUFFER_BYTES = 1 << 20  # collected before they are written
MAX_LABEL_LENGTH = 100  # characters
STALL_S = 60.0  # in which at least `LEAST_BYTES` must arrive
LEAST_BYTES = 1 << 20
TOTAL_S = 3 * 3600.0  # for a whole upload
MAX_HEADER_BYTES = 4 << 10  # of the headers of a part
OVERHEAD_BYTES = 1 << 20  # boundaries and headers of a form, besides its files
_MAX_PIECES = 10_000  # pieces of files that are collected before they are written


class UploadError(Exception):
    """The upload is refused, with an HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Upload:
    """A complete upload.

    Attributes:
        label: Name of the file or of the folder of all files, or else their number; printable characters only.
        size_bytes: Size of all files together.
    """

    label: str
    size_bytes: int


@dataclass
class _MultipartReceiver:
    """Callbacks of the multipart parser (`on_...`); collects bytes until `flush` writes them to numbered files."""

    folder: Path
    max_files: int
    names: list[str] = field(default_factory=list)
    size_bytes: int = 0
    complete: bool = False
    _pending: list[tuple[int, bytes]] = field(default_factory=list)  # (number of the file, bytes)
    _pending_bytes: int = 0
    _header: list[bytes] = field(default_factory=lambda: [b"", b""])  # [name, value]
    _header_bytes: int = 0  # of all headers of the part
    _disposition: bytes = b""
    _open_file: tuple[int, BinaryIO] | None = None

    @property
    def is_full(self) -> bool:
        return self._pending_bytes >= BUFFER_BYTES or len(self._pending) >= _MAX_PIECES

    def on_part_begin(self) -> None:
        self._disposition = b""
        self._header_bytes = 0

    def on_header_begin(self) -> None:
        self._header = [b"", b""]

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._add_to_header(0, data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._add_to_header(1, data[start:end])

    def _add_to_header(self, index: int, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise UploadError(400, f"a part has more than {MAX_HEADER_BYTES:,} bytes of headers")
        self._header[index] += data

    def on_header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = self._header[1]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode() or b"filename" not in options:
            raise UploadError(400, f"expected files in the field {FIELD!r} of a multipart/form-data body")
        if len(self.names) == self.max_files:
            raise UploadError(413, f"more than {self.max_files:,} files, the limit of this server: send one series")
        self.names.append(options[b"filename"].decode("utf-8", "replace"))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pending.append((len(self.names) - 1, data[start:end]))
        self._pending_bytes += end - start
        self.size_bytes += end - start

    def on_part_end(self) -> None:
        self._pending.append((len(self.names) - 1, b""))  # creates the file also where it is empty

    def on_end(self) -> None:
        self.complete = True

    def flush(self) -> None:
        for number, data in self._pending:
            if self._open_file is None or self._open_file[0] != number:
                self.close()
                self._open_file = number, (self.folder / f"{number:06}").open("wb")
            self._open_file[1].write(data)
        self._pending.clear()
        self._pending_bytes = 0

    def close(self) -> None:
        if self._open_file is not None:
            self._open_file[1].close()
            self._open_file = None


async def without_stalls(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass on the chunks of a body as long as they keep arriving: a slow client must not hold a slot of the queue.

    Raises:
        UploadError: Less than `LEAST_BYTES` arrived within `STALL_S` seconds, or the whole takes more than `TOTAL_S`.
    """
    latest_s = anyio.current_time() + TOTAL_S
    deadline_s, arrived = 0.0, LEAST_BYTES
    while True:
        if arrived >= LEAST_BYTES:
            deadline_s, arrived = min(anyio.current_time() + STALL_S, latest_s), 0
        try:
            with anyio.fail_after(max(0.0, deadline_s - anyio.current_time())):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UploadError(
                408,
                f"less than {LEAST_BYTES >> 20} MiB arrived within {STALL_S:g} s: send it again faster"
                if anyio.current_time() < latest_s
                else f"it took more than {TOTAL_S:g} s: send it again faster",
            ) from None
        arrived += len(chunk)
        yield chunk


async def receive(
    body: AsyncIterator[bytes], content_type: str, target: Path, max_bytes: int, max_files: int
) -> Upload:
    """Write the files of a multipart/form-data body as they arrive.

    Args:
        body: Body of the request.
        content_type: Content-Type header of the request, with the boundary.
        target: Becomes the file if there is one, or a folder of numbered files if there are several.
        max_bytes: Largest size of all files together.
        max_files: Largest number of files.

    Raises:
        UploadError: The body is too large, empty or damaged.
        OSError: The files cannot be written.
    """
    try:
        media_type, options = parse_options_header(content_type)
    except (ValueError, LookupError):  # of characters, and of character sets that there are not
        raise UploadError(400, "the Content-Type is damaged, expected multipart/form-data with a boundary") from None
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise UploadError(400, f"expected multipart/form-data with files in the field {FIELD!r}")
    folder = target.with_name("received")
    folder.mkdir()
    receiver = _MultipartReceiver(folder, max_files)
    callbacks = {name: getattr(receiver, name) for name in dir(receiver) if name.startswith("on_")}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        received_bytes = 0
        async for chunk in without_stalls(body):
            received_bytes += len(chunk)
            parser.write(chunk)
            if receiver.size_bytes > max_bytes or received_bytes > max_bytes + OVERHEAD_BYTES:
                raise UploadError(413, f"more than {max_bytes:,} bytes, the limit of this server")
            if receiver.is_full:
                await run_sync(receiver.flush)
        parser.finalize()
        await run_sync(receiver.flush)
    except (FormParserError, ValueError, LookupError):
        raise UploadError(400, "the multipart/form-data body is incomplete or damaged: send it again") from None
    finally:
        receiver.close()
    if not receiver.complete or not receiver.names:
        raise UploadError(400, f"the field {FIELD!r} holds no file, or the body is incomplete: send it again")
    await run_sync(put_in_order, folder, target, receiver.names)
    return Upload(_label(receiver.names), receiver.size_bytes)


def put_in_order(folder: Path, target: Path, names: list[str]) -> None:
    """Move the received files to `target`: a single file, or a folder numbered in the natural order of their names."""
    if len(names) == 1:
        (folder / "000000").replace(target)
        folder.rmdir()
        return
    order = sorted(range(len(names)), key=lambda i: natural_order(Path(names[i].replace("\0", ""))))
    target.mkdir()
    for position, number in enumerate(order, start=1):
        (folder / f"{number:06}").replace(target / f"{position:06}")
    folder.rmdir()


def _label(names: list[str]) -> str:
    """Return the name of the only file, or of the folder that holds all of them, or else their number."""
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names]
    if len(paths) == 1:
        return printable(paths[0].name)[:MAX_LABEL_LENGTH] or "a scan"
    folders = {path.parts[0] if len(path.parts) > 1 else "" for path in paths}
    folder = printable(folders.pop())[:MAX_LABEL_LENGTH] if len(folders) == 1 else ""
    return folder or f"{len(names):,} files"
