"""Calibrate a bundle: find a bias per label and add it to every variant's graph, or take it away.

No PyTorch: the logits are the runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from trimexport.bundle.tuned_pack import check_task, read_task, write_calibration
from trimexport.bundle.written_graph import add_bias, remove_bias
from trimexport.errors import SpecError
from trimexport.numerics import Floats, softmax
from trimexport.progress import Progress, Silent
from trimexport.records import Record, as_inputs
from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.bundle import Calibration
from trimexport_runtime.inputs import Input, required

from .bias_methods import CONTENT_FREE, even_out, match_prior
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
    variants whose TensorRT engine is gone.
    """

    manifest: Manifest
    calibration: Calibration
    before: Floats
    after: Floats
    changed: int
    residual: float | None
    engines: tuple[str, ...]


def calibrate(
    bundle: Path,
    texts: Sequence[Input] | None = None,
    prior: Mapping[str, float] | None = None,
    *,
    pack: Path | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Add a bias per label to every graph of `bundle`, in the place of an earlier one; or to a
    pack, which is replaced.

    Args:
        bundle: where there is a pack, its backbone, which stays as it is.
        texts: texts of the task; None takes texts that say nothing, for each field that has to be
            given.
        pack: the task that is calibrated.
        prior: the share of each label among the texts, where it is known.

    Raises:
        SpecError: there is no text, or the prior does not give each of these labels its share, or
            comes without texts; the bundle's score is no softmax.
        OutputError: the bundle cannot be written; it is as it was.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged, or a text is none.
    """
    progress = progress or Silent()
    manifest = read_task(bundle, pack)
    require_softmax(manifest, pack or bundle, CALIBRATION)
    shares = None if prior is None else check_prior(prior, manifest.label_names)
    if prior is not None and texts is None:
        raise SpecError("a prior is the labels' shares among texts; give texts too")
    if texts is not None and not texts:
        raise SpecError("there is no text to calibrate on; give one at least")
    check_task(bundle, manifest, pack, progress)
    asked = _content_free(manifest) if texts is None else tuple(texts)
    logits, variant = _plain_logits(bundle, pack, manifest, asked, progress)
    residual = None
    if shares is None:
        bias = even_out(logits)
    else:
        matched = match_prior(logits, shares)
        bias, residual = matched.bias, matched.residual
    bias = bias.astype(np.float32).astype(np.float64)  # as it is added
    calibration = Calibration(
        method="content-free" if texts is None else "batch" if prior is None else "prior",
        texts=len(asked),
        bias=tuple(bias.tolist()),
        prior=None if prior is None else dict(prior),
        variant=variant,
    )
    moved = logits + bias
    if pack is None:
        changed = _write(bundle, manifest, calibration, progress)
    else:
        changed = write_calibration(pack, manifest, calibration)
    return Calibrated(
        manifest=changed,
        calibration=calibration,
        before=softmax(logits).mean(axis=0),
        after=softmax(moved).mean(axis=0),
        changed=int((logits.argmax(axis=1) != moved.argmax(axis=1)).sum()),
        residual=residual,
        engines=_dropped_engines(bundle, manifest, progress),
    )


def undo_calibration(
    bundle: Path, *, pack: Path | None = None, progress: Progress | None = None
) -> tuple[str, ...]:
    """Take the bias away, so that the graphs of `bundle`, or a pack of that backbone, are those
    from before. Returns the names of the variants whose TensorRT engine is gone.

    Raises:
        SpecError: the bundle has no bias.
        OutputError: the bundle cannot be written; it is as it was.
        trimexport_runtime.TrimexportRuntimeError: the bundle is damaged.
    """
    progress = progress or Silent()
    manifest = read_task(bundle, pack)
    if manifest.calibration is None:
        raise SpecError(
            f"{pack or bundle} has no calibration to undo; `trimexport calibrate {bundle} --texts "
            "FILE` would add one"
        )
    check_task(bundle, manifest, pack, progress)
    if pack is not None:
        write_calibration(pack, manifest, None)
        return ()
    _write(bundle, manifest, None, progress)
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


def check_prior(prior: Mapping[str, float], labels: Sequence[str]) -> Floats:
    """The shares of a prior in the labels' order, float64 [labels].

    Raises:
        SpecError: the prior names what is no label or leaves a label out, a share is not between 0
            and 1, or the sum is not 1.
    """
    names = ", ".join(labels)
    if unknown := [name for name in prior if name not in labels]:
        raise SpecError(
            f"the prior names {', '.join(map(repr, unknown))}, the bundle's labels are {names}; "
            "give each of these its share"
        )
    if absent := [label for label in labels if label not in prior]:
        raise SpecError(
            f"the prior says nothing of {', '.join(map(repr, absent))}; give every label its "
            f"share: {names}"
        )
    shares = np.array([prior[label] for label in labels], dtype=np.float64)
    for label, share in zip(labels, shares.tolist(), strict=True):
        if not 0 < share < 1:
            raise SpecError(
                f"the prior of {label!r} is {share:g}; give a share above 0 and below 1, for no "
                "bias makes a label certain or impossible"
            )
    if abs(shares.sum() - 1) > 1e-6:
        raise SpecError(f"the prior's shares sum to {shares.sum():.6g}; make them sum to 1")
    return np.asarray(shares / shares.sum())


def _content_free(manifest: Manifest) -> tuple[Input, ...]:
    """Texts that say nothing, each in all fields that have to be given. A bundle without a prompt
    cannot take the empty one."""
    prompt = manifest.prompt
    around = prompt.prefix_ids or prompt.suffix_ids
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
    if manifest.calibration is not None:
        logits -= np.array(manifest.calibration.bias)
    return logits, classifier.variant.name


def _write(
    bundle: Path, manifest: Manifest, calibration: Calibration | None, progress: Progress
) -> Manifest:
    """Replace the bundle by itself with another bias, or with none."""
    change = remove_bias if calibration is None else partial(add_bias, bias=calibration.bias)
    remedy = "copy the bundle to where there is room and you may write"
    with (
        progress.bar("writing the graphs", 1) as tick,
        staged(bundle, force=True, remedy=remedy) as work,
    ):
        changed = rewrite(bundle, work, manifest, change, link_file)
        changed = replace(changed, calibration=calibration)
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
    if manifest.calibration is not None:
        text += f"\n{_MARK} Calibrated: {describe(manifest)}.\n"
    (work / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))


def describe(manifest: Manifest) -> str:
    """The calibration in a line, empty if there is none."""
    calibration = manifest.calibration
    if calibration is None:
        return ""
    biases = ", ".join(
        f"{label} {bias:+.3f}"
        for label, bias in zip(manifest.label_names, calibration.bias, strict=True)
    )
    return f"{calibration.method} on {calibration.texts:,} texts, logits moved by {biases}"
