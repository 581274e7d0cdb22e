import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from groundglass.parallel import in_background, map_in_threads, one_ahead
from helpers.scripted_worker import is_alive, wait_until

KILLED_WITH_A_POOL = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from groundglass.parallel import end_with_parent
with ProcessPoolExecutor(3, initializer=end_with_parent) as pool:
    pool.map(time.sleep, [0.2] * 3)
    print(*{pool.submit(os.getpid).result(), *pool._processes}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


ENDED_WITH_A_POOL = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from groundglass.parallel import end_with_parent
number = getattr(signal, sys.argv[1])
signal.signal(number, signal.default_int_handler)
begun = multiprocessing.Semaphore(0)
def begin():
    end_with_parent()
    begun.release()
with ProcessPoolExecutor(3, initializer=begin) as pool:
    pool.map(time.sleep, [0.2] * 3)
    for _ in range(3):
        begun.acquire()
    try:
        os.killpg(os.getpgid(0), number)
        while True:  # a single long sleep may begin before Python has looked for signals, and lasts
            time.sleep(0.1)
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a system without process groups")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_processes_of_a_pool_end_without_a_word_by_a_signal_that_reaches_their_parent_too(name: str) -> None:
    command = [sys.executable, "-c", ENDED_WITH_A_POOL, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, start_new_session=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


INTERRUPTED_WITH_A_POOL = """
import signal, time
from concurrent.futures import ProcessPoolExecutor
from groundglass.parallel import end_with_parent, ended_at_once
def work(_):
    time.sleep(600)
try:
    with ProcessPoolExecutor(2, initializer=end_with_parent) as pool, ended_at_once():
        waiting = [pool.submit(work, number) for number in range(4)]
        time.sleep(1)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_pool_whose_owner_is_interrupted_does_not_end_its_tasks_first() -> None:
    command = [sys.executable, "-c", INTERRUPTED_WITH_A_POOL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_function_runs_in_the_background_until_its_result_is_needed() -> None:
    caller_went_on = threading.Event()
    waiting = in_background(caller_went_on.wait, timeout=10)
    caller_went_on.set()
    assert waiting.result()
    with pytest.raises(ValueError, match="invalid literal"):
        in_background(int, "no number").result()


def test_a_program_that_ends_does_not_wait_for_what_runs_in_the_background() -> None:
    code = "import time; from groundglass.parallel import in_background; in_background(time.sleep, 600)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_the_next_item_is_made_while_one_is_used() -> None:
    second_is_made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second_is_made.set()
        yield 2

    for item in one_ahead(items()):
        assert second_is_made.wait(10), "the first item is used before the second one is made"
        assert item in (1, 2)


def test_one_ahead_keeps_order_and_items_that_are_none() -> None:
    assert list(one_ahead([3, None, 1])) == [3, None, 1]
    assert list(one_ahead([])) == []


def test_an_error_comes_in_the_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    made = one_ahead(items())
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_results_of_threads_come_in_order_and_are_not_made_far_ahead() -> None:
    taken = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_threads(lambda number: number**2, numbers(), threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) < 10
    assert list(results) == [number**2 for number in range(3, 100)]


def test_after_an_error_no_other_argument_is_begun() -> None:
    failed, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            failed.set()
            raise ZeroDivisionError
        assert failed.wait(10)
        time.sleep(0.1)  # the error is noticed meanwhile

    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(work, range(5), threads=2))
    assert len(begun) < 5


def test_two_threads_work_at_once() -> None:
    both = threading.Barrier(2)
    assert list(map_in_threads(lambda _: both.wait(10) >= 0, range(4), threads=2)) == [True] * 4


def test_processes_of_a_pool_end_when_their_parent_is_killed() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WITH_A_POOL], stdout=subprocess.PIPE, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    wait_until(lambda: not any(map(is_alive, pids)))
