"""Listening: a socket, the server on it, and its end."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable

import uvicorn

from groundglass.apps.service.app import build
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.service import Service
from groundglass.errors import ConfigError

GRACE_S = 2  # for answers that are on their way when the server is to end


def serve(config: ServiceConfig, on_message: Callable[[str], None]) -> None:
    """Listen until Ctrl-C or SIGTERM.

    Args:
        config: Of the server.
        say: Called with the address, once it is listened at.

    Raises:
        ConfigError: The address cannot be listened at.
        OutputError: The folder cannot be used.
        GroundglassError: The model cannot be loaded.
    """
    listener = _listen(config.host, config.port)
    with listener:
        service = Service.open(config)
        try:
            logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
            logging.getLogger("groundglass.apps.service").setLevel(logging.INFO)
            server = uvicorn.Server(
                uvicorn.Config(
                    build(service),
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=GRACE_S,
                    h11_max_incomplete_event_size=64 << 10,
                )
            )
            host = f"[{config.host}]" if ":" in config.host else config.host
            on_message(f"http://{host}:{listener.getsockname()[1]}")
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # which uvicorn raises again at its end
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # how a server is ended
            pass
        finally:
            service.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host} port {port}: {error.strerror}; name another with --port") from None
    return listener
