"""Write a pack: what a task adds to a backbone, proved against the untrimmed model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from trimexport.bundle.correction import expected_states, mean_error
from trimexport.bundle.files import manifest_of
from trimexport.bundle.pack_file import Arrays, Said, check_pack_output, staged_pack, write_pack
from trimexport.bundle.tokenizer_changes import changes
from trimexport.bundle.tuned_pack import correction_node
from trimexport.bundle.variants import SCHEMES
from trimexport.bundle.written_graph import load_graph
from trimexport.errors import ParityError
from trimexport.graph.classifier import split_prefix
from trimexport.graph.task_arrays import task_arrays
from trimexport.graph.task_inputs import CORRECTION
from trimexport.model.layerwise import LayerwiseModel
from trimexport.parity.measure import measure
from trimexport.parity.record import with_parity
from trimexport.parity.report import ParityReport
from trimexport.parity.verdict import failure_lines, failures
from trimexport.parity.warnings import warnings
from trimexport.planning import Plan, plan
from trimexport.progress import Progress, Silent
from trimexport.quantize.calibration import Calibration
from trimexport.records import combined
from trimexport.source.shipped import calibration_texts, sample_texts
from trimexport.spec import BuildSpec
from trimexport.texts import Texts, check_sample, inputs_for, judged
from trimexport_runtime.backbone_manifest import BackboneManifest, read_backbone_manifest
from trimexport_runtime.bundle import Manifest, format_for

from .fitting import check_same_model, check_tokens, spec_of

_PREFIX = ("prefix_key.", "prefix_value.")


@dataclass(frozen=True)
class Packed:
    """A finished pack. `notes` say what its keys and values are stored in."""

    path: Path
    manifest: Manifest
    report: ParityReport
    notes: tuple[str, ...]


def pack(
    backbone: Path,
    spec: BuildSpec,
    output: Path,
    *,
    force: bool = False,
    sample: Texts | None = None,
    calibration: Texts | None = None,
    keep: Sequence[str] = (),
    progress: Progress | None = None,
) -> Packed:
    """Write the pack `output` and prove it on its backbone against the untrimmed model.

    Args:
        backbone: the directory that `build_backbone` wrote.
        spec: the task, and where the backbone's checkpoint is (see `fitting.spec_of`).
        output: the pack's file; it appears whole or not at all.
        force: replace a pack that is there.
        sample: texts to check parity on; None takes those that ship with the package.
        calibration: texts on which variants that lose digits have the mean error of their hidden
            states measured, which the pack adds back; None takes those that ship.
        keep: names of variants that may be outside their tolerance; the pack says so.

    Raises:
        ParityError: a variant is outside its tolerance; nothing is left of the pack.
        TrimexportError: see `errors`.
    """
    progress = progress or Silent()
    check_pack_output(output, force)
    known = read_backbone_manifest(backbone)
    planned = plan(spec_of(spec, known))
    check_same_model(planned, known)
    check_tokens(planned)
    fields = planned.prompt.fields
    given = inputs_for(sample or Texts(combined(sample_texts(), fields)), fields)
    judged_sample = judged(given, planned.score, bool(planned.asked))
    check_sample(judged_sample, planned.labels)
    for line in planned.notes:
        progress.say(line)
    texts = Texts(combined(calibration_texts(), fields)) if calibration is None else calibration
    model = LayerwiseModel(planned.checkpoint)
    arrays = _arrays(planned, model, backbone, known, inputs_for(texts, fields), progress)
    with staged_pack(output) as part:
        packed = _proved(
            planned, model, backbone, known, arrays, judged_sample, part, keep, progress
        )
    return replace(packed, path=output)


def _proved(
    planned: Plan,
    model: LayerwiseModel,
    backbone: Path,
    known: BackboneManifest,
    arrays: Arrays,
    sample: Texts,
    part: Path,
    keep: Sequence[str],
    progress: Progress,
) -> Packed:
    """Write the pack `part` with keys and values in float16, or where a variant is outside its
    tolerance with them in float32. In float32 they are for a variant in float32 from the first:
    their rounding would be the largest error that it has.

    Raises:
        ParityError: a variant is outside its tolerance with both.
    """
    manifest = task_manifest(planned, known)
    exact = any(it.precision == "fp32" for it in known.variants)
    for half in (False,) if exact else (True, False):
        kept = {name: _stored(name, array, half) for name, array in arrays.items()}
        write_pack(part, known.sha256, manifest, kept)
        found = measure(backbone, model, planned.tokenizer, sample, progress, pack=part)
        report = replace(
            found,
            variants=tuple(replace(each, kept=each.name in keep) for each in found.variants),
        )
        failed = failures(report)
        if not failed:
            break
        if half:
            progress.say(
                f"with keys and values in float16 {' and '.join(failed)} would be outside the "
                "tolerance; the pack holds them in float32"
            )
    if failed:
        raise ParityError("\n".join(failure_lines(report, failed)))
    for line in warnings(report):
        progress.say(line)
    note = f"keys and values of the prefix are stored in {'float16' if half else 'float32'}"
    progress.say(note)
    manifest = with_parity(manifest, report)
    said = Said((note,), planned.prompt.text_lead, other_keys(planned, backbone))
    write_pack(part, known.sha256, manifest, kept, said)
    return Packed(part, manifest, report, (note,))


def other_keys(planned: Plan, backbone: Path) -> dict[str, Any]:
    """What the task's tokenizer.json has otherwise than the backbone's. The vocabulary is the same,
    whichever of its merges an earlier release wrote into the backbone."""
    bare = json.loads((backbone / "tokenizer.json").read_text(encoding="utf-8"))
    bare["model"] = planned.text_tokenizer["model"]
    return changes(bare, planned.text_tokenizer)


def _stored(name: str, array: np.ndarray, half: bool) -> np.ndarray:
    """An array as the pack holds it."""
    return array.astype(np.float16) if half and name.startswith(_PREFIX) else array


def task_manifest(planned: Plan, known: BackboneManifest) -> Manifest:
    """The manifest of a pack that was not measured yet. The backbone's tokenizer writes nothing
    before a text, so the fields have what stands there."""
    whole = manifest_of(planned, known.variants, ())
    lead = whole.prompt.text_lead
    fields = tuple(replace(it, lead=lead + it.lead) for it in planned.prompt.fields)
    prompt = replace(whole.prompt, text_lead="", fields=fields if lead else whole.prompt.fields)
    version = format_for(prompt, whole.score, whole.questions)
    return replace(whole, prompt=prompt, format_version=version)


def _arrays(
    planned: Plan,
    model: LayerwiseModel,
    backbone: Path,
    known: BackboneManifest,
    texts: Texts,
    progress: Progress,
) -> Arrays:
    """The task's arrays, and for each variant that is calibrated what its hidden states lack."""
    compiled, _ = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    graphs = {it.name: load_graph(backbone / it.graph) for it in known.variants}
    layers = layers_in(next(iter(graphs.values())))
    with progress.bar("compiling the prompt", 1) as tick:
        found = task_arrays(
            planned, model.prefix_cache(compiled), model.cut_head(planned.rows), layers
        )
        tick(1)
    arrays = {name: value.numpy() for name, value in found.items()}
    corrected = [it for it in known.variants if SCHEMES[it.name].calibrated]
    if not corrected:
        return arrays
    with tempfile.TemporaryDirectory() as room:
        expected = expected_states(Calibration(planned, model, texts, Path(room), progress))
    rows = arrays[CORRECTION].shape[0]
    for variant in corrected:
        hidden = _hidden_name(graphs[variant.name])
        with progress.bar(f"correcting {variant.name}", len(expected.texts)) as tick:
            lacked = mean_error(backbone / variant.graph, expected, hidden, dict(arrays))
            tick(len(expected.texts))
        each = np.broadcast_to(lacked, (rows, lacked.shape[1]))  # one for all copies
        arrays[f"{variant.name}/{CORRECTION}"] = each.astype(np.float32)
    return arrays


def layers_in(graph: onnx.ModelProto) -> list[tuple[int, int]]:
    """The number of key/value heads and their size in each layer of a backbone's graph."""
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in graph.graph.input
    }
    keys = [name for name in shapes if name.startswith(_PREFIX[0])]
    return [
        (heads, size)
        for heads, size, _ in (shapes[f"{_PREFIX[0]}{layer}"] for layer in range(len(keys)))
    ]


def _hidden_name(graph: onnx.ModelProto) -> str:
    """The value that a backbone's head reads, before the correction is added."""
    return str(next(name for name in correction_node(graph).input if name != CORRECTION))
