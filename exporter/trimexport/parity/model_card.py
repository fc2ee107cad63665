"""The bundle's README.md: a model card with the parity table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trimexport.tensorrt.trtexec import trtexec_commands
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import SOFTMAX, Fit, Prompt, Question
from trimexport_runtime.inputs import required

from .render import markdown
from .report import ParityReport

_CARD = """---
library_name: trimexport
pipeline_tag: text-classification
base_model: {model}
---

# {title}

{what}

| | |
| --- | --- |
| labels | {labels} |
{questions}{tokens}{score}| prompt | `{prompt}` |
| longest text | {limit} |
| source | `{model}`{revision} |
{adapter}{depth}{notice}
## Use

```python
from trimexport_runtime import Classifier

classifier = Classifier.load("path/to/this/bundle")
print(classifier.classify([{example}]))
```

`onnx/model.onnx` takes `input_ids` and `attention_mask` (int64 [batch, sequence], a text's own
tokens{between}) and gives `logits` (float32 [batch, {count}]), so any client of an ordinary
sequence classifier can run it with the tokenizer beside it.{apart}

{measured}
{engines}"""

_PARITY = """\
## Parity

Each variant against the untrimmed model in PyTorch float32, on {texts} texts.

{table}"""

_APART = """
They are the labels' of one question after the other, and a softmax is of one question's alone: a
client that takes it over all of them shows other probabilities."""

_HEAD = """\
## The head

{heads}

`trimexport verify` compares it with the untrimmed model's hidden states."""

_FITTED_ON = """\
{of} on {examples} by logistic regression (C {strength:g}), which got {accuracy:.2%} of them right
in {folds}-fold cross-validation."""

_ENGINES = """
## TensorRT

On the device, `trimexport-run build-engines path/to/this/bundle`. For other programs, in this
directory, with TensorRT's own tool:

{commands}
"""


_CUT = """\
A text classifier cut from `{model}` ({architecture}) by trimexport: the prompt is compiled into
the graph, and of the output layer only the label words' rows are left. No training was done."""
_FITTED = """\
A text classifier made from `{model}` ({architecture}) by trimexport: the prompt is compiled into
the graph, and a head was fitted to the last hidden states. The weights were not trained."""
_FINE_TUNED = """\
The fine-tuned text classifier `{model}` ({architecture}), compiled by trimexport with all that it
reads around a text."""


def model_card(manifest: Manifest, report: ParityReport) -> str:
    """The card as Markdown."""
    measured = _PARITY.format(texts=len(report.texts), table=markdown(report))
    return _card(manifest, _CUT if _is_cut(manifest) else _FINE_TUNED, measured)


def fitted_card(manifest: Manifest, fits: Mapping[str | None, Fit]) -> str:
    """The card of a bundle whose head was fitted, as Markdown.

    Args:
        fits: the new heads by their questions; None is a bundle's only one.
    """
    heads = "\n\n".join(_fitted(question, fit) for question, fit in fits.items())
    return _card(manifest, _FITTED, _HEAD.format(heads=heads))


def _fitted(question: str | None, fit: Fit) -> str:
    """What a head was fitted on."""
    examples = ", ".join(f"{count:,} examples of {label}" for label, count in fit.examples.items())
    return _FITTED_ON.format(
        of="Fitted" if question is None else f"That of {question} was fitted",
        examples=examples,
        strength=fit.strength,
        accuracy=fit.accuracy,
        folds=fit.folds,
    )


def _is_cut(manifest: Manifest) -> bool:
    """Whether the labels are tokens of a vocabulary, and not a fine-tuned classifier's."""
    return all(label.tokens for label in manifest.labels)


def _card(manifest: Manifest, what: str, measured: str) -> str:
    """A card with a first paragraph and a section on what was measured.

    Args:
        what: the paragraph, with `{model}` and `{architecture}`.
    """
    source, several = manifest.source, len(manifest.prompt.places) > 1
    labels = ", ".join(manifest.label_names)
    return _CARD.format(
        model=source.model,
        what=what.format(model=source.model, architecture=source.architecture),
        title=_cell(", ".join(q.name for q in manifest.questions) or labels),
        labels=_cell(labels),
        questions=_question_rows(manifest),
        tokens=_token_row(manifest),
        prompt=_cell(repr(manifest.prompt.template)[1:-1]),
        limit=_limit(manifest),
        example=_example(manifest),
        between=", or those of all fields and what stands between them" * several,
        revision=f" at revision `{source.revision}`" if source.revision else "",
        depth=f"| depth | {manifest.depth_phrase} |\n" if manifest.depth_phrase else "",
        adapter=f"| adapter | {_adapter(source.adapter, manifest.prompt)} |\n"
        if source.adapter
        else "",
        notice=f"| terms | {_cell(source.notice)} |\n" if source.notice else "",
        count=manifest.outputs,
        apart=_APART if manifest.questions else "",
        score=_score_row(manifest),
        measured=measured,
        engines=_engines(manifest),
    )


def _limit(manifest: Manifest) -> str:
    """How long a text may be, and what is cut off."""
    limit = manifest.text_limit
    if len(manifest.prompt.places) == 1:
        return f"{limit.tokens} tokens, cut at its {limit.truncate}"
    return (
        f"{limit.tokens} tokens for all fields and what stands between them; {manifest.cut_field} "
        f"is cut, at its {limit.truncate}"
    )


def _example(manifest: Manifest) -> str:
    """An input as Python writes it."""
    names = required(manifest.prompt.places)
    if len(names) == 1:
        return '"your text"'
    return "{" + ", ".join(f'"{name}": "your {name}"' for name in names) + "}"


def _token_row(manifest: Manifest) -> str:
    """The row that names the label tokens, if the head is theirs."""
    if not _is_cut(manifest) or manifest.fit is not None:
        return ""
    if manifest.questions:
        tokens = "; ".join(f"{each.name}: {_tokens_of(each)}" for each in manifest.questions)
    elif any(label.sequences for label in manifest.labels):
        tokens = "whole labels, for some begin alike"
    else:
        tokens = "; ".join(f"{label.name}: {' '.join(label.tokens)}" for label in manifest.labels)
    return f"| label tokens | {_cell(tokens)} |\n"


def _tokens_of(question: Question) -> str:
    """A question's label tokens."""
    if any(label.sequences for label in question.labels):
        return "whole labels"
    return ", ".join(" ".join(label.tokens) for label in question.labels)


def _question_rows(manifest: Manifest) -> str:
    """A row for each question with what it asks; none where there are none."""
    return "".join(
        f"| question {_cell(question.name)} | {_cell(question.text)} |\n"
        for question in manifest.questions
    )


def _score_row(manifest: Manifest) -> str:
    """The row on the score, if it is no softmax."""
    score = manifest.score
    return "" if score.kind == SOFTMAX else f"| score | {score.phrase} |\n"


def _adapter(name: str, prompt: Prompt) -> str:
    """The name of the adapter, its hub id or its directory without the path, and what it is."""
    virtual = prompt.virtual_tokens
    what = f"{virtual} trained virtual tokens before the prompt" if virtual else "LoRA, merged"
    return f"`{_cell(Path(name).name if Path(name).is_absolute() else name)}` ({what})"


def _engines(manifest: Manifest) -> str:
    """The section on building engines, if there are graphs for them."""
    commands = trtexec_commands(manifest)
    blocks = [
        f"TensorRT {version}, `{name}`:\n\n```\n{command}\n```"
        for name, versions in commands.items()
        for version, command in versions.items()
    ]
    return _ENGINES.format(commands="\n\n".join(blocks)) if commands else ""


def _cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
