"""Running the server: its socket, the signals that end it, and closing down."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn

from groundglass.apps.service.app import build
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.connections import LimitedProtocol, Throttle, connection_limit
from groundglass.apps.service.service import Service
from groundglass.errors import ConfigError

SHUTDOWN_GRACE_S = 2  # for responses that are being sent when the server is stopped


def serve(config: ServiceConfig, on_message: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

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
            logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
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
            _uvicorn(service).run(sockets=[listener])
        except KeyboardInterrupt:  # the usual end of a server
            pass
        finally:
            service.close()


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
