"""Charts as SVG with axes and ticks, coloured by the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 16, 40
TICKS = 4
ROUND = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # ends of an axis, whose quarters are short numbers too


class Chart:
    """A chart to draw on. Every text and attribute is escaped."""

    def __init__(self, x_range: tuple[float, float], top: float) -> None:
        """Draw the axes: `x_range` horizontally, and from 0 to a round number not below `top` vertically."""
        self.x_range, self.top = x_range, round_up(top)
        self._elements: list[Markup] = []
        for tick in range(TICKS + 1):
            value = self.top * tick / TICKS
            height = self.y(value)
            self.add(
                "line", {"class": "axis", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": f"{height:.1f}", "y2": f"{height:.1f}"}
            )
            self.text(LEFT - 8, f"{height + 4:.1f}", f"{value:g}", "end")

    def x(self, value: float) -> float:
        """Return the horizontal position of a value in the drawing."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - RIGHT - LEFT)

    def y(self, value: float) -> float:
        """Return the vertical position of a value in the drawing."""
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def add(self, tag: str, attributes: Mapping[str, object], text: str = "") -> None:
        """Add an SVG element with its attributes and text."""
        pairs = Markup(" ").join(Markup('{}="{}"').format(name, value) for name, value in attributes.items())
        self._elements.append(Markup("<{0} {1}>{2}</{0}>").format(tag, pairs, text))

    def text(self, x: object, y: object, text: str, anchor: str = "middle") -> None:
        """Add a text at a position in the drawing."""
        self.add("text", {"x": x, "y": y, "text-anchor": anchor}, text)

    def line(self, points: Sequence[tuple[float, float]], css_class: str) -> None:
        """Draw a line through (x, y) values in the style of a CSS class."""
        positions = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.add("polyline", {"class": css_class, "points": positions})

    def area(self, points: Sequence[tuple[float, float]], css_class: str) -> None:
        """Draw a filled polygon through (x, y) values in the style of a CSS class."""
        positions = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.add("polygon", {"class": css_class, "points": positions})

    def x_label(self, value: float, text: str) -> None:
        """Write a label below the horizontal axis at a value."""
        self.text(f"{self.x(value):.1f}", HEIGHT - BOTTOM + 20, text)

    def x_title(self, value: float, text: str) -> None:
        """Write the title of the horizontal axis below its labels, centred at a value."""
        self.text(f"{self.x(value):.0f}", HEIGHT - 4, text)

    def svg(self, description: str) -> Markup:
        """Return the whole chart; screen readers read out `description`."""
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, description, Markup("").join(self._elements)
        )


def round_up(value: float) -> float:
    """Return the smallest of `ROUND` times a power of ten that is not below `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in ROUND if step * power >= value * (1 - 1e-9))
