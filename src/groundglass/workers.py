"""A process that does one task after another for its owner, and may be killed at any time.

No pool of a library does all that is needed here. `concurrent.futures` breaks as a whole when one of its processes
dies. `pebble` has time limits and replaces a process that died, but a process that computes lives on when its owner is
killed, an error of the initialiser reaches the caller as a broken pool, with its traceback on the terminal, and all
processes share locks, which one that is killed may still hold. Here each process has pipes of its own, and ends
when its owner does, whatever it computes.
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

from groundglass.errors import OUT_OF_MEMORY, GroundglassError

Task = TypeVar("Task")
Result = TypeVar("Result")
START_LIMIT_S = 300.0
IDLE_LIMIT_S = 900.0  # a process without a task ends after this time; the next task starts another one
JOB_BYTES = 16 << 30  # of memory that the processing of one scan may take
_PIPE_BYTES = 1 << 20  # so that a decoded slice passes at once; systems other than Linux take no wish
_TRIES = 2
_START_PAUSES_S = (0.0, 1.0, 5.0)
_OUT_OF_CORE_TIME = f"signal {int(getattr(signal, 'SIGXCPU', 0))}"  # which Windows has not
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class TimeLimitError(Exception):
    """A task took too long; its process was killed. The message is the limit: `600 s`, `8 s of a core`."""


class WorkerDiedError(Exception):
    """The process of a task died twice; the message is its exit code or signal."""


class MemoryLimitError(GroundglassError):
    """A task needs more memory than its process may take, or than there is."""


class WorkerStartError(GroundglassError):
    """No process can be started, whatever the task: memory or processes have run out, or the factory fails."""


class WorkerClosedError(Exception):
    """The worker was closed while it had a task."""


class Worker(Generic[Task, Result]):
    """Does tasks in a process of its own, which is replaced when it dies."""

    def __init__(
        self,
        factory: Callable[[], Callable[[Task], Result]],
        time_limit_s: float,
        threads: int,
        memory_bytes: int = JOB_BYTES,
        core_limit_s: int | None = None,
    ) -> None:
        """Describe the process; it is started by `start` or by the first task.

        Args:
            factory: Called once in each process; returns the function that is called with each task. It is pickled, so
                the process must be able to import it.
            time_limit_s: Time limit of a task in seconds by the clock, which run on while other programs compute.
            threads: Number of threads that the process may compute with.
            memory_bytes: Memory that the process may take: see `limit_memory`.
            core_limit_s: Seconds for which a task may compute, of all threads together: see `limit_core_time`. None:
                no such limit.
        """
        self._factory, self._time_limit_s, self._threads = factory, time_limit_s, threads
        self._memory_bytes, self._core_limit_s = memory_bytes, core_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: IO[bytes] | None = None  # this end of the pipe that `_end_with_owner` watches
        self._process_lock, self._task_lock = threading.Lock(), threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start the process, so that the first task does not wait for it.

        Raises:
            WorkerClosedError: The worker was closed meanwhile.
            GroundglassError: The factory raised it, or no process can be started.
        """
        with self._task_lock:
            self._ensure_started()

    def run(self, task: Task) -> Result:
        """Do a task and return its result; if the process dies, the task is tried once more.

        Raises:
            TimeLimitError: The task took too long.
            WorkerDiedError: The process died both times.
            WorkerClosedError: The worker was closed meanwhile.
            MemoryLimitError: The task needs more memory than the process may take.
            WorkerStartError: No process can be started, or the factory failed, for which the task is not to blame.
            GroundglassError: The task raised it.
        """
        cause = ""
        with self._task_lock:
            for _ in range(_TRIES):
                try:
                    self._ensure_started()
                except GroundglassError as error:
                    raise WorkerStartError(str(error)) from None
                try:
                    return cast(Result, self._exchange(task, self._time_limit_s))
                except (EOFError, OSError, pickle.UnpicklingError):
                    cause = self._kill()
                    if cause == _OUT_OF_CORE_TIME:
                        raise TimeLimitError(f"{self._core_limit_s} s of a core") from None
        raise WorkerDiedError(cause)

    def close(self) -> None:
        """Kill the process, even in the middle of a task; may be called from any thread."""
        with self._process_lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.kill()
            process.wait()
        with self._task_lock:
            self._discard()

    def _ensure_started(self) -> None:
        """Start a process unless one runs, and wait until it is ready for tasks."""
        cause = ""
        for pause_s in _START_PAUSES_S:
            if self._process is not None and self._process.poll() is None:
                return
            time.sleep(pause_s)
            try:
                self._launch()
            except OSError as error:
                raise WorkerStartError(f"no worker process can be started: {error.strerror}") from None
            try:
                self._exchange(self._factory, START_LIMIT_S)
                return
            except GroundglassError:
                self._kill()
                raise
            except (EOFError, OSError, pickle.UnpicklingError):
                cause = self._kill()
            except TimeLimitError:
                cause = f"not ready after {START_LIMIT_S:g} s"
        raise WorkerStartError(f"no worker process could be started ({cause}): check that enough memory is free")

    def _launch(self) -> None:
        with self._process_lock:
            if self._closed:
                raise WorkerClosedError
            self._discard()
            threads = dict.fromkeys(_THREAD_VARIABLES, str(self._threads))
            paths = os.pathsep.join(path for path in sys.path if path)
            open_standard_streams()
            other_end, own_end = os.pipe()
            self._lifeline = os.fdopen(own_end, "wb")
            has_lifeline = os.name == "posix"
            call = f"serve({self._memory_bytes}, {other_end if has_lifeline else None}, {self._core_limit_s})"
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", f"from groundglass.workers import serve; {call}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    pipesize=_PIPE_BYTES,
                    pass_fds=[other_end] if has_lifeline else (),
                    env={**os.environ, "PYTHONPATH": paths, **threads},
                )
            finally:
                os.close(other_end)

    def _exchange(self, message: object, limit_s: float) -> Any:
        """Send a message to the process and return its reply; kill the process when the time is up."""
        process = self._process
        assert process is not None
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), stop)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            raise WorkerStartError("no thread can be started to watch over a worker process") from None
        try:
            pickle.dump(message, cast(IO[bytes], process.stdin), pickle.HIGHEST_PROTOCOL)
            cast(IO[bytes], process.stdin).flush()
            reply = pickle.load(cast(IO[bytes], process.stdout))
        except (EOFError, OSError, pickle.UnpicklingError):
            if self._closed:
                raise WorkerClosedError from None
            if not timed_out.is_set():
                raise
        finally:
            timer.cancel()
        if timed_out.is_set():
            self._kill()
            raise TimeLimitError(f"{limit_s:g} s")
        if isinstance(reply, GroundglassError):
            raise reply
        return reply

    def _kill(self) -> str:
        """Kill the process if it still runs, and describe how it ended: `signal 9`, `exit code 1`."""
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
        process = self._process
        pipes = (process.stdin, process.stdout) if process is not None else ()
        for pipe in (self._lifeline, *pipes):
            if pipe is not None:
                with suppress(OSError):  # data that could not be sent is still buffered
                    pipe.close()
        self._process = self._lifeline = None


def open_standard_streams() -> None:
    """Let /dev/null take the place of standard streams that are closed, as by `<&-` or in a program of the background.

    Else the next file, pipe or socket has the number of one: what libraries print goes into it, and a process that is
    started has its own stream in its place.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        os.set_inheritable(number, True)
        number = os.dup(number)
    os.close(number)


def available_cores() -> int:
    """Return the number of CPU cores available to this process; a cluster job may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_memory(count: int) -> None:
    """Limit the memory that this process may take, so that a hostile file cannot exhaust that of the machine.

    Only what is written to counts: not the code of libraries, and not files that are mapped. Systems other than Linux
    keep no such limit. A crash leaves no core file, which would hold the patient's data.

    Args:
        count: Number of bytes; a smaller limit that is in force stays.
    """
    try:
        import resource
    except ImportError:  # Windows has none
        return
    for kind, wanted in ((resource.RLIMIT_DATA, count), (resource.RLIMIT_CORE, 0)):
        allowed = resource.getrlimit(kind)
        in_force = [limit for limit in allowed if limit != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min([wanted, *in_force]), allowed[1]))


def limit_core_time(seconds: int) -> None:
    """Let the system end this process, by a signal, when it has computed for so long from now on.

    Time in which other programs have the cores does not count, so that a task is not to blame for a machine that is
    overloaded. Linux and macOS keep this limit.

    Args:
        seconds: Time of all threads together; up to one more, since the system counts whole ones.
    """
    try:
        import resource
    except ImportError:  # Windows has none
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    end, allowed = int(used.ru_utime + used.ru_stime) + 1 + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (end if allowed == resource.RLIM_INFINITY else min(end, allowed), allowed))


def _end_with_owner(lifeline: int) -> None:
    """Let the system end this process as soon as the owner's end of a pipe closes.

    A thread that waits for that would not be enough: it cannot run while a library computes and holds Python's lock.

    Args:
        lifeline: File descriptor of this end of the pipe, through which nothing is ever sent.
    """
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    with suppress(OSError):  # a system that sends no signal for pipes: `receive` alone ends the process there
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def serve(memory_bytes: int, lifeline: int | None, core_limit_s: int | None) -> None:
    """Run the process's side: call the factory, then do one task after another until the owner has gone.

    Args:
        memory_bytes: See `limit_memory`.
        lifeline: See `_end_with_owner`; None where the system has no such signal.
        core_limit_s: See `limit_core_time`; None: no such limit.
    """
    limit_memory(memory_bytes)
    if lifeline is not None:
        _end_with_owner(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the owner, which decides what to do
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1) if os.environ.get("GROUNDGLASS_DEBUG") else (0, 1, 2):
        os.dup2(null, stream)  # libraries may print names of files or patients
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    factory = pickle.load(requests)

    def receive() -> None:
        """Queue the tasks, and end the process, even in the middle of one, when the owner's end of the pipe closes."""
        try:
            while True:
                tasks.put(pickle.load(requests))
        except (EOFError, OSError):
            os._exit(0)

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except GroundglassError as error:
            return error
        except MemoryError:
            return MemoryLimitError(OUT_OF_MEMORY)

    def send(reply: Any) -> None:
        pickle.dump(reply, replies, pickle.HIGHEST_PROTOCOL)
        replies.flush()

    threading.Thread(target=receive, daemon=True).start()
    do_task = call(factory)
    if isinstance(do_task, GroundglassError):
        send(do_task)
        os._exit(1)
    send(None)
    while True:
        try:
            task = tasks.get(timeout=IDLE_LIMIT_S)
        except queue.Empty:
            os._exit(0)
        if core_limit_s is not None:
            limit_core_time(core_limit_s)
        send(call(do_task, task))
