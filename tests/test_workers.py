"""A process that may be killed at any time."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.errors import GroundglassError, ModelError
from groundglass.workers import ClosedError, LostError, TimeLimitError, Worker
from helpers.factories import chatter, exit_at_once, refuse
from helpers.fake_batch import alive, pids, until, worker


@pytest.fixture
def one() -> Iterator[Worker[str, str]]:
    process = worker()
    yield process
    process.close()


def test_it_answers_one_task_after_another_from_one_process(one: Worker[str, str], tmp_path: Path) -> None:
    assert [one.ask(task) for task in ("a", "b")] == ["a", "b"]
    assert one._process is not None
    pid = one._process.pid
    assert one.ask("c") == "c"
    assert one._process.pid == pid != os.getpid()


def test_a_task_that_it_dies_of_is_tried_once_more(one: Worker[str, str], tmp_path: Path) -> None:
    order = f"die once {tmp_path / 'died'}"
    assert one.ask(order) == order
    assert (tmp_path / "died").exists()


def test_a_task_that_it_dies_of_again_is_lost_and_the_next_is_done(one: Worker[str, str]) -> None:
    with pytest.raises(LostError, match="signal 9"):
        one.ask("die")
    assert one.ask("next") == "next"


def test_a_process_that_was_killed_while_idle_costs_nothing(one: Worker[str, str]) -> None:
    one.ask("first")
    assert one._process is not None
    one._process.kill()
    one._process.wait()
    assert one.ask("second") == "second"


def test_a_task_that_takes_too_long_is_killed_and_the_next_is_done(tmp_path: Path) -> None:
    process = worker(time_limit_s=1.0)
    try:
        process.ask("warm up")
        with pytest.raises(TimeLimitError):
            process.ask(f"hang {tmp_path / 'pid'}")
        assert not alive(pids(tmp_path / "pid")[0])
        assert process.ask("next") == "next"
    finally:
        process.close()


def test_closing_it_ends_what_it_does(tmp_path: Path) -> None:
    process, caught = worker(), []

    def ask() -> None:
        try:
            process.ask(f"hang {tmp_path / 'pid'}")
        except ClosedError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    pid, _ = pids(tmp_path / "pid")
    process.close()
    thread.join(10)
    assert len(caught) == 1
    assert not alive(pid)
    with pytest.raises(ClosedError):
        process.ask("more")


def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    code = f"from helpers.fake_batch import worker; worker().ask('hang {tmp_path / 'pid'}')"
    paths = os.pathsep.join(path for path in sys.path if path)
    owner = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    pid, told = pids(tmp_path / "pid")
    assert told == owner.pid
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    until(lambda: not alive(pid), 10)


def test_what_cannot_be_opened_is_refused_in_its_own_words() -> None:
    process: Worker[str, str] = Worker(refuse, 60, 1)  # type: ignore[arg-type]
    try:
        with pytest.raises(ModelError, match="no such model"):
            process.ask("anything")
    finally:
        process.close()


def test_what_dies_while_it_opens_is_tried_three_times_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.workers.time.sleep", lambda _: None)
    process: Worker[str, str] = Worker(exit_at_once, 60, 1)  # type: ignore[arg-type]
    try:
        with pytest.raises(GroundglassError, match=r"could be started \(exit code 7\)"):
            process.ask("anything")
    finally:
        process.close()


def test_what_the_process_prints_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    process: Worker[str, None] = Worker(chatter, 60, 1)
    try:
        process.ask("PLANTED")
    finally:
        process.close()
    assert capfd.readouterr() == ("", "")
