"""Text tables, and small shares in them."""

from __future__ import annotations

from collections.abc import Sequence


def columns(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines of text, their cells aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def small_share(value: float) -> str:
    """A share as a percentage, or `<0.01%` if it would round to nothing."""
    return "<0.01%" if value < 5e-5 else f"{value:.2%}"
