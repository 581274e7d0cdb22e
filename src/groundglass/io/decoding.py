"""Decode compressed pixels in processes that may die: under limits of memory and time, away from everything else.

The libraries that decode JPEG, JPEG Lossless, JPEG-LS, JPEG 2000 and PNG are written in C and C++. On a damaged file
one of them may end its process, take gigabytes, or compute for ever. Here that costs the file, and nothing else.
Formats that are unpacked by Python's own zlib have no process of their own: what they unpack to is bounded by their
headers, and those by `limits`.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress

from groundglass.errors import GroundglassError
from groundglass.io.limits import DECODER_BYTES, DECODER_CORE_S, DECODER_S
from groundglass.io.pixel_codecs import (
    DecodedFrame,
    DecodedPicture,
    DecodeError,
    FrameTask,
    PictureTask,
    make_decoder,
)
from groundglass.workers import TimeLimitError, Worker, WorkerClosedError, WorkerDiedError, WorkerStartError

CODEC_BY_SYNTAX = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "jpeg"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), "lossless JPEG"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "JPEG-LS"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "JPEG 2000"),
}
MOST_AT_ONCE = 2  # frames that are decoded at once, if as many threads ask for it
_Decoder = Worker[FrameTask | PictureTask, DecodedFrame | DecodedPicture]


class _Process:
    """A process of this program; a program that was forked from it starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: _Decoder | None = None
        self._owner = 0
        self.tasks = 0  # that run or wait

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        is_new, worker = self._worker is None, self._get()
        if not is_new:
            return

        def start() -> None:
            with suppress(GroundglassError, WorkerClosedError, OSError):  # the first task tries again
                worker.start()

        threading.Thread(target=start, daemon=True).start()

    def run(self, task: FrameTask | PictureTask) -> DecodedFrame | DecodedPicture:
        """Decode a frame or a picture.

        Raises:
            DecodeError: It is damaged, or the process died of it or exceeded a limit.
            WorkerStartError: No process can be started.
        """
        try:
            return self._get().run(task)
        except TimeLimitError as error:
            raise DecodeError(f"decoding takes more than {error}") from None
        except WorkerDiedError as error:
            raise DecodeError(f"the decoder dies of it: {error}") from None
        except OSError as error:
            raise WorkerStartError(f"no process can be started to decode pixels: {error.strerror}") from None

    def close(self) -> None:
        """End the process."""
        if self._worker is not None and self._owner == os.getpid():
            self._worker.close()

    def _get(self) -> _Decoder:
        with self._lock:
            if self._worker is None or self._owner != os.getpid():
                self._worker = Worker(make_decoder, DECODER_S, 1, DECODER_BYTES, DECODER_CORE_S)
                self._owner = os.getpid()
            return self._worker


_processes = tuple(_Process() for _ in range(MOST_AT_ONCE))
_choosing = threading.Lock()
_of_thread = threading.local()  # `failure`, of the thread's last frame: pydicom does not pass it on
for _process in _processes:
    atexit.register(_process.close)


def start_decoder(syntax: str | None = None) -> None:
    """Start the process in advance, so that it gets ready while headers are read.

    Args:
        syntax: Transfer syntax of a DICOM instance: nothing is started for one that needs no decoder. None: a picture.
    """
    if syntax is None or syntax in CODEC_BY_SYNTAX:
        _processes[0].start()


def decode_frame(task: FrameTask) -> DecodedFrame:
    """Decode a frame of a DICOM instance.

    Raises:
        DecodeError: It is damaged, cut short, or too large.
    """
    _of_thread.failure = None
    try:
        decoded = _run(task)
    except GroundglassError as error:
        _of_thread.failure = error
        raise
    assert isinstance(decoded, DecodedFrame)
    return decoded


def decode_picture(task: PictureTask) -> DecodedPicture:
    """Decode a PNG or JPEG file.

    Raises:
        DecodeError: It is damaged, cut short, or too large.
    """
    decoded = _run(task)
    assert isinstance(decoded, DecodedPicture)
    return decoded


def take_failure() -> GroundglassError | None:
    """Return why the last frame that this thread asked for could not be decoded, once; None if it was."""
    failure: GroundglassError | None = getattr(_of_thread, "failure", None)
    _of_thread.failure = None
    return failure


def _run(task: FrameTask | PictureTask) -> DecodedFrame | DecodedPicture:
    """Decode in the process with the fewest tasks, so that the second one starts only where two threads ask at once."""
    with _choosing:
        process = min(_processes, key=lambda process: process.tasks)
        process.tasks += 1
    try:
        return process.run(task)
    finally:
        with _choosing:
            process.tasks -= 1
