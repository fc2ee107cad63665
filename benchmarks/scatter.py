"""Time against margin error as an SVG that is legible on light and dark pages: both axes are
logarithmic, and down and to the left is better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from chart import STYLE, text
from exactness import EXACT, exactness
from tables import cells, machine_line

WIDTH, HEIGHT = 860, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 76
LINE, LETTER = 14, 6.6  # a label's height, and about the width of a letter
LEAST = 1e-6  # margin errors below are drawn there: those of float32 arithmetic, and none
STEPS = (1, 2, 5)
LIMIT = f"equally exact: {EXACT} or less"
Area = tuple[float, float, float]  # of a line's height: from where to where, and how low
MORE_STYLE = """
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .leader { stroke: #8c959f; stroke-width: 1 }
  .limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 6 4 }
  @media (prefers-color-scheme: dark) {
    .grid { stroke: #3d444d }
    .limit { stroke: #ff7b72 }
  }
"""


@dataclass(frozen=True)
class Point:
    """A peer: milliseconds for the workload, its margin error, and whether it is this project's."""

    peer: str
    milliseconds: float
    error: float
    own: bool


@dataclass(frozen=True)
class Axes:
    """The ranges of the axes: powers of ten for the margin error, any milliseconds."""

    fastest: float
    slowest: float
    most: float

    def x(self, milliseconds: float) -> float:
        share = math.log(milliseconds / self.fastest) / math.log(self.slowest / self.fastest)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, error: float) -> float:
        share = math.log(max(error, LEAST) / LEAST) / math.log(self.most / LEAST)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def svg(results: dict[str, Any], ours: str, workload: str) -> str:
    """A point for each peer that was timed at the workload and whose margin error is known."""
    every = points(results, ours, workload)
    axes = axes_of(every)
    parts = [
        text(0, 20, f"{escape(workload)}: ms, against the margin error", "title"),
        *_grid(axes),
        *_limit(axes),
        *_labelled_points(every, axes),
        text(0, HEIGHT - 10, escape(machine_line(results)), "note"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="Time and margin error of each peer: down and to the left is better">\n'
        f"<style>{STYLE}{MORE_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def points(results: dict[str, Any], ours: str, workload: str) -> list[Point]:
    """The peers whose margin error is known, at a workload."""
    exact = exactness(results)
    found = []
    for cell in cells(results, ours):
        error = exact[cell.peer].margin_error if cell.peer in exact else None
        if cell.workload == workload and error is not None:
            own = bool(results["peers"][cell.peer].get("own"))
            found.append(Point(cell.peer, cell.milliseconds, error, own))
    return found


def axes_of(every: list[Point]) -> Axes:
    """Axes with all points on them, and room for a label to the right of the slowest."""
    times = [point.milliseconds for point in every] or [1.0]
    most = max([1.0, *(10 ** math.ceil(math.log10(max(it.error, LEAST))) for it in every)])
    return Axes(min(times) / 1.3, max(times) * 2.5, most)


def _grid(axes: Axes) -> Iterator[str]:
    """Lines at powers of ten of the margin error and at round milliseconds, with their numbers."""
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    for power in range(round(math.log10(LEAST)), round(math.log10(axes.most)) + 1):
        y = axes.y(10.0**power)
        yield f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        words = f"{10.0**power:g}" if power >= -3 else f"1e{power}"
        yield text(left - 8, y + 4, f"≤ {words}" if 10.0**power <= LEAST else words, "note", "end")
    for power in range(math.floor(math.log10(axes.fastest)), math.ceil(math.log10(axes.slowest))):
        for value in (step * 10.0**power for step in STEPS):
            if axes.fastest <= value <= axes.slowest:
                x = axes.x(value)
                yield f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'
                yield text(x, bottom + 18, f"{value:g} ms", "note", "middle")


def _limit(axes: Axes) -> Iterator[str]:
    """The line up to which peers are equally exact."""
    y = axes.y(EXACT)
    yield f'<line class="limit" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    yield text(WIDTH - RIGHT - 4, y - 6, LIMIT, "note", "end")


def _labelled_points(every: list[Point], axes: Axes) -> Iterator[str]:
    """Each point with its name beside it, or higher or lower at the end of a line where something
    else is in the way: another name, another point, or the limit and its name."""
    limit = axes.y(EXACT)
    begin = WIDTH - RIGHT - LETTER * len(LIMIT)
    taken: list[Area] = [(LEFT, WIDTH, limit), (begin, WIDTH, limit - LINE)]
    places = [(axes.x(it.milliseconds), axes.y(it.error)) for it in every]
    taken += [(x - 6, x + 6, y) for x, y in places]
    points_at = sorted(
        zip(every, places, strict=True), key=lambda it: (not it[0].own, *it[1][::-1])
    )
    for point, (x, y) in points_at:
        words = f"{point.peer}, {point.milliseconds:.3g} ms"
        left, right = x + 8, x + 10 + LETTER * len(words)
        line = next(it for it in _lines_from(y) if _is_free(left, right, it, taken))
        taken.append((left, right, line))
        kind = "ours" if point.own else "peer"
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        if line != y:
            ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x + 9:.1f}" y2="{line:.1f}"'
            yield f'<line class="leader" {ends}/>'
        yield text(x + 10, line + 4, escape(words), "note")


def _lines_from(y: float) -> Iterator[float]:
    """Heights for a name, the nearest first."""
    yield y
    for step in itertools.count(1):
        yield y + step * LINE / 2
        yield y - step * LINE / 2


def _is_free(left: float, right: float, line: float, taken: list[Area]) -> bool:
    return not any(
        abs(line - row) < LINE and left < end and right > begin for begin, end, row in taken
    )
