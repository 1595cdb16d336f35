"""Small pictures in the page: SVG whose colours come from the page's style sheet, so that they follow light and dark.

Nothing in them needs a style attribute, which the page's content security policy would not let through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from statistics import mean

from ubhpd.bins import ANGLES, CENTRES_DEG, EDGES_DEG
from ubhpd.leaderboard.result import Side
from ubhpd.leaderboard.standings import Entrant, Standing

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 12, 38
LINES = 8  # entrants drawn; more could not be told apart

Point = tuple[float, float]


class _Panel:
    """Axes of one angle: true angle in degrees to the right, values from 0 to `top` upwards."""

    def __init__(self, label: str, top: float) -> None:
        self._label, self._top, self._parts = label, top or 1.0, list[str]()
        step = _nice_step(self._top)
        for value in (step * i for i in range(int(self._top / step + 1e-9) + 1)):
            y = f"{self.y(value):.1f}"
            self._parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            self._parts.append(f'<text x="{LEFT - 5}" y="{y}" dy="3.5" text-anchor="end">{value:g}</text>')
        for degrees in range(-90, 91, 30):
            x = f"{self.x(degrees):.1f}"
            self._parts.append(
                f'<line class="tick" x1="{x}" x2="{x}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 4}"/>'
            )
            self._parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{degrees}</text>')

    def x(self, degrees: float) -> float:
        """Return the place of an angle."""
        return LEFT + (degrees + 90.0) / 180.0 * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the place of a value."""
        return HEIGHT - BOTTOM - value / self._top * (HEIGHT - TOP - BOTTOM)

    def bars(self, values: Sequence[float], css: str) -> None:
        """Draw a bar per bin."""
        for (low, high), value in zip(pairwise(EDGES_DEG), values, strict=True):
            x, y = self.x(float(low)), self.y(value)
            width, height = self.x(float(high)) - x - 1.0, self.y(0.0) - y
            self._parts.append(
                f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            )

    def stairs(self, values: Sequence[float], css: str) -> None:
        """Draw the outline of a histogram."""
        places = [
            (self.x(float(e)), self.y(v)) for pair, v in zip(pairwise(EDGES_DEG), values, strict=True) for e in pair
        ]
        self._path(places, css)

    def line(self, values: Sequence[float | None], css: str) -> None:
        """Draw a line over the bins, with a gap where there is no value, and a dot for each value."""
        places = [
            None if v is None else (self.x(float(c)), self.y(min(v, self._top)))
            for c, v in zip(CENTRES_DEG, values, strict=True)
        ]
        for stretch in _stretches(places):
            self._path(stretch, css)
            self._parts += [f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in stretch]

    def svg(self, told: str) -> str:
        """Return the picture; `told` says in words what it shows."""
        middle = (LEFT + WIDTH - RIGHT) / 2
        label = f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self._label)}</text>'
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
            f"{''.join(self._parts)}{label}</svg>"
        )

    def _path(self, places: Iterable[Point], css: str) -> None:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self._parts.append(f'<polyline class="{css}" points="{points}"/>')


def densities(standing: Standing) -> list[str]:
    """Return a picture per angle: share of the heads per bin, training heads filled, test heads outlined."""
    train, test = standing.result.train, standing.result.test
    drawn = []
    for angle in ANGLES:
        shares = [_shares(side, angle) for side in (train, test)]
        panel = _Panel(f"true {angle}, degrees", 1.06 * max(map(max, shares)))
        panel.bars(shares[0], "train")
        panel.stairs(shares[1], "test")
        outside = f"outside -90 to 90: {train.outside.get(angle, 0):,} and {test.outside.get(angle, 0):,}"
        drawn.append(panel.svg(f"Share of training and of test heads per bin of {angle}; {outside}"))
    return drawn


def errors(standing: Standing) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a picture per angle, mean absolute error per bin of the first entrants, and (class, name) for a legend."""
    first = standing.entrants[:LINES]
    looks = [(f"s{i}", e.name) for i, e in enumerate(first)]
    by_angle = {a: [_over_seeds(e, a) for e in first] for a in ANGLES}
    drawn = []
    for angle, lines in by_angle.items():
        floor = standing.floor.error[angle]
        known = [v for line in lines for v in line if v is not None]
        panel = _Panel(f"true {angle}, degrees", 1.08 * max([*known, *_known(floor)], default=1.0))
        panel.line(floor, "floor")
        for (css, _), line in reversed(list(zip(looks, lines, strict=True))):
            panel.line(line, css)
        drawn.append(panel.svg(f"Mean absolute error of {angle}, in degrees, against the true angle"))
    return drawn, [*looks, ("floor", "mean pose")]


def swatch(css: str) -> str:
    """Return a short piece of a line for a legend."""
    return (
        f'<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true"><polyline class="{css}" points="1,5 29,5"/>'
        f'<circle class="{css}" cx="15" cy="5" r="2.2"/></svg>'
    )


def _over_seeds(entrant: Entrant, angle: str) -> list[float | None]:
    lines = [f.result.bins[angle].error for f in entrant.found]
    return [None if None in own else mean(v for v in own if v is not None) for own in zip(*lines, strict=True)]


def _shares(side: Side, angle: str) -> list[float]:
    total = sum(side.bins[angle])
    return [n / total if total else 0.0 for n in side.bins[angle]]


def _known(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _stretches(places: Sequence[Point | None]) -> list[list[Point]]:
    found: list[list[Point]] = [[]]
    for place in places:
        if place is not None:
            found[-1].append(place)
        elif found[-1]:
            found.append([])
    return [f for f in found if f]


def _nice_step(top: float) -> float:
    """Return 1, 2 or 5 times a power of ten, of which 3 to 6 fit below the top."""
    power = 10.0 ** math.floor(math.log10(top / 3))
    return next(power * m for m in (1, 2, 5, 10) if top / (power * m) < 6)
