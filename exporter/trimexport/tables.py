"""Tables of text, and shares as they show them."""

from __future__ import annotations

from collections.abc import Sequence


def columns(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines of text, their cells aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def small_share(value: float) -> str:
    """A share that is often next to nothing, as a percentage."""
    return "<0.01%" if value < 5e-5 else f"{value:.2%}"
