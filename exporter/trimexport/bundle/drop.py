"""Take variants out of a bundle that is being built, so that it is what the others make."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from trimexport_runtime import Manifest
from trimexport_runtime.bundle import BundleFile, Variant

from .files import CONFIG, bundle_file, name_variants
from .variants import CLIENTS_NAME
from .written_graph import load_graph


def drop_variants(work: Path, manifest: Manifest, names: Collection[str]) -> Manifest:
    """Remove variants from the bundle in the directory `work`, with their engines and the files
    that no other variant needs.

    The first of those that stay takes the first one's place: its graph is `onnx/model.onnx`, and
    `config.json` names it.

    Requires: a variant stays.

    Returns:
        the manifest of what is left, not written yet.
    """
    kept = [variant for variant in manifest.variants if variant.name not in names]
    for variant in manifest.variants:
        if variant not in kept and variant.engine is not None:
            (work / variant.engine.file).unlink()
    needed = {file for variant in kept for file in variant.files}
    for file in {file for variant in manifest.variants for file in variant.files} - needed:
        (work / file).unlink()
    entries = {entry.path: entry for entry in manifest.files if (work / entry.path).exists()}
    if kept[0] is not manifest.variants[0]:
        kept = _with_first(work, kept, entries)
    name_variants(kept, work)
    entries[CONFIG] = bundle_file(work, CONFIG)
    return replace(manifest, variants=tuple(kept), files=tuple(entries.values()))


def _with_first(work: Path, kept: list[Variant], entries: dict[str, BundleFile]) -> list[Variant]:
    """The variants, the first of them under the names that the first one has. `entries`, the files
    by their paths, are changed too."""
    first, *others = kept
    if first.name == "fp32":  # it has that name alone where it is first
        names = {first.graph: CLIENTS_NAME, f"{first.graph}_data": f"{CLIENTS_NAME}_data"}
        return _rename(work, kept, names, entries)
    shutil.copyfile(work / first.graph, work / CLIENTS_NAME)
    entries[CLIENTS_NAME] = replace(entries[first.graph], path=CLIENTS_NAME)
    return [replace(first, files=(*first.files, CLIENTS_NAME)), *others]


def _rename(
    work: Path, kept: list[Variant], names: Mapping[str, str], entries: dict[str, BundleFile]
) -> list[Variant]:
    """The variants with other names of files, in the graphs too."""
    for old, new in names.items():
        if old in entries:
            (work / old).rename(work / new)
            entries[new] = replace(entries.pop(old), path=new)
    return [_with_names(work, variant, names, entries) for variant in kept]


def _with_names(
    work: Path, variant: Variant, names: Mapping[str, str], entries: dict[str, BundleFile]
) -> Variant:
    """A variant whose graph finds its data files under their new names."""
    graph = names.get(variant.graph, variant.graph)
    files = tuple(names.get(file, file) for file in variant.files)
    before = entries[graph].bytes
    if files != variant.files:
        _name_data(work / graph, {Path(old).name: Path(new).name for old, new in names.items()})
        entries[graph] = bundle_file(work, graph)
    engine = variant.engine
    if engine is not None:  # what it was built from is the same, under other names
        engine = replace(engine, built_from={file: entries[file].sha256 for file in files})
    size = variant.bytes + entries[graph].bytes - before
    return replace(variant, graph=graph, files=files, bytes=size, engine=engine)


def _name_data(graph: Path, names: Mapping[str, str]) -> None:
    """Give the data files of a written graph other names within it."""
    model = load_graph(graph)
    for tensor in model.graph.initializer:
        for item in tensor.external_data:
            if item.key == "location":
                item.value = names.get(item.value, item.value)
    graph.write_bytes(model.SerializeToString())
