"""A process that does one task after another for its owner, and may be killed at any time.

The pools of `concurrent.futures` break as a whole when one of their processes dies, and pools with a common queue may
wait for ever for a lock that a dead one held. Here each process has pipes of its own. It ends by itself when its owner
does, however that came about.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Generic, TypeVar, cast

from groundglass.errors import GroundglassError

Question = TypeVar("Question")
Answer = TypeVar("Answer")
START_LIMIT_S = 300.0
IDLE_LIMIT_S = 900.0  # then it ends, and is started anew for the next task
_TRIES = 2
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TimeLimitError(Exception):
    """A task took too long; its process was killed."""


class LostError(Exception):
    """A task's process died, twice; the message says of what."""


class ClosedError(Exception):
    """The worker was closed while it had a task."""


class Worker(Generic[Question, Answer]):
    """Does tasks in a process of its own, which is replaced when it dies.

    Args of the constructor:
        opener: Called once in each process; what it returns is called with each task. Both must be importable there.
        time_limit_s: For a task.
        threads: How many the process may compute with.
    """

    def __init__(self, opener: Callable[[], Callable[[Question], Answer]], time_limit_s: float, threads: int) -> None:
        self._opener, self._time_limit_s, self._threads = opener, time_limit_s, threads
        self._process: subprocess.Popen[bytes] | None = None
        self._starting, self._asking = threading.Lock(), threading.Lock()
        self._closed = False

    def warm(self) -> None:
        """See that the process is there, so that the first task need not wait for it.

        Raises:
            ClosedError: The worker was closed meanwhile.
            GroundglassError: As the opener raised it; or no process can be started.
        """
        with self._asking:
            self._start()

    def ask(self, task: Question) -> Answer:
        """Do a task; one that its process dies of is tried once more.

        Raises:
            TimeLimitError: It took too long.
            LostError: Its process died both times.
            ClosedError: The worker was closed meanwhile.
            GroundglassError: As the task raised it; or no process can be started.
        """
        ended = ""
        with self._asking:
            for _ in range(_TRIES):
                self._start()
                try:
                    return cast(Answer, self._exchange(task, self._time_limit_s))
                except (EOFError, OSError, pickle.UnpicklingError):
                    ended = self._end()
        raise LostError(ended)

    def close(self) -> None:
        """End the process, whatever it does; may be called from another thread."""
        with self._starting:
            self._closed = True
            process = self._process
        if process is not None:
            process.kill()
            process.wait()
        with self._asking:
            self._discard()

    def _start(self) -> None:
        """See that a process is there, and ready."""
        ended = ""
        for pause_s in (0.0, 1.0, 5.0):
            if self._process is not None and self._process.poll() is None:
                return
            time.sleep(pause_s)
            self._open()
            try:
                self._exchange(self._opener, START_LIMIT_S)
                return
            except (EOFError, OSError, pickle.UnpicklingError):
                ended = self._end()
            except TimeLimitError:
                ended = f"not ready after {START_LIMIT_S:g} s"
        raise GroundglassError(f"no worker process could be started ({ended}): see that there is memory left")

    def _open(self) -> None:
        with self._starting:
            if self._closed:
                raise ClosedError
            self._discard()
            threads = dict.fromkeys(_THREADS, str(self._threads))
            paths = os.pathsep.join(path for path in sys.path if path)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from groundglass.workers import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths, **threads},
            )

    def _exchange(self, message: object, limit_s: float) -> Any:
        """Send something, and wait for what comes back."""
        process = self._process
        assert process is not None
        too_late = threading.Event()

        def stop() -> None:
            too_late.set()
            process.kill()

        timer = threading.Timer(limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            pickle.dump(message, cast(IO[bytes], process.stdin))
            cast(IO[bytes], process.stdin).flush()
            answer = pickle.load(cast(IO[bytes], process.stdout))
        except (EOFError, OSError, pickle.UnpicklingError):
            if self._closed:
                raise ClosedError from None
            if not too_late.is_set():
                raise
        finally:
            timer.cancel()
        if too_late.is_set():
            self._end()
            raise TimeLimitError
        if isinstance(answer, GroundglassError):
            raise answer
        return answer

    def _end(self) -> str:
        """Kill what is left of the process; how it had ended."""
        process = self._process
        assert process is not None
        try:
            code = process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = 0
        process.kill()
        process.wait()
        self._discard()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _discard(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # something was still to be sent
                    cast(IO[bytes], pipe).close()
            self._process = None


def cores() -> int:
    """That this process may use: a job of a cluster often has some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve() -> None:
    """The process's own side: open, then a task at a time, until its owner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the owner too, who decides
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if os.environ.get("GROUNDGLASS_DEBUG") else (0, 1, 2):
        os.dup2(nowhere, stream)  # what libraries print may name the source
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    opener = pickle.load(questions)

    def listen() -> None:
        try:
            while True:
                tasks.put(pickle.load(questions))
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

    def answer(call: Callable[..., Any], *words: Any) -> Any:
        try:
            said = call(*words)
        except GroundglassError as error:
            said = error
        return said

    def send(said: Any) -> None:
        pickle.dump(said, answers)
        answers.flush()

    work = answer(opener)
    send(work if isinstance(work, GroundglassError) else None)
    while True:
        try:
            task = tasks.get(timeout=IDLE_LIMIT_S)
        except queue.Empty:
            os._exit(0)
        send(answer(work, task))
