"""From a spec to a bundle: the stages, in the only order in which their values fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from trimexport_runtime.bundle import Manifest

from . import parity
from .bundle import first_manifest, save_manifest, save_report, with_parity, write_client_files
from .card import model_card
from .compilation import compile_graph
from .errors import SpecError
from .layerwise import LayerwiseModel
from .measuring import measure
from .memory import keep_large_blocks_apart, release
from .parity import ParityReport, Texts
from .planning import Plan, plan
from .progress import Progress, Silent
from .quantize.smooth import Activations
from .shipped import sample_texts
from .spec import BuildSpec
from .staging import check_output, staged
from .variants import SCHEMES, write_variants


@dataclass(frozen=True)
class Built:
    """A finished bundle."""

    directory: Path
    manifest: Manifest
    report: ParityReport


def build(
    spec: BuildSpec,
    output: Path,
    *,
    force: bool = False,
    sample: Texts | None = None,
    calibration: Texts | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build the bundle `output` and prove it against the untrimmed model.

    Args:
        spec: what to build.
        output: the bundle's directory; it appears whole or not at all.
        force: replace a bundle that is there.
        sample: texts to check parity on; None takes those that ship with the package.
        calibration: texts by which int8 and int4 balance activations and weights; None goes by the
            weights alone.

    Raises:
        TrimexportError: see `errors`; a bundle outside its tolerance is a ParityError and is not
            kept.
    """
    progress = progress or Silent()
    keep_large_blocks_apart()
    check_output(output, force)
    if calibration is not None and not any(SCHEMES[name].smoothed for name in spec.precision):
        raise SpecError(
            f"calibration texts are given, and {', '.join(spec.precision)} needs none; drop them, "
            "or build int8 or int4"
        )
    sample = sample or Texts(tuple(sample_texts()))
    if spec.labels:  # wrong ones are refused before a model is downloaded
        parity.check_sample(sample, spec.labels)
    planned = plan(spec)
    parity.check_sample(sample, planned.labels)
    for line in planned.notes:
        progress.say(line)
    release()
    with staged(output, force) as work:
        model = LayerwiseModel(planned.checkpoint)
        graph = compile_graph(planned, model, progress)
        write_client_files(planned, work)
        activations = _calibrate(planned, model, calibration, progress)
        release()
        variants, hashes = write_variants(graph, spec.precision, work, progress, activations)
        manifest = first_manifest(planned, variants, work, hashes)
        save_manifest(manifest, work)
        release()
        report = measure(work, model, planned.tokenizer, sample, progress)
        for line in parity.warnings(report):
            progress.say(line)
        parity.require(report)
        manifest = with_parity(manifest, report)
        save_manifest(manifest, work)
        # The card and the report are outside the hashes: people edit one, `verify` the other.
        (work / "README.md").write_text(model_card(manifest, report), encoding="utf-8")
        save_report(report, work)
    return Built(output, manifest, report)


def _calibrate(
    planned: Plan, model: LayerwiseModel, calibration: Texts | None, progress: Progress
) -> Activations:
    """How large each matrix's inputs become on the calibration texts; nothing without any."""
    if calibration is None:
        return {}
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))
    prefix, suffix = planned.prompt.prefix_ids, planned.prompt.suffix_ids
    sequences = []
    for text in calibration.texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids[: planned.limit]
        sequences.append((*prefix, *ids, *suffix))
    sequences = [ids for ids in sequences if len(ids) > len(prefix)]
    with progress.bar("calibrating", len(sequences)) as tick:
        return model.activations(sequences, len(prefix), tick)
