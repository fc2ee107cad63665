"""The results of a comparison as an SVG bar chart that is legible on light and dark pages."""

from __future__ import annotations

from html import escape
from typing import Any

from tables import Cell, cells, machine_line

WIDTH, LEFT, RIGHT = 860, 330, 170
BAR, GAP, TITLE = 18, 8, 44
LIMIT = 12  # times the fastest; longer bars are cut, with an arrow
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .note { font-size: 11px; fill: #59636e }
  .ours { fill: #1a7f37 }
  .peer { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .ours { fill: #3fb950 }
    .peer { fill: #6e7681 }
  }
"""


def svg(results: dict[str, Any], ours: str) -> str:
    """One group of bars for each workload, the fastest first; a bar is the time of a call, or of
    a text where throughput is measured. Fixed shapes are left to the table."""
    found = [cell for cell in cells(results, ours) if not cell.workload.endswith("tokens")]
    parts, top = [], 0
    for workload in dict.fromkeys(cell.workload for cell in found):
        group = sorted((cell for cell in found if cell.workload == workload), key=_time)
        parts.append(_group(workload, group, ours, top))
        top += TITLE + len(group) * (BAR + GAP)
    parts.append(text(0, top + 24, escape(machine_line(results)), "note"))
    height = top + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="Time for a text, by peer: shorter is faster">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _group(workload: str, group: list[Cell], ours: str, top: int) -> str:
    fastest = min(cell.milliseconds for cell in group)
    longest = min(max(cell.milliseconds for cell in group), LIMIT * fastest)
    lines = [text(0, top + 28, f"{escape(workload)}: ms per text, shorter is faster", "title")]
    for place, cell in enumerate(group):
        y = top + TITLE + place * (BAR + GAP)
        length = max(1.0, min(1.0, cell.milliseconds / longest) * (WIDTH - LEFT - RIGHT))
        kind = "ours" if cell.peer == ours else "peer"
        factor = "" if cell.peer == ours else f"  ({cell.ratio:.1f} times)"
        cut = "→ " if cell.milliseconds > longest else ""
        end = LEFT + length + 6
        lines.append(text(LEFT - 8, y + 14, escape(cell.peer), "", "end"))
        lines.append(
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        )
        lines.append(text(end, y + 14, f"{cut}{cell.milliseconds:,.0f}{factor}", ""))
    return "\n".join(lines)


def _time(cell: Cell) -> float:
    return cell.milliseconds


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """A line of text as SVG; `kind` is its class in `STYLE`, none where it is empty."""
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
