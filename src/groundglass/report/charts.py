"""Charts as SVG: axes with ticks, in units of their own, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 16, 40
TICKS = 4


class Chart:
    """A chart that is drawn into: `x` and `y` bring values to places."""

    def __init__(self, x_range: tuple[float, float], top: float) -> None:
        """Axes from `x_range`, and from 0 to at least `top`."""
        self.x_range, self.top = x_range, round_up(top)
        self.parts: list[str] = []
        for tick in range(TICKS + 1):
            value = self.top * tick / TICKS
            height = self.y(value)
            self.parts.append(
                f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
                f'<text x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{value:g}</text>'
            )

    def x(self, value: float) -> float:
        """Where a value lies along the chart."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - RIGHT - LEFT)

    def y(self, value: float) -> float:
        """Where a value lies above the chart's foot."""
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)

    def add(self, part: str) -> None:
        """Draw an element of SVG."""
        self.parts.append(part)

    def line(self, points: Sequence[tuple[float, float]], name: str) -> None:
        """A line through (x, y) values, of a class of the style sheet."""
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.add(f'<polyline class="{name}" points="{places}"/>')

    def x_label(self, value: float, text: str) -> None:
        """A word below the axis."""
        self.add(f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{text}</text>')

    def svg(self, spoken: str) -> str:
        """The whole chart; `spoken` tells it to who cannot see it."""
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">{"".join(self.parts)}</svg>'


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
