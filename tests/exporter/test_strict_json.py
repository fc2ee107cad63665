"""What is written as JSON is JSON: Python's writer makes NaN of a number that is none, which other
readers refuse."""

from __future__ import annotations

import ast
from pathlib import Path

import trimexport
import trimexport_runtime

PACKAGES = (trimexport, trimexport_runtime)


def is_strict(call: ast.Call) -> bool:
    """Whether a call of the writer refuses such numbers."""
    given = {it.arg: it.value for it in call.keywords}.get("allow_nan")
    return isinstance(given, ast.Constant) and given.value is False


def test_a_number_that_is_none_is_never_written() -> None:
    calls = {}
    for package in PACKAGES:
        for path in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("json.dump"):
                    calls[f"{path}:{node.lineno}"] = is_strict(node)
    assert len(calls) > 30
    assert [place for place, strict in calls.items() if not strict] == []
