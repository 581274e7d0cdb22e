"""Running the server: its socket, the signals that end it, and closing down."""

from __future__ import annotations

import logging
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvicorn

from groundglass.apps.service.app import build
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.connections import LimitedProtocol, Throttle, connection_limit
from groundglass.apps.service.service import Service
from groundglass.errors import ConfigError

SHUTDOWN_GRACE_S = 2  # for responses that are being sent when the server is stopped


class NamelessFormatter(logging.Formatter):
    """Writes where an error was raised without its text and those of its causes, which may quote names of scans."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # as logging has it
        """Return the first line of a message: in those below it asyncio quotes errors."""
        record.message = record.message.partition("\n")[0]
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  # as logging has it
        """Return the type of an error, and the lines from which it came, the innermost first."""
        kind, _, trace = ei
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(trace)]
        return f"{getattr(kind, '__name__', kind)} in {' from '.join(reversed(places))}"


def serve(config: ServiceConfig, on_message: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, SIGTERM or the end of the terminal.

    Args:
        config: Settings of the server.
        on_message: Called with lines for the user when the server listens: its address, and who may use it.

    Raises:
        ConfigError: The server cannot listen on the address.
        OutputError: The folder cannot be used.
        GroundglassError: The model cannot be loaded.
    """
    with _listen(config.host, config.port) as listener:
        service = Service.open(config)
        try:
            log = logging.StreamHandler()
            log.setFormatter(NamelessFormatter("%(asctime)s %(message)s"))
            logging.basicConfig(level=logging.WARNING, handlers=[log])
            logging.getLogger("groundglass.apps.service").setLevel(logging.INFO)
            for name in ("asyncio", "uvicorn.error"):
                logging.getLogger(name).addFilter(Throttle())
            logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what it says of a body, its sender is told
            LimitedProtocol.limit = connection_limit()
            host = f"[{config.host}]" if ":" in config.host else config.host
            on_message(f"groundglass is at http://{host}:{listener.getsockname()[1]} (press Ctrl-C to stop it)")
            if config.token is None:
                on_message(
                    "there is no token: every user of this machine can read and delete all scans; --token-file FILE "
                    "keeps others out"
                )
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again when it ends
            _hang_up_as_sigterm()
            _uvicorn(service).run(sockets=[listener])
        except KeyboardInterrupt:  # the usual end of a server
            pass
        finally:
            service.close()


def _hang_up_as_sigterm() -> None:
    """Let a closed terminal end the server as SIGTERM does, of which uvicorn knows, unless it is ignored."""
    number = getattr(signal, "SIGHUP", None)  # Windows has none
    if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))


def _uvicorn(service: Service) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            build(service),
            http=LimitedProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            h11_max_incomplete_event_size=64 << 10,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as unless_bound:
            listener = unless_bound.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            unless_bound.pop_all()
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}; name another with --port") from None
    return listener
