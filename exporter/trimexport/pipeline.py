"""From a spec to a bundle: the stages, in the only order in which their values fit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimexport_runtime import BackendError
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.bundle import Manifest, Score
from trimexport_runtime.engine import build_engine, candidates, require_builder

from .atomic import check_output, staged
from .bundle.drop import drop_variants
from .bundle.files import first_manifest, save_manifest, write_client_files
from .bundle.variants import SCHEMES, check_calibration, write_variants
from .errors import ParityError, SpecError
from .graph.compile import compile_graphs
from .memory import release
from .model.layerwise import LayerwiseModel
from .parity.measure import measure
from .parity.model_card import model_card
from .parity.record import save_report, with_parity
from .parity.report import ParityReport
from .parity.verdict import failure_lines, failures
from .parity.warnings import warnings
from .planning import Plan, plan
from .progress import Progress, Silent
from .prompt.tokenizer_choice import difference_note
from .quantize.calibration import Calibration
from .records import combined, one_line
from .source.empty_model import unread_tensors
from .source.shipped import calibration_texts, sample_texts
from .spec import BuildSpec, check_keep
from .texts import Texts, check_sample, inputs_for, judged

_NAMED = 3  # tensors that a warning names


@dataclass(frozen=True)
class Built:
    """A finished bundle. `report` is of every variant that was built, also of those that the bundle
    lacks because they failed."""

    directory: Path
    manifest: Manifest
    report: ParityReport


class PartialBuildError(ParityError):
    """Some variants failed, and the bundle `built` holds the others; `dropped` names those that
    failed."""

    def __init__(self, built: Built, failed: Mapping[str, Sequence[str]]) -> None:
        self.built, self.dropped = built, tuple(failed)
        held = ", ".join(variant.name for variant in built.manifest.variants)
        first = f"{built.directory} holds {held}, without {', '.join(failed)}:"
        super().__init__("\n".join([first, *_reasons(built.report, failed)]))


def _reasons(report: ParityReport, failed: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines that say how variants failed, and what helps those outside their tolerance."""
    lines = failure_lines(report, failed)
    outside = {each.name: None for each in report.variants if not each.within and not each.kept}
    if not outside:
        return lines
    names = ",".join(outside)
    return [
        *lines,
        f"judge by other texts with --texts, or keep it all the same with --keep {names}",
    ]


def build(
    spec: BuildSpec,
    output: Path,
    *,
    force: bool = False,
    sample: Texts | None = None,
    calibration: Texts | None = None,
    engines: bool = True,
    keep: Sequence[str] = (),
    progress: Progress | None = None,
) -> Built:
    """Build the bundle `output` and prove it against the untrimmed model.

    Args:
        spec: what to build.
        output: the bundle's directory; it appears whole or not at all.
        force: replace a bundle that is there.
        sample: texts to check parity on; None takes those that ship with the package.
        calibration: texts by which int8 balances activations and weights, int4 makes up for its
            errors, tensorrt-int8 scales activations, and all three add back what their hidden
            states lack on average; None takes those that ship with the package, which are others
            than parity is checked on.
        engines: build the engines of the variants for TensorRT too, which needs TensorRT and the
            GPU that will run them.
        keep: names of variants that the bundle gets even if they are outside their tolerance; the
            manifest and all that is shown of them says so.

    Raises:
        PartialBuildError: variants failed: they are outside their tolerance, or an engine did not
            run. The bundle `output` is there and holds the others.
        TrimexportError: see `errors`; where every variant fails it is a ParityError. Nothing is
            left of the bundle.
    """
    progress = progress or Silent()
    check_keep(keep, spec)
    check_output(output, force)
    engines = engines and bool(spec.tensorrt)
    if engines:
        _require_builder()
    check_calibration(spec.variants, calibration, progress)
    if sample is not None and spec.labels:  # wrong ones are refused before a model is downloaded
        check_sample(judged(sample, Score(spec.score), bool(spec.questions)), spec.labels)
    planned = plan(spec)
    fields = planned.prompt.fields
    sample = inputs_for(sample or Texts(combined(sample_texts(), fields)), fields)
    calibration = None if calibration is None else inputs_for(calibration, fields)
    check_sample(judged(sample, planned.score, bool(spec.questions)), planned.labels)
    for line in planned.notes:
        progress.say(line)
    lines = [one_line(text) for text in sample.texts]
    if note := difference_note(spec.tokenizer, planned.tokenizer, planned.checkpoint, lines):
        progress.say(note)
    release()
    with staged(output, force) as work:
        model = LayerwiseModel(planned.checkpoint, planned.mean_behind)
        if others := unread_tensors(model.names.values(), planned.checkpoint):
            progress.say(_unread_note(others, planned))
        manifest = _write(planned, model, calibration, work, progress)
        if engines:
            manifest = _build_engines(manifest, work, progress)
        release()
        backends = (DEFAULT, "tensorrt") if engines else (DEFAULT,)
        measured = measure(work, model, planned.tokenizer, sample, progress, backends)
        report = _with_kept(measured, keep)
        for line in warnings(report):
            progress.say(line)
        failed = failures(report, backends)
        manifest = _conclude(work, manifest, report, failed)
    built = Built(output, manifest, report)
    if failed:
        raise PartialBuildError(built, failed)
    return built


def _unread_note(others: Sequence[str], planned: Plan) -> str:
    """The warning of tensors that the model has no place for."""
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    return (
        f"warning: the checkpoint holds tensors that a {planned.checkpoint.architecture} of its "
        f"config.json does not have, and that are left out: {', '.join(others[:_NAMED])}{more}; "
        "if the model was trained with them, config.json is another model's"
    )


def _with_kept(report: ParityReport, keep: Sequence[str]) -> ParityReport:
    """The report, whose variants are marked that are kept even if they are outside."""
    variants = tuple(replace(each, kept=each.name in keep) for each in report.variants)
    return replace(report, variants=variants)


def _conclude(
    work: Path, manifest: Manifest, report: ParityReport, failed: Mapping[str, Sequence[str]]
) -> Manifest:
    """Take away the variants that failed, and write what was measured of the others.

    Raises:
        ParityError: none is left.
    """
    if failed:
        if not {variant.name for variant in manifest.variants} - set(failed):
            raise ParityError("\n".join(_reasons(report, failed)))
        manifest = drop_variants(work, manifest, failed)
        report = replace(
            report,
            variants=tuple(each for each in report.variants if each.name not in failed),
            not_run=tuple(row for row in report.not_run if row.name not in failed),
        )
    manifest = with_parity(manifest, report)
    save_manifest(manifest, work)
    # The card and the report are outside the hashes: people edit one, `verify` the other.
    (work / "README.md").write_text(model_card(manifest, report), encoding="utf-8")
    save_report(report, work)
    return manifest


def _write(
    planned: Plan,
    model: LayerwiseModel,
    calibration: Texts | None,
    work: Path,
    progress: Progress,
) -> Manifest:
    """Write the bundle's files, and a manifest without measurements."""
    names = planned.spec.variants
    attentions = {SCHEMES[name].attention: None for name in names}
    graphs = compile_graphs(planned, model, progress, tuple(attentions))
    with tempfile.TemporaryDirectory(dir=work) as room:
        texts = _calibration_texts(planned, calibration, progress)
        shown = None if texts is None else Calibration(planned, model, texts, Path(room), progress)
        release()
        variants, hashes = write_variants(graphs, names, work, progress, shown)
    write_client_files(planned, variants, work)
    manifest = first_manifest(planned, variants, work, hashes)
    save_manifest(manifest, work)
    return manifest


def _calibration_texts(
    planned: Plan, calibration: Texts | None, progress: Progress
) -> Texts | None:
    """The texts by which variants are calibrated: those that are given, or those that ship; None
    where no variant is."""
    names = [name for name in planned.spec.variants if SCHEMES[name].calibrated]
    if not names or calibration is not None:
        return calibration
    shipped = Texts(combined(calibration_texts(), planned.prompt.fields))
    progress.say(
        f"calibrating {' and '.join(names)} on the {len(shipped.texts)} texts that ship; give it "
        "texts like yours with --calibration, whose activations it will meet"
    )
    return shipped


def _require_builder() -> None:
    try:
        require_builder()
    except BackendError as error:
        raise SpecError(
            f"{error}; or write the graphs alone with --tensorrt-onnx-only and build the engines "
            "where they will run, with `trimexport-run build-engines`"
        ) from None


def _build_engines(manifest: Manifest, work: Path, progress: Progress) -> Manifest:
    """The manifest with an engine for each variant for TensorRT."""
    for variant in candidates(manifest):
        with progress.bar(f"engine {variant.name}", 1) as tick:
            manifest = build_engine(work, variant)
            tick(1)
    return manifest
