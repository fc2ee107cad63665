"""Fit a bundle's head to examples; the backbone stays as it was exported. No PyTorch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from trimexport.atomic import check_output, staged
from trimexport.bundle.pack_file import Arrays, check_pack_output, read_pack_head
from trimexport.bundle.pack_questions import with_question_head
from trimexport.bundle.question_heads import put_question_head
from trimexport.bundle.rewrite import CARD, copy_file, rewrite, write_manifest
from trimexport.bundle.tuned_pack import check_task, with_head, write_fitted
from trimexport.bundle.written_graph import add_bias, remove_bias
from trimexport.bundle.written_head import put_head
from trimexport.errors import SpecError
from trimexport.evaluation.known_texts import LEARNED, learned_with, read_learned, write_learned
from trimexport.evaluation.libraries import require_libraries
from trimexport.evaluation.question_labels import QuestionLabels, read_question_labels
from trimexport.parity.model_card import fitted_card
from trimexport.progress import Progress, Silent
from trimexport.texts import Columns, Texts, labelled_texts
from trimexport_runtime import Manifest
from trimexport_runtime.backbone import manifest_of_either
from trimexport_runtime.choice import choose
from trimexport_runtime.questions import place_of, view_of

from .fit_one import Found, Task, find_head, make_task, points_of, report_of
from .per_question import bias_of_all, tuned
from .softmax_only import require_softmax
from .trials import Compared, Trial

REPORT = "reports/fit.json"
FITTING = (
    "fitting puts a head with a logit for each label in the place of it; build the bundle without "
    "--score and fit that one, whose probability of a label ranks texts too"
)


@dataclass(frozen=True)
class Fitted:
    """A new bundle, or pack, with a fitted head: where it is and its manifest, how the head
    compares, the trials with draws, and notes on the texts; `report` is what was fitted as JSON can
    hold it. `on_test` says that it was scored on texts of a test, not on examples. All but the
    report is of one `question`, where the bundle has several."""

    directory: Path
    manifest: Manifest
    compared: Compared
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]
    report: Mapping[str, Any]
    on_test: bool
    question: str | None = None


def fit(
    bundle: Path,
    output: Path,
    examples: Path | Texts,
    *,
    question: str | None = None,
    test: Path | Texts | None = None,
    columns: Columns | None = None,
    shots: Sequence[int] = (),
    seeds: int = 5,
    force: bool = False,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Write the bundle `output`: `bundle` with a head that is fitted on examples; or the pack
    `output`, where a pack is given.

    Args:
        bundle: where there is a pack, its backbone.
        output: the new bundle's directory, or the new pack; it appears whole or not at all.
        examples: texts with labels, or a `.jsonl`, `.csv` or `.parquet` of them.
        question: which question's head, where the bundle has several; the answers to the others
            stay as they are. Files then have its labels in a column that is called as it is.
        test: the same as `examples`, to score on; None scores by cross-validation, and draws on
            what they leave.
        columns: where the files have texts and labels; None takes `text` and `label`.
        shots: how many examples of each label to try, with `seeds` draws of each number. The bundle
            is fitted on all examples all the same, unless it is one number and one seed.
        force: replace a bundle that is there.
        pack: the task whose head is fitted.

    Raises:
        EvaluationError: scikit-learn or matplotlib, the extra `eval`, is not installed.
        SpecError: texts that cannot be read or have other labels, too few examples of a label, or
            a bundle whose score is no softmax.
        OutputError: `output` exists or cannot be written.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, a text is none, or the
            question is none of the bundle's, or not named.
    """
    manifest = _manifest(bundle, pack, output, force)
    view_of(manifest, question)
    given = _texts(manifest, question, examples, columns)
    others = None if test is None else _texts(manifest, question, test, columns)
    task = make_task(_learned(bundle, pack), manifest, question, given, others, shots)
    (fitted,) = _fit(bundle, pack, output, manifest, [task], shots, seeds, force, progress)
    return fitted


def fit_questions(
    bundle: Path,
    output: Path,
    examples: Path,
    *,
    test: Path | None = None,
    columns: Columns | None = None,
    shots: Sequence[int] = (),
    seeds: int = 5,
    force: bool = False,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Fitted, ...]:
    """`fit` for every question of which the examples have labels, into one new bundle or pack. A
    question of which the test has none is scored on its examples."""
    manifest = _manifest(bundle, pack, output, force)
    given = read_question_labels(examples, manifest, columns)
    others = None if test is None else read_question_labels(test, manifest, columns)
    known = _learned(bundle, pack)
    tasks = [
        make_task(known, manifest, name, given.of(name), _of(others, name), shots)
        for name in given.gold
    ]
    return _fit(bundle, pack, output, manifest, tasks, shots, seeds, force, progress)


def _manifest(bundle: Path, pack: Path | None, output: Path, force: bool) -> Manifest:
    """The manifest of a bundle or a pack that can be fitted, into a place that can be written."""
    require_libraries("fitting")
    (check_output if pack is None else check_pack_output)(output, force)
    manifest = manifest_of_either(bundle, pack)
    require_softmax(manifest, pack or bundle, FITTING)
    return manifest


def _learned(bundle: Path, pack: Path | None) -> Collection[str]:
    """The SHA-256 of the texts that the heads of a bundle or a pack were fitted on before."""
    return read_learned(bundle / LEARNED) if pack is None else read_pack_head(pack)[1].learned


def _of(labels: QuestionLabels | None, question: str) -> Texts | None:
    """The texts that have a label of a question, None where there are none."""
    return None if labels is None or question not in labels.gold else labels.of(question)


def _texts(
    manifest: Manifest, question: str | None, given: Path | Texts, columns: Columns | None
) -> Texts:
    """Texts with labels of one question.

    Raises:
        SpecError: as `labelled_texts` and `read_question_labels`, or no text has such a label.
    """
    if question is None or isinstance(given, Texts):
        labels = view_of(manifest, question)[0].label_names
        return labelled_texts(given, labels, columns, manifest.prompt.places)
    own = _of(read_question_labels(given, manifest, columns), question)
    if own is None:
        raise SpecError(
            f"{given} has no label of the question {question!r}; give it a column or key of that "
            "name"
        )
    return own


def _fit(
    bundle: Path,
    pack: Path | None,
    output: Path,
    manifest: Manifest,
    tasks: Sequence[Task],
    shots: Sequence[int],
    seeds: int,
    force: bool,
    progress: Progress | None,
) -> tuple[Fitted, ...]:
    """Fit the head of each task, and write the bundle or the pack with all of them."""
    progress = progress or Silent()
    for note in (note for task in tasks for note in task.notes):
        progress.say(f"note: {note}")
    check_task(bundle, manifest, pack, progress)
    found = [
        find_head(bundle, pack, manifest, choose(manifest), task, shots, seeds, progress)
        for task in tasks
    ]
    report = _report(pack or bundle, output, found)
    texts = [text for it in found for text in it.learned.texts]
    learned = learned_with(texts, _learned(bundle, pack))
    if pack is None:
        changed = _write(bundle, output, manifest, found, report, learned, force, progress)
    else:
        changed = _unmeasured(_fitted_manifest(manifest, found))
        change = partial(_with_heads, manifest=manifest, found=found)
        write_fitted(pack, output, changed, learned, change)
    return tuple(_fitted(output, changed, it, report) for it in found)


def _fitted(output: Path, manifest: Manifest, found: Found, report: Mapping[str, Any]) -> Fitted:
    return Fitted(
        output,
        manifest,
        found.compared,
        found.trials,
        found.task.notes,
        report,
        on_test=found.task.material.test is not None,
        question=found.task.question,
    )


def _with_heads(arrays: Arrays, manifest: Manifest, found: Sequence[Found]) -> Arrays:
    """A pack's arrays with the heads in them."""
    if not manifest.questions:
        return with_head(arrays, found[0].head.head)
    for it in found:
        arrays = with_question_head(
            arrays, it.head.head, manifest, place_of(manifest, it.task.question)
        )
    return arrays


def _fitted_manifest(manifest: Manifest, found: Sequence[Found]) -> Manifest:
    """The manifest with what was fitted, which is not calibrated."""
    changed = replace(manifest, label_mass=None)
    for it in found:
        changed = tuned(changed, it.task.question, fit=it.record, calibration=None)
    return changed


def _unmeasured(manifest: Manifest) -> Manifest:
    """The manifest without what was measured of an old head."""
    return replace(
        manifest, variants=tuple(replace(variant, parity=None) for variant in manifest.variants)
    )


def _write(
    bundle: Path,
    output: Path,
    manifest: Manifest,
    found: Sequence[Found],
    report: Mapping[str, Any],
    learned: Sequence[str],
    force: bool,
    progress: Progress,
) -> Manifest:
    """Write the bundle with the heads, and its reports."""
    with progress.bar("writing the bundle", 1) as tick, staged(output, force) as work:
        changed = _write_bundle(bundle, work, manifest, found)
        _write_reports(work, report, found)
        write_learned(learned, work / LEARNED)
        tick(1)
    return changed


def _write_bundle(bundle: Path, work: Path, manifest: Manifest, found: Sequence[Found]) -> Manifest:
    """The bundle with the heads, and without what was measured of the old ones."""
    changed = _fitted_manifest(manifest, found)
    if manifest.questions:
        change = partial(_put_heads, before=manifest, after=changed, found=found)
    else:
        change = partial(put_head, head=found[0].head.head, rows=found[0].rows)
    changed = _unmeasured(rewrite(bundle, work, changed, change, copy_file))
    fits = {it.task.question: it.record for it in found}
    (work / CARD).write_text(fitted_card(changed, fits), encoding="utf-8")
    write_manifest(changed, work)
    return changed


def _put_heads(
    model: onnx.ModelProto, before: Manifest, after: Manifest, found: Sequence[Found]
) -> None:
    """Let the logits of questions be those of other heads. The other questions stay calibrated."""
    remove_bias(model)
    for it in found:
        own = place_of(before, it.task.question)
        put_question_head(model, it.head.head, before, own, it.rows)
    if (bias := bias_of_all(after)) is not None:
        add_bias(model, bias.tolist())


def _report(fitted: Path, output: Path, found: Sequence[Found]) -> dict[str, Any]:
    """What was fitted as JSON can hold it, of several questions by their names."""
    named = {"bundle": str(fitted), "output": str(output)}
    if found[0].task.question is None:
        return {**named, **report_of(found[0])}
    return {**named, "questions": {it.task.question: report_of(it) for it in found}}


def _write_reports(work: Path, report: Mapping[str, Any], found: Sequence[Found]) -> None:
    """Write what was fitted, and the curve of a single question."""
    target = work / REPORT
    target.parent.mkdir()
    target.write_text(
        json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    if len(found) == 1 and (points := points_of(found[0])):
        from .curve_plot import draw_curve  # here, for it needs matplotlib

        draw_curve(points, target)
