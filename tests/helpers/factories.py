"""Worker factories that fail or misbehave; a worker process imports them by name."""

import os
from collections.abc import Callable

from groundglass.errors import ModelError


def refuse() -> None:
    raise ModelError("no such model")


def exit_at_once() -> None:
    os._exit(7)


def chatter() -> Callable[[str], None]:
    def talk(text: str) -> None:
        os.write(1, text.encode())
        os.write(2, text.encode())

    return talk
