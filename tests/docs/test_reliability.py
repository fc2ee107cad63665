"""docs/reliability.md names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there() -> None:
    """A name without a file is of the file named before it."""
    file, seen = Path(), 0
    for path, name in re.findall(r"`(?:(tests/[\w/]+\.py))?(?:::)?(test_\w+)?`", PAGE):
        if path:
            file = ROOT / path
            assert file.is_file(), path
        if name:
            assert f"def {name}(" in file.read_text(encoding="utf-8"), (file.name, name)
            seen += 1
    assert seen > 20


def test_every_promise_names_a_test() -> None:
    rows = [
        row
        for row in PAGE.splitlines()
        if row.startswith("| ") and not row.endswith(("held by |", "| by |"))
    ]
    assert all("`tests/" in row for row in rows if not row.startswith("| ---"))
