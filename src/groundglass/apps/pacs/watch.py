"""The watcher as a whole: from what is asked for to a loop that runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from groundglass.apps.pacs.access import check_url, find_credentials, goes_in_clear, open_session
from groundglass.apps.pacs.dicomweb import DicomWeb, Searched
from groundglass.apps.pacs.ledger import Ledger
from groundglass.apps.pacs.orthanc import DICOM_WEB, Orthanc
from groundglass.apps.pacs.processing import SegmentationResult, SeriesTask, WatchWorkerFactory
from groundglass.apps.pacs.spool import Spool, lock
from groundglass.apps.pacs.watcher import DEFAULT_RETRY_POLICY, RetryPolicy, Say, WatchCounts, Watcher
from groundglass.inference.model_card import bundled_model, read_card
from groundglass.workers import Worker, cores


@dataclass(frozen=True)
class WatchOptions:
    """What is to be watched, and how.

    Attributes:
        url: Orthanc's root; or with `dicomweb` a DICOMweb server's.
        folder: Of ledger and spool.
        dicomweb: Search by QIDO-RS instead of reading Orthanc's changes.
        since: Only studies of this day or later; None: all.
        model: The ONNX file; None: the bundled one.
        credentials: A TOML file; None: from the environment, if there.
        ca: The authorities' PEM file; None: the usual ones.
        again: Try once more what was refused or left.
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
    on_message: Say = lambda _: None,
    opener: Callable[[], Callable[[SeriesTask], SegmentationResult]] | None = None,
) -> WatchCounts:
    """Watch a PACS until interrupted; or do what is there, and end.

    However it ends, the same call goes on from there.

    Args:
        wish: What and how.
        pace: How fast.
        once: End when nothing is due any more.
        say: Called with a line for each event.
        opener: Loads what segments a series, in the worker process; None: `WatchWorkerFactory`.

    Returns:
        What became of the series of this call.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGTERM.
        ConfigError: URL, credentials or folder are not as they should be.
        PacsError: The first question was refused; with `once`, the server failed.
        OutputError: The folder cannot be written.
        ModelError: The model is missing or damaged.
        GroundglassError: No worker process can be started.
    """
    url, credentials = check_url(options.url), find_credentials(options.credentials)
    read_card(options.model or bundled_model())
    session = open_session(credentials, options.ca)
    if goes_in_clear(url, credentials):
        on_message("the credentials go over the network unencrypted: use https")
    archive = DicomWeb(url if options.dicomweb else url + DICOM_WEB, session)
    source = Searched(archive, options.since) if options.dicomweb else Orthanc(url, session, options.since)
    worker = Worker[SeriesTask, SegmentationResult](
        opener or WatchWorkerFactory(options.model), retry_policy.time_limit_s, cores()
    )
    with (
        _sigterm_as_ctrl_c(),
        lock(options.folder),
        session,
        closing(worker),
        closing(Ledger(options.folder)) as ledger,
    ):
        ledger.belong(f"{'DICOMweb' if options.dicomweb else 'Orthanc'} {url}")
        if options.again:
            on_message(f"{ledger.again()} series are tried again")
        known = ", ".join(f"{count} {state}" for state, count in ledger.counts().items()) or "no series yet"
        on_message(f"watching {url}; {options.folder} knows {known}")
        watcher = Watcher(source, archive, ledger, Spool(options.folder), worker, retry_policy, on_message)
        watcher.run(once)
        return watcher.counts


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Both end what is waited for at once, whatever the one that started the program made of them."""
    before = [(each, signal.signal(each, signal.default_int_handler)) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler or signal.SIG_DFL)
