"""Settings of a server: the address it listens on, who may use it, and its limits."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from groundglass.errors import ConfigError
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig

MIN_TOKEN_LENGTH = 16  # characters: 16 random ones cannot be guessed over a network
MIN_KEEP_HOURS = 0.01
MAX_KEEP_HOURS = 87_600.0  # ten years: the date on which results expire must be one


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of a server.

    Attributes:
        folder: Folder that keeps scans and results.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        token: Secret that clients must send; None asks for none, which is allowed on loopback only.
        host_names: Host names under which clients reach the server, besides `host` and the loopback names.
        model: ONNX file with its card, or a run folder; None for the bundled model.
        engine: How the model is run.
        time_limit_s: Longest processing time of one scan, in seconds.
        keep_hours: Time after which results are deleted, in hours.
        queue_size: Largest number of scans that may wait.
        max_upload_bytes: Largest upload for one scan.
        max_upload_files: Largest number of files of one scan.
        max_slices: Largest number of slices of one scan.

    Raises:
        ConfigError: The server would listen to the network without a token, the token is too short, or results would be
            kept for ever.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = field(default=None, repr=False)
    host_names: tuple[str, ...] = ()
    model: Path | None = None
    engine: EngineConfig = DEFAULT_ENGINE_CONFIG
    time_limit_s: float = 600.0
    keep_hours: float = 168.0
    queue_size: int = 32
    max_upload_bytes: int = 2 << 30
    max_upload_files: int = 5000
    max_slices: int = 3000

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host} can be reached from other machines, and there is no token: write one into a file "
                "(openssl rand -hex 32 > token) and give --token-file token, or listen on 127.0.0.1"
            )
        if not MIN_KEEP_HOURS <= self.keep_hours <= MAX_KEEP_HOURS:
            raise ConfigError(
                f"results cannot be kept for {self.keep_hours:g} h, expected {MIN_KEEP_HOURS:g} to "
                f"{MAX_KEEP_HOURS:g}: copy them"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN_LENGTH:
            raise ConfigError(
                f"the token has {len(self.token)} characters, expected at least {MIN_TOKEN_LENGTH}: "
                "make one with openssl rand -hex 32"
            )


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """Read the token from a file, without the white space around it.

    Raises:
        ConfigError: The file cannot be read, users other than its owner may read it, or it holds more than a token.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain ASCII text"
        raise ConfigError(f"the token cannot be read from {path}: {reason}") from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{path} holds a token and can be read by other users: chmod 600 {path}")
    if not text.isprintable():  # no header of a request can hold it
        raise ConfigError(f"{path} holds several lines or control characters, expected one token alone on a line")
    return text
