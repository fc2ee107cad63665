"""No document waits for a figure that was to be filled in."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("TODO", "<!-- measured")
_NOT_OURS = ("build", "data", "dist")


def _pages() -> list[Path]:
    """Every *.md of the repository: not those of environments, bundles and data."""
    pages = list(ROOT.glob("*.md"))
    for folder in ROOT.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in _NOT_OURS:
            pages += folder.rglob("*.md")
    return sorted(pages)


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [mark for mark in MARKS if mark in text] == []


def test_the_documents_are_among_the_pages() -> None:
    found = {str(page.relative_to(ROOT)) for page in _pages()}
    assert {"README.md", "runtime/README.md", "docs/limits.md"} <= found
