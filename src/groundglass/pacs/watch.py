"""The watcher as a whole: from what is asked for to a loop that runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from groundglass.inference.card import bundled_model, read_card
from groundglass.pacs.access import check_url, find_credentials, goes_in_clear, open_session
from groundglass.pacs.dicomweb import DicomWeb, Searched
from groundglass.pacs.ledger import Ledger
from groundglass.pacs.loop import USUAL_PACE, Pace, Say, Tally, Watcher
from groundglass.pacs.orthanc import DICOM_WEB, Orthanc
from groundglass.pacs.segmenting import Made, Opener, Task
from groundglass.pacs.spool import Spool, lock
from groundglass.worker import Worker, cores


@dataclass(frozen=True)
class Wish:
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
    wish: Wish,
    pace: Pace = USUAL_PACE,
    once: bool = False,
    say: Say = lambda _: None,
    opener: Callable[[], Callable[[Task], Made]] | None = None,
) -> Tally:
    """Watch a PACS until interrupted; or do what is there, and end.

    However it ends, the same call goes on from there.

    Args:
        wish: What and how.
        pace: How fast.
        once: End when nothing is due any more.
        say: Called with a line for each event.
        opener: Loads what segments a series, in the worker process; None: `Opener`.

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
    url, credentials = check_url(wish.url), find_credentials(wish.credentials)
    read_card(wish.model or bundled_model())
    session = open_session(credentials, wish.ca)
    if goes_in_clear(url, credentials):
        say("the credentials go over the network unencrypted: use https")
    archive = DicomWeb(url if wish.dicomweb else url + DICOM_WEB, session)
    source = Searched(archive, wish.since) if wish.dicomweb else Orthanc(url, session, wish.since)
    worker = Worker[Task, Made](opener or Opener(wish.model), pace.time_limit_s, cores())
    with _sigterm_as_ctrl_c(), lock(wish.folder), session, closing(worker), closing(Ledger(wish.folder)) as ledger:
        ledger.belong(f"{'DICOMweb' if wish.dicomweb else 'Orthanc'} {url}")
        if wish.again:
            say(f"{ledger.again()} series are tried again")
        known = ", ".join(f"{count} {state}" for state, count in ledger.counts().items()) or "no series yet"
        say(f"watching {url}; {wish.folder} knows {known}")
        watcher = Watcher(source, archive, ledger, Spool(wish.folder), worker, pace, say)
        watcher.run(once)
        return watcher.tally


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Both end what is waited for at once, whatever the one that started the program made of them."""
    before = [(each, signal.signal(each, signal.default_int_handler)) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler or signal.SIG_DFL)
