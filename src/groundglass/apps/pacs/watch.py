"""The command `watch`: from its options to a running watcher."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from groundglass.apps.pacs.access import check_url, load_credentials, open_session, sends_unencrypted
from groundglass.apps.pacs.dicomweb import DicomWebArchive, DicomWebSource
from groundglass.apps.pacs.ledger import Ledger
from groundglass.apps.pacs.orthanc import DICOM_WEB, OrthancSource
from groundglass.apps.pacs.processing import SegmentationResult, SeriesTask, WatchWorkerFactory
from groundglass.apps.pacs.retrieval import RETRIEVAL_BYTES, RETRIEVAL_S, RetrievalTask, RetrieverFactory
from groundglass.apps.pacs.spool import Spool, lock_watch_folder
from groundglass.apps.pacs.watcher import DEFAULT_RETRY_POLICY, RetryPolicy, WatchCounts, Watcher
from groundglass.inference.open_model import resolve_model
from groundglass.workers import Worker, available_cores


@dataclass(frozen=True)
class WatchOptions:
    """The PACS to watch, and the options of the watch.

    Attributes:
        url: Root of an Orthanc server or, with `dicomweb`, of any DICOMweb server.
        folder: Folder of the ledger and the spool.
        dicomweb: Whether to search by QIDO-RS instead of reading Orthanc's changes.
        since: Day of the oldest study to take; None for all studies.
        model: ONNX file; None for the bundled model.
        credentials: TOML file; None to take the credentials from the environment, if set there.
        ca: PEM file of the certificate authorities to trust; None for those of certifi.
        again: Whether to retry the series that were refused or given up.
    """

    url: str
    folder: Path
    dicomweb: bool = False
    since: date | None = None
    model: Path | None = None
    credentials: Path | None = None
    ca: Path | None = None
    again: bool = False


def watch(
    options: WatchOptions,
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
    once: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
    worker_factory: Callable[[], Callable[[SeriesTask], SegmentationResult]] | None = None,
) -> WatchCounts:
    """Watch a PACS until interrupted, or process the series that are there and return.

    However it ends, the same call resumes the watch.

    Args:
        options: The PACS to watch, and the options of the watch.
        retry_policy: Time limits, pauses and number of tries.
        once: Whether to return when no series is due any more.
        on_message: Called with a line for each event.
        worker_factory: Called in the worker process, returns the function that segments a series; None for
            `WatchWorkerFactory`.

    Returns:
        How the series of this call ended.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
        ConfigError: URL or credentials are malformed, or the folder belongs to another server or is in use.
        PacsError: The server refused the first request; with `once`, the server failed.
        OutputError: The folder cannot be written.
        ModelError: The model is missing or damaged.
        WorkerStartError: With `once`, no worker process can be started, or the model cannot be loaded.
    """
    url, credentials = check_url(options.url), load_credentials(options.credentials)
    resolve_model(options.model)  # raises the ModelError before anything is created
    session = open_session(credentials, options.ca)
    if sends_unencrypted(url, credentials):
        on_message("the credentials go over the network unencrypted: use https")
    web_url = url if options.dicomweb else url + DICOM_WEB
    archive = DicomWebArchive(web_url, session)
    source = (
        DicomWebSource(archive, options.since, on_message)
        if options.dicomweb
        else OrthancSource(url, session, options.since)
    )
    retriever = Worker[RetrievalTask, int](
        RetrieverFactory(web_url, credentials, options.ca), RETRIEVAL_S, 1, RETRIEVAL_BYTES
    )
    worker = Worker[SeriesTask, SegmentationResult](
        worker_factory or WatchWorkerFactory(options.model), retry_policy.time_limit_s, available_cores()
    )
    with (
        _sigterm_as_ctrl_c(),
        lock_watch_folder(options.folder),
        session,
        closing(retriever),
        closing(worker),
        closing(Ledger(options.folder)) as ledger,
    ):
        ledger.bind_to_server(f"{'DICOMweb' if options.dicomweb else 'Orthanc'} {url}")
        if options.again:
            on_message(f"{ledger.retry_all()} series are tried again")
        known = ", ".join(f"{count} {state.label}" for state, count in ledger.counts().items()) or "no series yet"
        on_message(f"watching {url}; {options.folder} knows {known}")
        watcher = Watcher(source, archive, ledger, Spool(options.folder), retriever, worker, retry_policy, on_message)
        watcher.run(once)
        return watcher.counts


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let both signals raise KeyboardInterrupt, even if the parent process had them ignored."""
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
