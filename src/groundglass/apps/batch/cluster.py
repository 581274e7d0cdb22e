"""A batch on the workers of an existing Dask cluster, which see the same files under the same paths."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

from distributed import Client, KilledWorker, as_completed, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from groundglass.apps.batch.items import BatchItem
from groundglass.apps.batch.processing import BatchWorkerFactory, hand_over, lost
from groundglass.apps.batch.records import BatchOptions, BatchSettings, CaseRecord, CaseStatus
from groundglass.apps.batch.run import TIME_LIMIT_S, BatchProgress, Plan, record_result
from groundglass.apps.batch.summary import Summary
from groundglass.errors import GroundglassError
from groundglass.inference.open_model import resolve_model
from groundglass.workers import ClosedError, Worker

CONNECT_S = 30


class Processes(WorkerPlugin):
    """On a Dask worker: a process for each of its threads, which loads the model once and may be killed by itself.

    Args of the constructor:
        job: What is asked of every case.
        opener: Loads what does a case.
        time_limit_s: For a case.
    """

    def __init__(
        self, settings: BatchSettings, opener: Callable[[], Callable[[BatchItem], CaseRecord]], time_limit_s: float
    ) -> None:
        self.settings, self.opener, self.time_limit_s = settings, opener, time_limit_s

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's own signature
        """Called by Dask when the worker is there."""
        self._all: list[Worker[BatchItem, CaseRecord]] = []
        self._idle: SimpleQueue[Worker[BatchItem, CaseRecord]] = SimpleQueue()

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """Called by Dask when the batch is over, or the worker closes."""
        for each in self._all:
            each.close()

    def do(self, case: BatchItem) -> CaseRecord | GroundglassError | None:
        """Do a case; None: the batch was ended meanwhile. Nothing is raised, since Dask logs what was asked then."""
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = Worker(self.opener, self.time_limit_s, threads=1)
            self._all.append(process)
        try:
            return hand_over(case, self.settings, process, self.time_limit_s)
        except ClosedError:
            return None
        except GroundglassError as error:
            return error
        finally:
            self._idle.put(process)


def run_on_cluster(
    address: str,
    plan: Plan,
    progress: BatchProgress,
    time_limit_s: float = TIME_LIMIT_S,
    on_record: Callable[[CaseRecord], None] = lambda _: None,
    opener: Callable[[], Callable[[BatchItem], CaseRecord]] | None = None,
) -> None:
    """Do what is left to do on a cluster, and keep the summary. Every thread of a worker does a case at a time.

    A lost worker's cases go to another one; a case that several were lost with becomes a row.

    Args:
        address: Of the scheduler, such as `tcp://node7:8786`.
        plan: From `plan`.
        tally: Gets every case as it ends.
        time_limit_s: For a case.
        said: Called with each record.
        opener: Loads what does a case, in each process; None: `BatchWorkerFactory`.

    Raises:
        GroundglassError: The cluster cannot be reached, sees other files, or went away.
    """
    settings, name = plan.settings, f"groundglass-{uuid.uuid4().hex[:12]}"
    summary = Summary(settings.folder, settings.options.with_identity)
    client = _client(address)
    asked: dict[Any, BatchItem] = {}
    try:
        _check_sight(client, settings)
        client.register_plugin(Processes(settings, opener or BatchWorkerFactory(settings, 1), time_limit_s), name=name)
        asked = {client.submit(_do, case, name, key=f"{name}-{case.name}"): case for case in plan.waiting}
        for future in as_completed(asked, loop=client.loop):
            record_result(_record(future, asked[future], settings), progress, summary, on_record)
            future.release()
    finally:
        _leave(client, name, list(asked))
        summary.write()


def _do(case: BatchItem, name: str) -> CaseRecord | GroundglassError | None:
    return cast(Processes, get_worker().plugins[name]).do(case)


def _record(future: Any, case: BatchItem, settings: BatchSettings) -> CaseRecord:
    try:
        result = future.result()
    except KilledWorker:
        return lost(
            case, settings, CaseStatus.FAILED, 0.0, "the Dask workers that it was on were lost, one after another"
        )
    except CancelledError:
        result = None
    except Exception as error:
        return lost(case, settings, CaseStatus.FAILED, 0.0, f"the Dask worker could not do it ({type(error).__name__})")
    if result is None:
        raise GroundglassError("the Dask cluster went away: the same command goes on where it stopped")
    if isinstance(result, GroundglassError):
        raise result
    return cast(CaseRecord, result)


def _client(address: str) -> Client:
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


def _check_sight(client: Client, settings: BatchSettings) -> None:
    """Refuse a cluster whose workers do not see the folder of results, or have another model."""
    marker = settings.folder / f".groundglass-{uuid.uuid4().hex[:12]}"
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
        seen = client.run(_seen, marker, settings.options, on_error="return")
    finally:
        marker.unlink(missing_ok=True)
    for address, told in seen.items():
        if told != settings.used.sha256:
            why = told if isinstance(told, str) else f"no groundglass that answers ({type(told).__name__})"
            raise GroundglassError(f"the Dask worker {address} has {why}: expected the same files and model as here")


def _seen(marker: Path, options: BatchOptions) -> str:
    """On a worker: the sha256 of its model, or what it lacks."""
    if not marker.is_file():
        return "no sight of the output folder"
    try:
        return resolve_model(options.model, options.engine)[1].sha256
    except GroundglassError:
        return "no sight of the model"


def _leave(client: Client, name: str, asked: list[Any]) -> None:
    """Take what is still to be done and the processes off the cluster, and go."""
    with suppress(Exception):  # the cluster may be gone, or the plugin have never been there
        client.cancel(asked)
        client.unregister_worker_plugin(name)
    client.close()
