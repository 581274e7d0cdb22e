"""Worker processes: time limits, replacement after a crash, and their end with their owner."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from groundglass.errors import GroundglassError, ModelError
from groundglass.workers import (
    MemoryLimitError,
    TimeLimitError,
    Worker,
    WorkerClosedError,
    WorkerDiedError,
    WorkerStartError,
)
from helpers.factories import (
    exit_at_once,
    make_core_eater,
    make_memory_eater,
    make_pid_reporter,
    make_pid_reporter_with,
    make_printer,
)
from helpers.scripted_worker import hanging_pids, is_alive, script_worker, wait_until


@pytest.fixture
def one() -> Iterator[Worker[str, str]]:
    process = script_worker()
    yield process
    process.close()


@pytest.fixture
def reporter() -> Iterator[Worker[str, int]]:
    """A worker that returns the id of its process."""
    process = Worker(make_pid_reporter, 60, 1)
    yield process
    process.close()


def test_one_process_does_one_task_after_another(reporter: Worker[str, int]) -> None:
    pids = [reporter.run(task) for task in ("a", "b", "c")]
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()


def test_the_result_of_a_task_is_returned(one: Worker[str, str]) -> None:
    assert [one.run(task) for task in ("a", "b")] == ["a", "b"]


def test_an_error_of_a_task_is_raised_and_the_process_stays(reporter: Worker[str, int]) -> None:
    pid = reporter.run("first")
    with pytest.raises(ModelError, match="refused"):
        reporter.run("refuse")
    assert reporter.run("next") == pid


def test_a_task_whose_process_dies_is_tried_once_more(one: Worker[str, str], tmp_path: Path) -> None:
    order = f"die once {tmp_path / 'died'}"
    assert one.run(order) == order
    assert (tmp_path / "died").exists()


def test_a_task_whose_process_dies_twice_is_given_up_and_the_next_is_done(one: Worker[str, str]) -> None:
    with pytest.raises(WorkerDiedError, match="signal 9"):
        one.run("die")
    assert one.run("next") == "next"


def test_a_process_that_was_killed_while_idle_is_replaced(reporter: Worker[str, int]) -> None:
    first = reporter.run("first")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_alive(first))
    second = reporter.run("second")
    assert second != first
    assert is_alive(second)


def test_a_task_that_takes_too_long_is_killed_and_the_next_is_done(tmp_path: Path) -> None:
    process = script_worker(time_limit_s=1.0)
    try:
        process.run("warm up")
        with pytest.raises(TimeLimitError, match=r"^1 s$"):
            process.run(f"hang {tmp_path / 'pid'}")
        assert not is_alive(hanging_pids(tmp_path / "pid")[0])
        assert process.run("next") == "next"
    finally:
        process.close()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_without_standard_streams_has_its_tasks_done(tmp_path: Path, closed: str) -> None:
    lines = [
        "from pathlib import Path",
        "from groundglass.workers import Worker",
        "from helpers.factories import make_memory_eater",
        f"Path({str(tmp_path / 'size')!r}).write_text(str(Worker(make_memory_eater, 60, 1).run(7)))",
    ]
    (tmp_path / "program.py").write_text("\n".join(lines))
    paths = os.pathsep.join(sys.path)
    subprocess.run(
        f"{sys.executable} {tmp_path / 'program.py'} {closed}", shell=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert (tmp_path / "size").read_text() == "7"


def test_a_task_may_take_as_long_as_it_wants(capfd: pytest.CaptureFixture[str]) -> None:
    process = script_worker(time_limit_s=float("inf"))
    try:
        assert process.run("next") == "next"
    finally:
        process.close()
    assert capfd.readouterr().err == ""


@pytest.mark.thorough
def test_a_limit_of_core_time_ends_what_computes_and_not_what_waits() -> None:
    process = Worker(make_core_eater, 600, 1, core_limit_s=1)
    try:
        for _ in range(3):  # the limit is that of each task, also where their sum exceeds it
            process.run((0.8, 0))
        process.run((0, 3))
        with pytest.raises(TimeLimitError, match="1 s of a core"):
            process.run((30, 0))
        process.run((0, 0))
    finally:
        process.close()


def test_closing_from_another_thread_ends_a_running_task(tmp_path: Path) -> None:
    process, caught = script_worker(), []

    def run() -> None:
        try:
            process.run(f"hang {tmp_path / 'pid'}")
        except WorkerClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    pid, _ = hanging_pids(tmp_path / "pid")
    process.close()
    thread.join(10)
    assert len(caught) == 1
    assert not is_alive(pid)
    with pytest.raises(WorkerClosedError):
        process.run("more")


@pytest.mark.parametrize(
    "code",
    [
        "from helpers.scripted_worker import script_worker; script_worker().run('hang {path}')",
        "from pathlib import Path; from groundglass.workers import Worker; "
        "from helpers.factories import make_endless_computation as factory; Worker(factory, 60, 1).run(Path('{path}'))",
        "from pathlib import Path; from groundglass.workers import Worker; "
        "from helpers.factories import make_stubborn_computation as make; Worker(make, 60, 1).run(Path('{path}'))",
    ],
    ids=["while it waits", "while it computes", "while a library computes that lets no thread run"],
)
def test_the_process_ends_when_its_owner_is_killed(code: str, tmp_path: Path) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    program = [sys.executable, "-c", code.format(path=tmp_path / "pid")]
    owner = subprocess.Popen(program, env={**os.environ, "PYTHONPATH": paths})
    pid, parent = hanging_pids(tmp_path / "pid")
    assert parent == owner.pid
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not is_alive(pid), 10)


def test_an_error_of_the_factory_is_raised_by_the_start_and_no_fault_of_a_task(tmp_path: Path) -> None:
    process: Worker[str, int] = Worker(partial(make_pid_reporter_with, tmp_path / "model"), 60, 1)
    try:
        for _ in range(2):
            with pytest.raises(ModelError, match="no such model"):
                process.start()
            with pytest.raises(WorkerStartError, match="no such model"):
                process.run("anything")
        (tmp_path / "model").touch()
        pid = process.run("anything")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), 10)
        (tmp_path / "model").unlink()
        with pytest.raises(WorkerStartError, match="no such model"):
            process.run("anything")
    finally:
        process.close()


def test_a_process_that_dies_while_it_starts_is_reported_after_three_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.workers.time.sleep", lambda _: None)
    process: Worker[str, str] = Worker(partial(exit_at_once, tmp_path / "starts"), 60, 1)  # type: ignore[arg-type]
    try:
        with pytest.raises(GroundglassError, match=r"could be started \(exit code 7\)"):
            process.run("anything")
    finally:
        process.close()
    assert (tmp_path / "starts").read_text().split() == ["started"] * 3


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("subprocess.Popen", OSError(errno.EAGAIN, "Resource temporarily unavailable")),
        ("threading.Timer.start", RuntimeError("can't start new thread")),
    ],
    ids=["process", "thread"],
)
def test_a_machine_that_starts_no_process_or_thread_is_no_fault_of_a_task(
    reporter: Worker[str, int], monkeypatch: pytest.MonkeyPatch, target: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(f"groundglass.workers.{target}", fail)
        with pytest.raises(WorkerStartError, match="can be started"):
            reporter.run("anything")
    assert reporter.run("anything") > 0


def test_nothing_that_the_process_prints_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    process: Worker[str, None] = Worker(make_printer, 60, 1)
    try:
        process.run("PLANTED")
    finally:
        process.close()
    assert capfd.readouterr() == ("", "")


def test_a_task_that_needs_too_much_memory_is_refused_and_the_next_is_done() -> None:
    process: Worker[int, int] = Worker(make_memory_eater, 60, 1, memory_bytes=1 << 30)
    try:
        assert process.run(500 << 20) == 500 << 20
        with pytest.raises(MemoryLimitError, match="more memory than one scan may take"):
            process.run(2 << 30)
        assert process.run(500 << 20) == 500 << 20
    finally:
        process.close()


def test_a_smaller_limit_of_memory_that_is_in_force_stays_and_no_core_is_left() -> None:
    code = (
        "import resource as r; from groundglass.workers import limit_memory; "
        "r.setrlimit(r.RLIMIT_DATA, (1 << 29, 1 << 30)); limit_memory(1 << 34); "
        "print(r.getrlimit(r.RLIMIT_DATA), r.getrlimit(r.RLIMIT_CORE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{(1 << 29, 1 << 30)} 0\n"
