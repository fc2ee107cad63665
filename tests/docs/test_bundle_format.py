"""The page on the bundle's format names a bundle's files, and those of them that are hashed."""

from __future__ import annotations

import re
from pathlib import Path

from trimexport_runtime import read_manifest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bundle-format.md"
_ROW = re.compile(r"^\| `([^`]+)` \| [^|]+ \| (yes|no)\b", re.MULTILINE)


def _documented() -> dict[str, bool]:
    """Each file of the page's first table, and whether it is said to be hashed."""
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    return {path: answer == "yes" for path, answer in _ROW.findall(table)}


def test_the_hashed_files_are_those_of_a_manifest(sentiment: Path) -> None:
    hashed = {path for path, is_hashed in _documented().items() if is_hashed}
    assert hashed == {entry.path for entry in read_manifest(sentiment).files}


def test_every_file_of_a_bundle_is_documented(sentiment: Path) -> None:
    found = {path.relative_to(sentiment).as_posix() for path in sentiment.rglob("*")}
    assert set(_documented()) == {path for path in found if (sentiment / path).is_file()}
