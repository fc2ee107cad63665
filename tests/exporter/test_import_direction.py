"""The exporter's floors: imports run down, none in a circle, and files are short."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import pytest

import trimexport

ROOT = Path(trimexport.__file__).parent
FLOORS = (
    ("errors", "memory", "numerics", "pages", "progress", "records", "tables"),
    ("atomic", "spec", "texts"),
    ("evaluation",),
    ("source",),
    ("prompt",),
    ("planning",),
    ("model",),
    ("graph",),
    ("quantize", "tensorrt"),
    ("bundle",),
    ("parity",),
    ("pipeline",),
    ("bench", "inspection", "packs", "suggestion", "tuning", "verification"),
    ("cli",),
)
"""A file imports from floors before its own, and from its own folder. docs/architecture.md draws
it."""
NEVER = {
    "inspection": {"quantize", "tensorrt", "bundle", "parity"},
    "suggestion": {"graph", "quantize", "tensorrt", "bundle", "parity"},
}
"""What they do without, although it stands below."""
PROCESS = {"keep_large_blocks_apart", "mallopt", "redirect_stdout", "set_num_threads", "environ"}
"""What changes, or may change, the whole process, which is the command line's alone to do."""
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def module(path: Path) -> str:
    """`graph/trace.py` -> `trimexport.graph.trace`."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in ROOT.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """The exporter's modules that a file imports, anywhere in it."""
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join(above) if node.level else ""
            name = ".".join(part for part in (start, node.module) if part)
            whole = {f"{name}.{alias.name}" for alias in node.names}
            found |= (whole & MODULES) or {name}
    return found & MODULES


def room(name: str) -> str:
    """The folder, or the file beside the folders, that a module lies in."""
    return name.removeprefix("trimexport").strip(".").partition(".")[0]


def floor(name: str) -> int:
    """How far above the ground a room is."""
    (height,) = [at for at, rooms in enumerate(FLOORS) if name in rooms]
    return height


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path: Path) -> None:
    own = room(module(path))
    others = {room(name) for name in imports(path)} - {own, ""}  # "": the version alone
    assert not {name for name in others if floor(name) >= floor(own)}, "imports that run up"
    assert not others & NEVER.get(own, set())


def test_no_circle() -> None:
    graph = {module(path): imports(path) - {"trimexport", module(path)} for path in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(FILES)


def test_the_reader_of_imports_sees_them() -> None:
    assert "trimexport.model.head" in imports(ROOT / "graph" / "classifier.py")
    assert "trimexport.graph.passes.lower" in imports(ROOT / "bundle" / "variants.py")
    assert "trimexport.parity.render" in imports(ROOT / "cli" / "build.py"), "inside a function"


def test_files_are_short_and_few_stand_beside_the_folders() -> None:
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES]
    assert median(lengths) < 130
    assert max(lengths) <= 310
    assert len(list(ROOT.glob("*.py"))) <= 14


def test_only_programs_change_the_process() -> None:
    """A library's caller has a process of its own making: its allocator, its standard output."""
    # The last but one is a worker's; the last puts the number of threads back as it was.
    programs = {f"cli/{name}.py" for name in ("backbone", "build", "console", "pack")}
    programs |= {"bench/pytorch.py", "quantize/compensation.py"}
    found = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id in PROCESS)
        or (isinstance(node, ast.Attribute) and node.attr in PROCESS)
    }
    assert found == programs
