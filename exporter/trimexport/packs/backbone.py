"""Build a backbone: a model without a task, which is exported once for any number of packs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from trimexport.atomic import check_output, staged
from trimexport.bundle.files import (
    bundle_file,
    tool_versions,
    write_backbone_files,
)
from trimexport.bundle.planned_manifest import source_of
from trimexport.bundle.variants import SCHEMES, check_calibration, write_variants
from trimexport.errors import SpecError
from trimexport.graph.compile import compile_backbone
from trimexport.graph.prefix_attention import STEADY
from trimexport.memory import release
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import Plan, set_up_prompt
from trimexport.progress import Progress, Silent
from trimexport.prompt.template import parse_template
from trimexport.quantize.calibration import Calibration
from trimexport.source.notices import notices
from trimexport.source.shipped import calibration_texts
from trimexport.spec import BuildSpec
from trimexport.texts import Texts
from trimexport_runtime.backbone_manifest import (
    BACKBONE,
    BACKBONE_FORMAT,
    BackboneManifest,
    backbone_json,
    backbone_sha256,
)
from trimexport_runtime.bundle import Score, Variant

from .fitting import check_whole_model

PRECISIONS = ("fp32", "int8", "int4")
OWN = ("model", "revision", "precision", "max_tokens", "notice", "adapter", "tokenizer")
"""The fields of a spec that are a backbone's; all others are of tasks."""


def build_backbone(
    spec: BuildSpec,
    output: Path,
    *,
    force: bool = False,
    calibration: Texts | None = None,
    progress: Progress | None = None,
) -> BackboneManifest:
    """Build the backbone `output`. What it answers is proved with each pack.

    Args:
        spec: of which only the fields `OWN` are given.
        output: the backbone's directory; it appears whole or not at all.
        force: replace a backbone that is there.
        calibration: texts by which int8 and int4 are made, which stand behind the start tokens
            alone; None takes those that ship with the package.

    Raises:
        SpecError: what belongs to a task is given, or a precision that backbones do not have.
        TrimexportError: see `errors`.
    """
    progress = progress or Silent()
    check_backbone_spec(spec)
    check_output(output, force)
    planned = plan_bare(spec)
    for line in planned.notes:
        progress.say(line)
    texts = _calibration_texts(spec, calibration, progress)
    limit = min(planned.checkpoint.context, spec.max_tokens or planned.checkpoint.context)
    with staged(output, force) as work:
        model = LayerwiseModel(planned.checkpoint)
        variants, hashes = _write_graphs(planned, model, texts, work, progress)
        names = write_backbone_files(planned, limit, work)
        manifest = _manifest(planned, limit, variants, names, work, hashes)
        (work / BACKBONE).write_text(backbone_json(manifest), encoding="utf-8")
    return manifest


def check_backbone_spec(spec: BuildSpec) -> None:
    """Refuse a spec of which a backbone cannot be built.

    Raises:
        SpecError: see there.
    """
    check_whole_model(spec)
    plain = BuildSpec(spec.model)
    names = [field.name for field in fields(BuildSpec) if field.name not in OWN]
    if given := [name for name in names if getattr(spec, name) != getattr(plain, name)]:
        options = ", ".join(name.replace("_", "-") for name in given)
        raise SpecError(
            f"a backbone has no task, and {options} {'is' if len(given) == 1 else 'are'} of one; "
            "give that to `trimexport pack`, which writes what a task adds to the backbone"
        )
    if other := [name for name in spec.precision if name not in PRECISIONS]:
        raise SpecError(
            f"a backbone is built in {', '.join(PRECISIONS)}, not in {', '.join(other)}; drop "
            "that, or build a bundle, which has its task inside"
        )


def plan_bare(spec: BuildSpec) -> Plan:
    """Resolve a spec of a model without a task: each text stands behind the start tokens alone.

    Raises:
        SpecError, CheckpointError: as `planning.plan`.
    """
    setting = set_up_prompt(spec, parse_template("{text}"))
    notice = notices(setting.checkpoint, spec.notice)
    return Plan(**vars(setting), labels=(), verbalizers=(), score=Score(), notice=notice)


def _calibration_texts(spec: BuildSpec, given: Texts | None, progress: Progress) -> Texts | None:
    """The texts by which variants are calibrated; None where no variant is.

    Raises:
        SpecError: some are given, and no variant needs any.
    """
    names = [name for name in spec.precision if SCHEMES[name].calibrated]
    check_calibration(spec.precision, given, progress)
    shipped = Texts(tuple(calibration_texts())) if names else None
    return shipped if given is None else given


def _write_graphs(
    planned: Plan, model: LayerwiseModel, texts: Texts | None, work: Path, progress: Progress
) -> tuple[tuple[Variant, ...], dict[str, str]]:
    """Write the variants, and return them with the SHA-256 of each data file."""
    start = planned.prompt.prefix_ids or (planned.tokenizer.pad_token_id,)
    prefix = model.prefix_cache(start[:1])
    graph = compile_backbone(planned.checkpoint, model, prefix, progress)
    with tempfile.TemporaryDirectory(dir=work) as room:
        seen = None if texts is None else Calibration(planned, model, texts, Path(room), progress)
        release()
        names = planned.spec.precision
        return write_variants({STEADY: graph}, names, work, progress, seen, whole=False)


def _manifest(
    planned: Plan,
    limit: int,
    variants: tuple[Variant, ...],
    names: tuple[str, ...],
    work: Path,
    hashes: Mapping[str, str],
) -> BackboneManifest:
    """The manifest of the files in `work`."""
    paths = (*names, *dict.fromkeys(file for variant in variants for file in variant.files))
    files = tuple(bundle_file(work, path, hashes.get(path)) for path in paths)
    return BackboneManifest(
        format_version=BACKBONE_FORMAT,
        sha256=backbone_sha256(files),
        source=source_of(planned),
        variants=variants,
        files=files,
        limit=limit,
        pad_token_id=planned.tokenizer.pad_token_id,
        tool_versions=tool_versions(),
    )
