"""Steps that overlap: threads, in which the libraries that compute release Python's lock; the order stays.

And what processes of a pool need, so that they end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_background(function: Callable[..., Result], *arguments: Any, **options: Any) -> Future[Result]:
    """Call a function in a thread of its own; `result()` waits for what it returns, and raises what it raises.

    A program that ends meanwhile, as on Ctrl-C, does not wait for it: it may be abandoned at any point.
    """
    called: Future[Result] = Future()

    def call() -> None:
        try:
            called.set_result(function(*arguments, **options))
        except BaseException as error:
            called.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return called


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items while a thread makes the next one. What making one raises is raised in its place."""
    remaining, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        upcoming: Future[Item | object] = pool.submit(next, remaining, end)
        while (item := upcoming.result()) is not end:
            upcoming = pool.submit(next, remaining, end)
            yield item  # type: ignore[misc]  # it is no `end`


def end_with_parent() -> None:
    """Let this process of a pool end as soon as its parent has: it would wait for tasks for ever if that is killed.

    A signal that reaches the parent too, such as Ctrl-C, ends it without a word: what there is to say, the parent says.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called by the parent itself"
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def ended_at_once() -> Iterator[None]:
    """End the processes of all pools where this one is interrupted inside `with`, so that it does not wait for them."""
    try:
        yield
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        raise


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield the results of a function in the order of its arguments, as `map` does.

    Args:
        function: Called in several threads at once.
        items: The arguments, taken one after the other. A few results for each thread at most wait to be yielded.
        threads: Number of threads.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # after an error nothing more begins
            pool.shutdown(wait=False, cancel_futures=True)
