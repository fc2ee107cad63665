"""Make a whole bundle of a backbone and a pack, without the checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from trimexport.atomic import check_output, staged
from trimexport.bundle.files import (
    CLIENT_FILES,
    bundle_file,
    save_manifest,
    turn_into_bundle,
)
from trimexport.bundle.pack_file import read_pack_head
from trimexport.bundle.rewrite import copy_file
from trimexport.bundle.tuned_pack import check_backbone, wide
from trimexport.bundle.variants import CLIENTS_NAME
from trimexport.errors import ExportError
from trimexport.graph.passes.place_task import place_task
from trimexport.progress import Progress, Silent
from trimexport.records import combined
from trimexport.source.shipped import sample_texts
from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.backbone import task_pack
from trimexport_runtime.bundle import Field, Variant, format_for
from trimexport_runtime.pack import load_pack

CLOSE = 1e-4  # how far logits may be apart for the pack's parity to be the bundle's too


@dataclass(frozen=True)
class Whole:
    """A finished bundle. `apart` says how far its logits are from the pack's at most, by variant,
    on the texts that ship."""

    directory: Path
    manifest: Manifest
    apart: dict[str, float]


def bundle_of(
    backbone: Path,
    pack: Path,
    output: Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Whole:
    """Write the bundle `output`, which needs neither the backbone nor the pack.

    Each variant is compared with the pack on the texts that ship. Where the two agree to 1e-4, the
    parity that the pack has measured is the bundle's.

    Raises:
        trimexport_runtime.TrimexportRuntimeError: the pack is of another backbone, or one of the
            two is damaged.
        TrimexportError: see `errors`.
    """
    progress = progress or Silent()
    check_output(output, force)
    described = task_pack(pack, backbone)
    check_backbone(backbone, progress)
    _, said = read_pack_head(pack)
    with staged(output, force) as work:
        (work / "onnx").mkdir()
        variants: list[Variant] = []
        with progress.bar("writing variants", len(described.manifest.variants)) as tick:
            for variant in described.manifest.variants:
                variants.append(_write(backbone, pack, variant, not variants, work))
                tick(1)
        manifest = _with_lead(described.manifest, said.text_lead)
        manifest = replace(manifest, variants=tuple(variants))
        for name in CLIENT_FILES:
            shutil.copyfile(backbone / name, work / name)
        turn_into_bundle(manifest, said.tokenizer, work)
        paths = (*CLIENT_FILES, *dict.fromkeys(it for each in variants for it in each.files))
        manifest = replace(manifest, files=tuple(bundle_file(work, path) for path in paths))
        save_manifest(manifest, work)
        apart = {it.name: _apart(backbone, pack, work, it.name, progress) for it in variants}
        manifest = replace(
            manifest,
            variants=tuple(
                it if apart[it.name] <= CLOSE else replace(it, parity=None) for it in variants
            ),
        )
        save_manifest(manifest, work)
    return Whole(output, manifest, apart)


def _with_lead(manifest: Manifest, lead: str) -> Manifest:
    """The pack's manifest as that of a bundle, whose tokenizer writes this white space."""
    prompt = manifest.prompt
    fields = tuple(replace(it, lead=it.lead.removeprefix(lead)) for it in prompt.places)
    kept = () if fields == (Field("text"),) else fields
    prompt = replace(prompt, text_lead=lead, fields=kept)
    version = format_for(prompt, manifest.score, manifest.questions)
    return replace(manifest, prompt=prompt, format_version=version)


def _write(backbone: Path, pack: Path, variant: Variant, first: bool, work: Path) -> Variant:
    """Write a variant's graph with the task inside, and the data that it reads."""
    model = ir.load(backbone / variant.graph)
    place_task(model, wide(load_pack(pack, variant.name)[1]))
    data = [path for path in variant.files if path != variant.graph]
    for path in data:
        if not (work / path).exists():
            copy_file(backbone / path, work / path)
    graph = work / variant.graph
    ir.save(model, graph)
    try:
        onnx.checker.check_model(str(graph))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the bundle's graph is not valid ONNX: {error}") from error
    files = variant.files
    if first:
        shutil.copyfile(graph, work / CLIENTS_NAME)
        files = (*files, CLIENTS_NAME)
    grown = graph.stat().st_size - (backbone / variant.graph).stat().st_size
    return replace(variant, files=files, bytes=variant.bytes + grown)


def _apart(backbone: Path, pack: Path, bundle: Path, variant: str, progress: Progress) -> float:
    """How far the bundle's logits are from the pack's at most, on the texts that ship."""
    whole = Classifier.load(bundle, variant=variant)
    texts = combined(sample_texts(), whole.manifest.prompt.places)
    apart = Classifier.load(backbone, variant=variant, task=pack).logits(texts)
    found = float(np.abs(whole.logits(texts) - apart).max())
    progress.say(f"{variant}: the bundle's logits are up to {found:.2g} from the pack's")
    return found
