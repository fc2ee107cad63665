"""Calibrate a bundle: find a bias per label and add it to every variant's graph, or take it away.

No PyTorch: the logits are the runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from trimexport.atomic import staged
from trimexport.bundle.rewrite import (
    CARD,
    carry_over,
    dropped_engines,
    link_file,
    rewrite,
    write_manifest,
)
from trimexport.bundle.tuned_pack import check_task, write_calibration
from trimexport.bundle.written_graph import add_bias, remove_bias
from trimexport.errors import SpecError
from trimexport.numerics import Floats, softmax
from trimexport.progress import Progress, Silent
from trimexport.records import Record, as_inputs
from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.backbone import manifest_of_either
from trimexport_runtime.bundle import Calibration
from trimexport_runtime.inputs import Input, required
from trimexport_runtime.questions import view_of

from .bias_methods import CONTENT_FREE, check_prior, even_out, match_prior
from .per_question import bias_of_all, describe, questions_of, tuned
from .softmax_only import require_softmax

CALIBRATION = (
    "calibrating evens out labels that share one; move a single score with --score-shift at the "
    "build, and find the threshold of independent labels with `trimexport eval --threshold auto`"
)
_CHUNK = 256  # texts between two signs of progress
_MARK = "<!-- trimexport calibrate -->"


@dataclass(frozen=True)
class Calibrated:
    """A calibrated bundle's manifest, its calibration, and what the bias does on the texts.

    `before` and `after` are the labels' mean probabilities over the texts, float64 [labels],
    without a bias and with this one; `changed` is how many answers the bias changes. `residual` is
    the most that a label's share differs from the prior, None without one; `engines` names the
    variants whose TensorRT engine is gone. All is of one `question`, where the bundle has several.
    """

    manifest: Manifest
    calibration: Calibration
    before: Floats
    after: Floats
    changed: int
    residual: float | None
    engines: tuple[str, ...]
    question: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels whose logits the bias moves."""
        return view_of(self.manifest, self.question)[0].label_names


def calibrate(
    bundle: Path,
    texts: Sequence[Input] | None = None,
    prior: Mapping[str, float] | None = None,
    *,
    question: str | None = None,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Add a bias per label to every graph of `bundle`, in the place of an earlier one; or to a
    pack, which is replaced.

    Args:
        bundle: where there is a pack, its backbone, which stays as it is.
        texts: texts of the task; None takes texts that say nothing, for each field that has to be
            given.
        prior: the share of each label among the texts, where it is known.
        question: which question's labels, where the bundle has several; the others stay as they
            are.
        pack: the task that is calibrated.

    Raises:
        SpecError: there is no text, or the prior does not give each of these labels its share, or
            comes without texts; the bundle's score is no softmax.
        OutputError: the bundle cannot be written; it is as it was.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, a text is none, or the
            question is none of the bundle's, or not named.
    """
    manifest = manifest_of_either(bundle, pack)
    view_of(manifest, question)
    (calibrated,) = _calibrate(
        bundle, pack, manifest, [question], texts, prior, progress or Silent()
    )
    return calibrated


def calibrate_questions(
    bundle: Path,
    texts: Sequence[Input] | None = None,
    *,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Calibrated, ...]:
    """`calibrate` for every question of a bundle or a pack, on the same texts."""
    manifest = manifest_of_either(bundle, pack)
    questions = questions_of(manifest, None)
    return _calibrate(bundle, pack, manifest, questions, texts, None, progress or Silent())


def _calibrate(
    bundle: Path,
    pack: Path | None,
    manifest: Manifest,
    questions: Sequence[str | None],
    texts: Sequence[Input] | None,
    prior: Mapping[str, float] | None,
    progress: Progress,
) -> tuple[Calibrated, ...]:
    require_softmax(manifest, pack or bundle, CALIBRATION)
    chosen = [view_of(manifest, question) for question in questions]
    shares = None if prior is None else check_prior(prior, chosen[0][0].label_names)
    if prior is not None and texts is None:
        raise SpecError("a prior is the labels' shares among texts; give texts too")
    if texts is not None and not texts:
        raise SpecError("there is no text to calibrate on; give one at least")
    check_task(bundle, manifest, pack, progress)
    asked = _content_free(manifest) if texts is None else tuple(texts)
    logits, variant = _plain_logits(bundle, pack, manifest, asked, progress)
    method = "content-free" if texts is None else "batch" if prior is None else "prior"
    found = [_bias_for(logits[:, part], shares) for _, part in chosen]
    made = [
        Calibration(
            method=method,
            texts=len(asked),
            bias=tuple(bias.tolist()),
            prior=None if prior is None else dict(prior),
            variant=variant,
        )
        for bias, _ in found
    ]
    changed = manifest
    for question, calibration in zip(questions, made, strict=True):
        changed = tuned(changed, question, calibration=calibration)
    changed = _write(bundle, pack, manifest, changed, progress)
    engines = _dropped_engines(bundle, manifest, progress)
    results = []
    for question, (_, part), calibration, (bias, residual) in zip(
        questions, chosen, made, found, strict=True
    ):
        own = logits[:, part]
        moved = own + bias
        results.append(
            Calibrated(
                manifest=changed,
                calibration=calibration,
                before=softmax(own).mean(axis=0),
                after=softmax(moved).mean(axis=0),
                changed=int((own.argmax(axis=1) != moved.argmax(axis=1)).sum()),
                residual=residual,
                engines=engines,
                question=question,
            )
        )
    return tuple(results)


def _bias_for(logits: Floats, shares: Floats | None) -> tuple[Floats, float | None]:
    """The bias for a question's logits, float64 [labels] as it is added, in float32; and how far
    the shares that were asked for are missed."""
    if shares is None:
        bias, residual = even_out(logits), None
    else:
        matched = match_prior(logits, shares)
        bias, residual = matched.bias, matched.residual
    return bias.astype(np.float32).astype(np.float64), residual


def undo_calibration(
    bundle: Path,
    *,
    question: str | None = None,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Take the bias away, so that the graphs of `bundle`, or a pack of that backbone, are those
    from before. Returns the names of the variants whose TensorRT engine is gone.

    Args:
        question: take away that of one question alone; None takes all.

    Raises:
        SpecError: the bundle has no bias.
        OutputError: the bundle cannot be written; it is as it was.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or has no such question.
    """
    progress = progress or Silent()
    manifest = changed = manifest_of_either(bundle, pack)
    questions = questions_of(manifest, question)
    if all(view_of(manifest, it)[0].calibration is None for it in questions):
        of = "" if question is None else f" of the question {question!r}"
        raise SpecError(
            f"{pack or bundle} has no calibration{of} to undo; `trimexport calibrate {bundle} "
            "--texts FILE` would add one"
        )
    for it in questions:
        changed = tuned(changed, it, calibration=None)
    check_task(bundle, manifest, pack, progress)
    _write(bundle, pack, manifest, changed, progress)
    return _dropped_engines(bundle, manifest, progress)


def _dropped_engines(bundle: Path, manifest: Manifest, progress: Progress) -> tuple[str, ...]:
    """The variants whose engine was of the graphs from before; say so."""
    names = dropped_engines(manifest)
    if names:
        progress.say(
            f"the TensorRT engine of {', '.join(names)} was of the graph from before and is gone; "
            f"build it again with `trimexport-run build-engines {bundle}`"
        )
    return names


def _content_free(manifest: Manifest) -> tuple[Input, ...]:
    """Texts that say nothing, each in all fields that have to be given. A bundle without a prompt
    cannot take the empty one."""
    prompt = manifest.prompt
    around = prompt.prefix_ids or prompt.suffix_ids or manifest.questions
    texts = [text for text in CONTENT_FREE if text or around]
    names = required(prompt.places)
    return as_inputs((Record(dict.fromkeys(names, text)) for text in texts), prompt.places)


def _plain_logits(
    bundle: Path,
    pack: Path | None,
    manifest: Manifest,
    texts: Sequence[Input],
    progress: Progress,
) -> tuple[Floats, str]:
    """The logits of texts without any bias, float64 [texts, labels], and the name of the variant
    that gave them."""
    parts = []
    classifier = Classifier.load(bundle, task=pack)
    with progress.bar(f"reading {len(texts):,} texts", len(texts)) as tick:
        for start in range(0, len(texts), _CHUNK):
            parts.append(classifier.logits(texts[start : start + _CHUNK]))
            tick(len(parts[-1]))
    logits = np.concatenate(parts).astype(np.float64)
    if (bias := bias_of_all(manifest)) is not None:
        logits -= bias
    return logits, classifier.variant.name


def _write(
    bundle: Path, pack: Path | None, manifest: Manifest, changed: Manifest, progress: Progress
) -> Manifest:
    """Replace the bundle or the pack by itself with the bias of another manifest, or with none.
    Returns that manifest with the new files."""
    bias = bias_of_all(changed)
    if pack is not None:
        write_calibration(pack, changed, np.zeros(changed.outputs) if bias is None else bias)
        return changed
    change = remove_bias if bias is None else partial(add_bias, bias=bias.tolist())
    remedy = "copy the bundle to where there is room and you may write"
    with (
        progress.bar("writing the graphs", 1) as tick,
        staged(bundle, force=True, remedy=remedy) as work,
    ):
        changed = rewrite(bundle, work, changed, change, link_file)
        _write_card(bundle, work, changed)
        carry_over(bundle, work, manifest)
        write_manifest(changed, work)
        tick(1)
    return changed


def _write_card(bundle: Path, work: Path, manifest: Manifest) -> None:
    """Write the model card with a line on the calibration, and otherwise as it is: people may have
    edited it."""
    card = bundle / CARD
    if not card.is_file():
        return
    # Its encoding may be any: what is not UTF-8 stays as it is.
    lines = card.read_bytes().decode("utf-8", "surrogateescape").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(_MARK)).rstrip("\n") + "\n"
    if described := describe(manifest):
        text += f"\n{_MARK} Calibrated: {described}.\n"
    (work / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
