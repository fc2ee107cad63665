"""The page on families names what the code supports, and the versions that the tests install."""

from __future__ import annotations

import re
from pathlib import Path

from trimexport.source.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "families.md"
_ARCHITECTURE = re.compile(r"`(\w+)`")
_VERSION = re.compile(r"\b\d+\.\d+\.\d+\b")
_PINNED = re.compile(r"^transformers==(\S+)", re.MULTILINE)


def _rows() -> list[list[str]]:
    """The cells of the first table's rows that name a family: those with an architecture."""
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[1] or row[2]]


def _pinned(name: str) -> str:
    """The version of transformers in a file of constraints."""
    found = _PINNED.search((ROOT / name).read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def test_the_table_has_the_families_of_the_code() -> None:
    found = [
        (row[0], _ARCHITECTURE.findall(row[1]), tuple(_ARCHITECTURE.findall(row[2])))
        for row in _rows()
    ]
    assert found == [(family.name, [family.causal], family.classifiers) for family in FAMILIES]


def test_the_versions_are_those_that_the_tests_install() -> None:
    both = {_pinned("constraints-oldest.txt"), _pinned("constraints.txt")}
    assert len(both) == 2
    for row in _rows():
        causal, _, classifier = row[4].partition("fine-tuned")
        assert set(_VERSION.findall(causal)) == both, row[0]
        assert set(_VERSION.findall(classifier)) <= both, row[0]
        assert (_pinned("constraints.txt") in classifier) == bool(row[2]), row[0]
    assert set(_VERSION.findall(PAGE.read_text(encoding="utf-8"))) == both
