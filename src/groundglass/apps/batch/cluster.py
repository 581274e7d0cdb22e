"""Run a batch on the workers of an existing Dask cluster, which see the same files under the same paths."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

from distributed import Client, KilledWorker, as_completed, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.processing import BatchWorkerFactory, process_in_worker, record_loss
from groundglass.apps.batch.records import BatchOptions, BatchSettings, ItemRecord, ItemStatus
from groundglass.apps.batch.run import TIME_LIMIT_S, BatchPlan, BatchProgress, record_result
from groundglass.apps.batch.summary import Summary
from groundglass.errors import GroundglassError
from groundglass.inference.open_model import resolve_model
from groundglass.workers import Worker, WorkerClosedError

CONNECT_S = 30


class WorkerProcessPlugin(WorkerPlugin):
    """Gives each thread of a Dask worker a process, which loads the model once and may be killed on its own.

    Args of the constructor:
        settings: Settings of the batch.
        worker_factory: Called in each process, returns the function that processes an item.
        time_limit_s: Time limit for an item, in seconds.
    """

    def __init__(
        self,
        settings: BatchSettings,
        worker_factory: Callable[[], Callable[[BatchItem], ItemRecord]],
        time_limit_s: float,
    ) -> None:
        self.settings, self.worker_factory, self.time_limit_s = settings, worker_factory, time_limit_s

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's own signature
        """Prepare a Dask worker; called by Dask."""
        self._processes: list[Worker[BatchItem, ItemRecord]] = []
        self._idle: SimpleQueue[Worker[BatchItem, ItemRecord]] = SimpleQueue()

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """End the processes; called by Dask when the batch is over or the worker closes."""
        for process in self._processes:
            process.close()

    def process(self, item: BatchItem) -> ItemRecord | GroundglassError | None:
        """Process an item in an idle process.

        Returns:
            The record; None if the batch was ended meanwhile. Errors are returned, not raised, since Dask would log the
            item together with them.
        """
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = Worker(self.worker_factory, self.time_limit_s, threads=1)
            self._processes.append(process)
        try:
            return process_in_worker(item, self.settings, process, self.time_limit_s)
        except WorkerClosedError:
            return None
        except GroundglassError as error:
            return error
        finally:
            self._idle.put(process)


def run_on_cluster(
    address: str,
    plan: BatchPlan,
    progress: BatchProgress,
    time_limit_s: float = TIME_LIMIT_S,
    on_record: Callable[[ItemRecord], None] = lambda _: None,
    worker_factory: Callable[[], Callable[[BatchItem], ItemRecord]] | None = None,
) -> None:
    """Process the pending items on a cluster, and keep the summary up to date.

    Each thread of a Dask worker processes one item at a time. The items of a lost worker go to another one; an item
    that several workers were lost with gets a failed record.

    Args:
        address: Address of the scheduler, such as `tcp://node7:8786`.
        plan: From `plan_batch`.
        progress: Updated whenever the processing of an item ends.
        time_limit_s: Time limit for an item, in seconds.
        on_record: Called with each new record.
        worker_factory: Called in each process, returns the function that processes an item; None for
            `BatchWorkerFactory`.

    Raises:
        GroundglassError: The cluster cannot be reached, sees other files, or was shut down; the model cannot be loaded;
            or the results cannot be written.
    """
    settings, name = plan.settings, f"groundglass-{uuid.uuid4().hex[:12]}"
    worker_factory = worker_factory or BatchWorkerFactory(settings, threads=1)
    summary = Summary(settings.folder, settings.options.pseudonyms)
    client = _connect(address)
    items: dict[Any, BatchItem] = {}  # {future: its item}
    try:
        _check_workers(client, settings)
        client.register_plugin(WorkerProcessPlugin(settings, worker_factory, time_limit_s), name=name)
        items = {client.submit(_process, item, name, key=f"{name}-{item.name}"): item for item in plan.pending}
        for future in as_completed(items, loop=client.loop):
            record_result(_record(future, items[future], settings), progress, summary, on_record)
            future.release()
    finally:
        _disconnect(client, name, list(items))
        summary.write()


def _process(item: BatchItem, name: str) -> ItemRecord | GroundglassError | None:
    return cast(WorkerProcessPlugin, get_worker().plugins[name]).process(item)


def _record(future: Any, item: BatchItem, settings: BatchSettings) -> ItemRecord:
    try:
        result = future.result()
    except KilledWorker:
        reason = "the Dask workers that it was on were lost, one after another"
        return record_loss(item, settings, ItemStatus.FAILED, 0.0, reason)
    except CancelledError:
        result = None
    except Exception as error:
        reason = f"the Dask worker could not process it ({type(error).__name__})"
        return record_loss(item, settings, ItemStatus.FAILED, 0.0, reason)
    if result is None:
        raise GroundglassError("the Dask cluster was shut down: the same command resumes the batch where it stopped")
    if isinstance(result, GroundglassError):
        raise result
    return cast(ItemRecord, result)


def _connect(address: str) -> Client:
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise GroundglassError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}), expected tcp://HOST:PORT: start it first"
        ) from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError:
        client.close()
        raise GroundglassError(f"the Dask cluster at {address} has no workers: start some") from None
    return client


def _check_workers(client: Client, settings: BatchSettings) -> None:
    """Refuse a cluster whose workers do not see the folder of results, or have another version or model."""
    marker = settings.folder / f".groundglass-{uuid.uuid4().hex[:12]}"
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
        answers = client.run(_find_model, marker, settings.options, settings.version, on_error="return")
    finally:
        marker.unlink(missing_ok=True)
    for address, answer in answers.items():
        if answer != settings.rules:
            problem = answer if isinstance(answer, str) else f"no working groundglass ({type(answer).__name__})"
            raise GroundglassError(
                f"the Dask worker {address} has {problem}: expected the same files, version and model as here"
            )


def _find_model(marker: Path, options: BatchOptions, expected_version: str) -> str:
    """Return, on a worker, the rules of its model, which cover the weights, or what it lacks."""
    if not marker.is_file():
        return "no access to the output folder"
    if (found := version("groundglass")) != expected_version:
        return f"groundglass {found} instead of {expected_version}"
    try:
        return resolve_model(options.model, options.engine)[1].rules
    except GroundglassError:
        return "no access to the model"


def _disconnect(client: Client, name: str, futures: list[Any]) -> None:
    """Cancel what is still to be done, end the processes on the workers, and close the connection."""
    with suppress(Exception):  # the cluster may be gone, or the plugin never registered
        client.cancel(futures)
        client.unregister_worker_plugin(name)
    client.close()
