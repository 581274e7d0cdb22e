"""A console that prints texts as they are: nothing in a text is a command for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from groundglass.plain_text import printable_lines


class PlainConsole(Console):
    """A console of `rich` on which `?` stands for what cannot be printed: it passes escape sequences on itself."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render an object; every table, progress bar and text passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)
