"""Make a whole bundle of a backbone and a pack, without the checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from trimexport.atomic import check_output, staged
from trimexport.bundle.files import (
    CLIENT_FILES,
    bundle_file,
    save_manifest,
    turn_into_bundle,
)
from trimexport.bundle.pack_file import Arrays, read_pack_head
from trimexport.bundle.pack_questions import pack_question_head
from trimexport.bundle.question_heads import put_question_head
from trimexport.bundle.rewrite import copy_file
from trimexport.bundle.tuned_pack import SHIFT, check_backbone, task_head, wide
from trimexport.bundle.variants import CLIENTS_NAME
from trimexport.bundle.written_graph import add_bias, load_graph
from trimexport.bundle.written_head import put_head
from trimexport.errors import ExportError
from trimexport.evaluation.known_texts import LEARNED, write_learned
from trimexport.graph.passes.place_task import place_task
from trimexport.progress import Progress, Silent
from trimexport.records import combined
from trimexport.source.shipped import sample_texts
from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.backbone import task_pack
from trimexport_runtime.bundle import Field, Variant, format_for
from trimexport_runtime.pack import load_pack
from trimexport_runtime.questions import views

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
                first = not variants
                variants.append(_write(backbone, pack, described.manifest, variant, first, work))
                tick(1)
        manifest = _with_lead(described.manifest, said.text_lead)
        manifest = replace(manifest, variants=tuple(variants))
        for name in CLIENT_FILES:
            shutil.copyfile(backbone / name, work / name)
        turn_into_bundle(manifest, said.tokenizer, work)
        paths = (*CLIENT_FILES, *dict.fromkeys(it for each in variants for it in each.files))
        manifest = replace(manifest, files=tuple(bundle_file(work, path) for path in paths))
        save_manifest(manifest, work)
        if said.learned:
            (work / LEARNED).parent.mkdir()
            write_learned(said.learned, work / LEARNED)
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


def _write(
    backbone: Path, pack: Path, task: Manifest, variant: Variant, first: bool, work: Path
) -> Variant:
    """Write a variant's graph with the task inside, and the data that it reads."""
    model = ir.load(backbone / variant.graph)
    arrays = wide(load_pack(pack, variant.name)[1])
    bias = arrays[SHIFT] if any(view.calibration is not None for view in views(task)) else None
    place_task(model, arrays if bias is None else {**arrays, SHIFT: np.zeros_like(bias)})
    data = [path for path in variant.files if path != variant.graph]
    for path in data:
        if not (work / path).exists():
            copy_file(backbone / path, work / path)
    graph = work / variant.graph
    ir.save(model, graph)
    _write_tuned(graph, task, arrays, bias)
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


def _write_tuned(
    graph: Path, task: Manifest, arrays: Arrays, bias: npt.NDArray[np.float32] | None
) -> None:
    """Let what was tuned of a task stand in the bundle's graph as `fit` and `calibrate` write it,
    where these and `verify` find it: fitted heads, which are in the place of what the pack has of
    them, and the bias behind all logits."""
    fitted = [place for place, view in enumerate(views(task)) if view.fit is not None]
    if not fitted and bias is None:
        return
    model, rows = load_graph(graph), len(arrays["picks"])
    for place in fitted:
        if task.questions:
            _, head = pack_question_head(arrays, task, place)
            put_question_head(model, head, task, place, rows)
        else:
            put_head(model, task_head(arrays), rows)
    if bias is not None:
        add_bias(model, bias.tolist())
    graph.write_bytes(model.SerializeToString())


def _apart(backbone: Path, pack: Path, bundle: Path, variant: str, progress: Progress) -> float:
    """How far the bundle's logits are from the pack's at most, on the texts that ship."""
    whole = Classifier.load(bundle, variant=variant)
    texts = combined(sample_texts(), whole.manifest.prompt.places)
    apart = Classifier.load(backbone, variant=variant, task=pack).logits(texts)
    found = float(np.abs(whole.logits(texts) - apart).max())
    progress.say(f"{variant}: the bundle's logits are up to {found:.2g} from the pack's")
    return found
