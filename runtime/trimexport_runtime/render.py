"""The texts that the command line prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .backbone_manifest import BackboneManifest
from .bundle import INDEPENDENT, SOFTMAX, Manifest, Score, Variant
from .classifier import Classifier
from .columns import Record
from .cpu import instructions
from .files import BadLine
from .prediction import Prediction
from .questions import views
from .render_questions import answers_cells, answers_dict, question_rows
from .result_keys import texts_dict
from .visible import visible

TEXT_WIDTH = 80


@dataclass(frozen=True)
class Answer:
    """A record of the input with its prediction, or with the reason why it has none.

    `index` is its place in the input, from 0, and `number` that of its line, from 1; `file` is its
    file's name where there are several.
    """

    index: int
    number: int
    text: Record
    result: Prediction | BadLine
    file: str | None = None


def prediction_dict(prediction: Prediction, manifest: Manifest) -> dict[str, Any]:
    """A prediction for JSON, with its probabilities by their labels; with the logit where the score
    is a single one, and with the labels that are true where they are independent. Of several
    questions the answer to each."""
    if prediction.answers:
        return {
            "answers": answers_dict(prediction, manifest),
            "truncated": prediction.truncated,
            "tokens": prediction.tokens,
        }
    score = manifest.score
    by_label = dict(zip(manifest.label_names, prediction.probabilities, strict=True))
    value = {**vars(prediction), "probabilities": by_label}
    del value["answers"]
    if not score.is_single:
        del value["score"]
    if score.kind != INDEPENDENT:
        del value["labels"]
    return value


def answer_line(answer: Answer, prediction: Prediction, score: Score) -> str:
    """What `answer_cells` gives, and the text, or those of the fields, with tabs between them."""
    texts = [answer.text] if isinstance(answer.text, str) else list(answer.text.values())
    width = max(1, TEXT_WIDTH // len(texts))
    shown = (visible(text if len(text) <= width else text[: width - 1] + "…") for text in texts)
    return "\t".join([*answer_cells(prediction, score), *shown])


def answer_cells(prediction: Prediction, score: Score) -> list[str]:
    """Label and probability; behind them the logit where the score is a single one, which stands
    alone where it is no probability's. Of independent labels all that are true, or a dash; of
    several questions the answer to each."""
    if prediction.answers:
        return answers_cells(prediction)
    label, share = visible(prediction.label), f"{prediction.probability:.1%}"
    if prediction.score is not None:
        number = f"{prediction.score:.4f}"
        return [label, share, number] if score.sigmoid else [label, number]
    if score.kind == INDEPENDENT:
        label = ", ".join(map(visible, prediction.labels)) or "-"
    return [label, share]


def answer_json(
    answer: Answer, prediction: Prediction, classifier: Classifier, *, numbered: bool
) -> str:
    """One JSON object on one line; `numbered` adds the line of the file."""
    as_json = prediction_dict(prediction, classifier.manifest)
    value: dict[str, object] = {"index": answer.index}
    if answer.file is not None:
        value["file"] = answer.file
    if numbered:
        value["line"] = answer.number
    value |= texts_dict(classifier.manifest.prompt.places, answer.text)
    value |= as_json
    value |= {"variant": classifier.variant.name, "provider": classifier.provider}
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def bad_json(answer: Answer, bad: BadLine, *, numbered: bool) -> str:
    """One JSON object on one line for a record without an answer: its line or index, and why."""
    where: dict[str, object] = {} if answer.file is None else {"file": answer.file}
    where |= {"line": bad.number} if numbered else {"index": answer.index}
    reason = bad.reason.encode("utf-8", errors="backslashreplace").decode()
    return json.dumps({**where, "error": reason}, ensure_ascii=False, allow_nan=False)


def info_json(bundle: Path, manifest: Manifest, *, checked: bool) -> str:
    """The manifest as JSON, with what runs it here; `checked` says that the hashes were right."""
    value = {"bundle": str(bundle), **asdict(manifest), "runtime": _runtime(bundle, manifest)}
    if checked:
        value["check"] = "ok"
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def info_text(bundle: Path, manifest: Manifest, *, checked: bool) -> str:
    """The manifest for people, with what runs it here."""
    prompt, runtime = manifest.prompt, _runtime(bundle, manifest)
    size = sum(entry.bytes for entry in manifest.files)
    rows = [
        ("bundle", f"{bundle} (format {manifest.format_version})"),
        *(question_rows(manifest) if manifest.questions else _label_rows(manifest)),
        *_score_rows(manifest.score),
        ("prompt", visible(prompt.template)),
        *([("", f"{prompt.virtual_tokens:,} virtual tokens first")] * bool(prompt.virtual_tokens)),
        ("", _around(manifest)),
        *([("", manifest.depth_phrase)] * bool(manifest.depth_phrase)),
        *_field_rows(manifest),
        *_source_rows(manifest),
        *(("variant", _variant_text(variant)) for variant in manifest.variants),
        *_share("label mass", manifest.label_mass),
        *_share("token gap", manifest.tokenisation_gap),
        *_tuned_rows(manifest),
        ("runs on", f"onnxruntime {runtime['onnxruntime']}: {runtime['provider']}"),
        *(("backend", _backend(backend)) for backend in runtime["backends"]),
        ("processor", _processor(runtime["instructions"])),
        ("files", f"{len(manifest.files)}, {_megabytes(size)}{', all ok' if checked else ''}"),
    ]
    return "\n".join(f"{name:<12}{value}".rstrip() for name, value in rows)


def _label_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """A row for each label, with its words."""
    return [
        ("label", ": ".join(filter(None, (label.name, ", ".join(label.words)))))
        for label in manifest.labels
    ]


def _score_rows(score: Score) -> list[tuple[str, str]]:
    """The row on the score, if it is no softmax."""
    return [] if score.kind == SOFTMAX else [("score", score.phrase)]


def _around(manifest: Manifest) -> str:
    """How many tokens stand before the text and behind it; of several questions all that do."""
    sizes = [len(each.suffix_ids) for each in (manifest.questions or (manifest.prompt,))]
    behind = ", ".join(f"{size:,}" for size in sizes)
    named = "suffixes" if manifest.questions else "suffix"
    return f"prefix {len(manifest.prompt.prefix_ids):,} tokens, {named} {behind}"


def _field_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The text limit, and where the prompt has several fields what there is to know of each."""
    limit, fields = manifest.text_limit, manifest.prompt.places
    most, cut = f"{limit.tokens:,} tokens", f"cut at the {limit.truncate}"
    if len(fields) == 1:
        return [("text limit", f"{most}; longer texts are {cut}")]
    rows = []
    for field in fields:
        about = []
        if field.default is not None:
            about.append(f'"{visible(field.default)}" unless another is given')
        if field.name == manifest.cut_field:
            about.append(f"{cut} where all together have more than {most}")
        rows.append(("field", ": ".join(filter(None, (visible(field.name), "; ".join(about))))))
    return [*rows, ("text limit", f"{most} for all fields together")]


def _source_rows(manifest: Manifest) -> list[tuple[str, str]]:
    source = manifest.source
    revision = f", revision {source.revision}" if source.revision else ""
    rows = [("source", f"{source.model} ({source.architecture}{revision})")]
    if source.adapter is not None:
        rows.append(("adapter", source.adapter))
    return [*rows, ("notice", source.notice)] if source.notice else rows


def _tuned_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """What was tuned of the logits, by the question's name where there are several."""
    names = [f"{visible(question.name)}: " for question in manifest.questions] or [""]
    return [
        (row, name + value)
        for name, view in zip(names, views(manifest), strict=True)
        for row, value in (*_calibration_rows(view), *_fit_rows(view))
    ]


def _calibration_rows(manifest: Manifest) -> list[tuple[str, str]]:
    calibration = manifest.calibration
    if calibration is None:
        return []
    moved = zip(manifest.label_names, calibration.bias, strict=True)
    biases = ", ".join(f"{visible(label)} {bias:+.3f}" for label, bias in moved)
    return [("calibration", f"{calibration.method} on {calibration.texts:,} texts: {biases}")]


def _fit_rows(manifest: Manifest) -> list[tuple[str, str]]:
    fit = manifest.fit
    if fit is None:
        return []
    learned = ", ".join(f"{visible(label)} {count:,}" for label, count in fit.examples.items())
    right = f"{fit.accuracy:.2%} right in {fit.folds}-fold cross-validation"
    return [("fitted head", f"on {learned}; {right}")]


def _variant_text(variant: Variant) -> str:
    text = (
        f"{variant.name}: {variant.precision}, opset {variant.opset}, "
        f"{_megabytes(variant.bytes)}, {', '.join(variant.providers) or 'any provider'}"
    )
    engine, parity, taken = variant.engine, variant.parity, variant.taken_over
    if taken is not None:
        text += f", {taken.phrase} with the GGUF file's own codes"
    if engine is not None:
        text += (
            f", engine for TensorRT {engine.tensorrt} on compute capability "
            f"{engine.compute_capability} ({engine.gpu})"
        )
    if parity is not None:
        text += f"; on {parity.texts:,} texts {parity.agreement:.2%} as the reference, "
        if parity.margin_error is not None:
            text += f"margin error {parity.margin_error:.2g}, "
        text += f"logits within {parity.max_logit_difference:.2g}"
    return f"{text}; OUTSIDE ITS TOLERANCE, kept" if variant.outside_tolerance else text


def _share(name: str, value: float | None) -> list[tuple[str, str]]:
    return [] if value is None else [(name, f"{value:.2%}")]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _processor(found: Sequence[str] | None) -> str:
    """What it has for integer products."""
    if found is None:
        return "not known: this system does not tell"
    return ", ".join(found) or "no vector instructions for integer products"


def _backend(availability: Mapping[str, str | None]) -> str:
    text = f"{availability['backend']} ({availability['provider']})"
    if availability["variant"] is None:
        return f"{text}: {availability['reason']}"
    return f"{text}: would run {availability['variant']}"


def _runtime(bundle: Path, manifest: Manifest | BackboneManifest) -> dict[str, Any]:
    """What could run a bundle here. `provider` is what runs it where no backend is named."""
    from importlib.metadata import version  # none of these is needed for answers

    from .backends import CPU_PROVIDER
    from .backends.availability import describe_backends
    from .backends.onnxruntime import available

    onnxruntime, providers = available()
    return {
        "version": version("trimexport-runtime"),
        "onnxruntime": onnxruntime,
        "provider": CPU_PROVIDER if CPU_PROVIDER in providers else f"no {CPU_PROVIDER}",
        "instructions": instructions(),
        "backends": [asdict(backend) for backend in describe_backends(bundle, manifest)],
    }
