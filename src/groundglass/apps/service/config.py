"""What a server is asked to be: where it listens, who may speak to it, and how much it takes."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from groundglass.errors import ConfigError
from groundglass.inference.engine_config import DEFAULT_ENGINE_CONFIG, EngineConfig

MIN_TOKEN = 16  # characters: 16 random ones cannot be guessed over a network


@dataclass(frozen=True)
class ServiceConfig:
    """A server.

    Attributes:
        folder: Where scans and results are kept.
        host: Address to listen at.
        port: 0: any that is free.
        token: What a client must show; None: nothing, which only loopback may.
        names: Host names that it is called by, beside its address and loopback's names.
        model: An ONNX file with its card; None: the bundled one.
        engine: What runs it.
        time_limit_s: For a scan.
        keep_hours: How long results are kept.
        queue: Scans that may wait.
        upload_bytes: Of one scan.
        upload_files: Of one scan.
        slices: Of one scan.

    Raises:
        ConfigError: It would listen to the network without a token, or the token is too short.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8642
    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    model: Path | None = None
    engine: EngineConfig = DEFAULT_ENGINE_CONFIG
    time_limit_s: float = 600.0
    keep_hours: float = 168.0
    queue: int = 32
    upload_bytes: int = 2 << 30
    upload_files: int = 5000
    slices: int = 3000

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host} is seen by other machines, and there is no token: write one into a file "
                "(openssl rand -hex 32 > token) and give --token-file token, or stay at 127.0.0.1"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise ConfigError(
                f"the token has {len(self.token)} characters, expected at least {MIN_TOKEN}: openssl rand -hex 32"
            )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token in a file: its first line.

    Raises:
        ConfigError: The file cannot be read, or others than its owner may read it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no plain text"
        raise ConfigError(f"the token cannot be read from {path}: {reason}") from None
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{path} holds a token and can be read by others: chmod 600 {path}")
    return text
