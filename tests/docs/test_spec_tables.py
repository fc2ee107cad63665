"""The tables of a recipe's keys and of a spec's fields name all there are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from trimexport import BuildSpec, SpecError, read_recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _first_cells(page: str, header: str) -> list[str]:
    """What stands in the first column under a table's header."""
    table = (DOCS / page).read_text(encoding="utf-8").partition(header)[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_field_of_a_spec_is_documented() -> None:
    found = _first_cells("python.md", "| field of `BuildSpec` | default | |\n")
    assert found == [field.name for field in fields(BuildSpec)]


def test_every_key_of_a_recipe_is_documented(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("unknown = 1", encoding="utf-8")
    with pytest.raises(SpecError, match="unknown key 'unknown'; known are ") as caught:
        read_recipe(recipe)
    known = str(caught.value).partition("; known are ")[2].split(", ")
    assert sorted(_first_cells("how-to.md", "| key of a recipe | |\n")) == sorted(known)
