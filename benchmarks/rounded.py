"""What float16 does to a bundle's variants for GPUs where every single result is rounded.

    python benchmarks/rounded.py BUNDLE sst2/test.jsonl

ONNX Runtime's CPU provider computes float16 in float32. ONNX's reference evaluator rounds the
result of every operator, as a GPU does at worst. Needs the variant fp32 to compare with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from sentences import read_sentences
from trimexport_runtime import Classifier, Manifest, read_manifest
from trimexport_runtime.batching import batches, pad, rows_within
from trimexport_runtime.tokenize import TextEncoder

HALF = ("fp16", "tensorrt-fp16", "tensorrt-int8")
TOKENS = 2048  # of a batch


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(bundle: Path, texts: Path) -> None:
    """Print how far logits are from fp32's, and how many labels are the same."""
    sentences = read_sentences(texts)
    manifest = read_manifest(bundle)
    expected = Classifier.load(bundle, variant="fp32").logits(sentences)
    for variant in manifest.variants:
        if variant.precision in HALF:
            found = _rounded(bundle / variant.graph, bundle, manifest, sentences)
            largest = np.abs(found - expected).max()
            same = (found.argmax(1) == expected.argmax(1)).mean()
            click.echo(f"{variant.name}: logits within {largest:.2g}, {same:.2%} of the labels")


def _rounded(
    graph: Path, bundle: Path, manifest: Manifest, sentences: list[str]
) -> npt.NDArray[np.float32]:
    """Logits [sentences, labels], each operator by itself in its own type."""
    encoder = TextEncoder.load(bundle, manifest)
    rows = [encoder.encode(sentence).ids for sentence in sentences]
    evaluator = ReferenceEvaluator(onnx.load(graph))
    logits = np.empty((len(rows), len(manifest.labels)), dtype=np.float32)
    for group in batches([len(row) for row in rows], rows_within(TOKENS)):
        ids, mask = pad([rows[index] for index in group])
        found: Any = evaluator.run(None, {"input_ids": ids, "attention_mask": mask})
        (logits[group],) = found
    return logits


if __name__ == "__main__":
    main()
