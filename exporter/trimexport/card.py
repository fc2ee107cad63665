"""The bundle's README.md: a model card with the parity table."""

from __future__ import annotations

from pathlib import Path

from trimexport_runtime import Manifest

from .parity import ParityReport
from .report import markdown
from .tensorrt.command import trtexec_commands

_CARD = """---
library_name: trimexport
pipeline_tag: text-classification
base_model: {model}
---

# {labels}

{what}

| | |
| --- | --- |
| labels | {labels} |
{tokens}| prompt | `{prompt}` |
| longest text | {limit} tokens, cut at its {truncate} |
| source | `{model}`{revision} |
{adapter}{notice}
## Use

```python
from trimexport_runtime import Classifier

classifier = Classifier.load("path/to/this/bundle")
print(classifier.classify(["your text"]))
```

`onnx/model.onnx` takes `input_ids` and `attention_mask` (int64 [batch, sequence], a text's own
tokens) and gives `logits` (float32 [batch, {count}]), so any client of an ordinary sequence
classifier can run it with the tokenizer beside it.

## Parity

Each variant against the untrimmed model in PyTorch float32, on {texts} texts.

{table}
{engines}"""

_ENGINES = """
## TensorRT

On the device, `trimexport-run build-engines path/to/this/bundle`. For other programs, in this
directory, with TensorRT's own tool:

{commands}
"""


_CUT = """\
A text classifier cut from `{model}` ({architecture}) by trimexport: the prompt is compiled into
the graph, and of the output layer only the label words' rows are left. No training was done."""
_FINE_TUNED = """\
The fine-tuned text classifier `{model}` ({architecture}), compiled by trimexport with all that it
reads around a text."""


def model_card(manifest: Manifest, report: ParityReport) -> str:
    """The card as Markdown."""
    source = manifest.source
    cut = all(label.tokens for label in manifest.labels)
    words = "; ".join(f"{label.name}: {' '.join(label.tokens)}" for label in manifest.labels)
    if any(label.sequences for label in manifest.labels):
        words = "whole labels, for some begin alike"
    return _CARD.format(
        model=source.model,
        what=(_CUT if cut else _FINE_TUNED).format(
            model=source.model, architecture=source.architecture
        ),
        labels=_cell(", ".join(manifest.label_names)),
        tokens=f"| label tokens | {_cell(words)} |\n" if cut else "",
        prompt=_cell(repr(manifest.prompt.template)[1:-1]),
        limit=manifest.text_limit.tokens,
        truncate=manifest.text_limit.truncate,
        revision=f" at revision `{source.revision}`" if source.revision else "",
        adapter=f"| adapter | {_adapter(source.adapter)} |\n" if source.adapter else "",
        notice=f"| terms | {_cell(source.notice)} |\n" if source.notice else "",
        count=len(manifest.labels),
        texts=len(report.texts),
        table=markdown(report),
        engines=_engines(manifest),
    )


def _adapter(name: str) -> str:
    """The LoRA adapter by its hub id, or by its directory's name."""
    return f"`{_cell(Path(name).name if Path(name).is_absolute() else name)}` (LoRA, merged)"


def _engines(manifest: Manifest) -> str:
    """How engines are built, where there are graphs for them."""
    commands = trtexec_commands(manifest)
    blocks = [
        f"TensorRT {version}, `{name}`:\n\n```\n{command}\n```"
        for name, versions in commands.items()
        for version, command in versions.items()
    ]
    return _ENGINES.format(commands="\n\n".join(blocks)) if commands else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
