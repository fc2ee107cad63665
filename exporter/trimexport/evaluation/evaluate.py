"""Judge a bundle's answers by texts whose labels are known. No PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimexport.errors import SpecError
from trimexport.progress import Progress, Silent
from trimexport.texts import Columns, Texts, labelled_texts, labels_without_texts
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.bundle import INDEPENDENT, LOGIT

from .earlier import compared, read_earlier
from .known_texts import LEARNED, learned_from, read_learned, shown_as_examples
from .libraries import require_libraries
from .record import check_page, write_record
from .run import Evaluated, digest, evaluate_variant, variant_names


def evaluate(
    bundle: Path,
    data: Path | Texts,
    *,
    columns: Columns | None = None,
    variants: Sequence[str] = (),
    abstain_below: float | None = None,
    compare: Path | None = None,
    page: Path | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Classify texts with variants of `bundle`, and judge the answers by the texts' labels.

    Args:
        data: texts with labels, or a `.jsonl`, `.csv` or `.parquet` of them.
        columns: where the file has its texts and labels; None takes `text` and `label`.
        variants: names of variants; none is the fastest one, and `("all",)` every one.
        abstain_below: a probability from 0 to 1; counts what is left without less sure answers.
        compare: the `.json` of an earlier evaluation of the same texts, to test the difference.
        page: write the evaluation as this HTML page, and as JSON beside it.

    Raises:
        EvaluationError: scikit-learn or matplotlib, the extra `eval`, is not installed.
        SpecError: a bundle that does not answer with one label of several, texts that cannot be
            read or have other labels, an earlier evaluation that cannot be read or is of other
            texts, or an `abstain_below` that is no probability.
        OutputError: the page cannot be written.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or has no such variant.
    """
    if abstain_below is not None and not 0 <= abstain_below <= 1:
        raise SpecError(f"abstain_below is {abstain_below:g}; give a probability from 0 to 1")
    require_libraries("evaluating")
    if page is not None:
        check_page(page)
    progress = progress or Silent()
    manifest = read_manifest(bundle)
    _require_one_label(manifest, bundle)
    labels = manifest.label_names
    sample = labelled_texts(data, labels, columns, manifest.prompt.places)
    notes = notes_on(bundle, manifest, sample)
    for note in notes:
        progress.say(f"Note: {note}")
    earlier = None if compare is None else read_earlier(compare, sample, labels)
    evaluations = []
    for name in variant_names(variants, manifest):
        with progress.bar("classifying", len(sample.texts)) as advance:
            evaluation = evaluate_variant(bundle, sample, name, abstain_below, advance)
        if earlier is not None:
            evaluation = compared(evaluation, sample.places(labels), earlier)
        evaluations.append(evaluation)
    evaluated = Evaluated(
        bundle=bundle,
        data=sample.source,
        digest=digest(sample, labels),
        labels=labels,
        notes=notes,
        variants=tuple(evaluations),
    )
    if page is not None:
        write_record(evaluated, page)
    return evaluated


def _require_one_label(manifest: Manifest, bundle: Path) -> None:
    """Raise SpecError unless the bundle answers each text with one label of several."""
    if manifest.questions:
        raise SpecError(
            f"{bundle} asks {len(manifest.questions)} questions of a text, and each has labels of "
            "its own; judge them with `trimexport eval`, or "
            "trimexport.evaluation.several_questions.evaluate_questions"
        )
    kind = manifest.score.kind
    if kind == LOGIT:
        raise SpecError(
            f"{bundle} gives each text a number and no label of several, so labels cannot judge "
            "it; write the numbers with `trimexport-run classify --json` and compare those"
        )
    if kind == INDEPENDENT:
        raise SpecError(
            f"the labels of {bundle} are independent, and a text may have several; judge them with "
            "`trimexport eval`, or trimexport.evaluation.multi_label.evaluate_independent"
        )


def notes_on(bundle: Path, manifest: Manifest, sample: Texts) -> tuple[str, ...]:
    """What makes texts with labels a poor measure of the bundle. Of several questions the manifest
    is one's view."""
    source, different = sample.source, set(sample.texts)
    notes = []
    if absent := labels_without_texts(sample, manifest.label_names):
        notes.append(f"no text of {source} has the label {', '.join(absent)}")
    if repeated := len(sample.texts) - len(different):
        notes.append(f"{repeated:,} texts of {source} stand there before")
    if learned := learned_from(read_learned(bundle / LEARNED), different):
        notes.append(
            f"the head was fitted on {len(learned):,} texts of {source}; judge it by others"
        )
    if shown := shown_as_examples(manifest.prompt, different):
        notes.append(
            f"{len(shown):,} texts of {source} stand in the bundle's prompt as examples, with "
            "their labels; judge it by others"
        )
    return tuple(notes)
