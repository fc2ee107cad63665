"""Each family through the runtime, transformers as the judge.

The judge sees the joined string and is told nothing about segments, caches or trimming.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from families import FAMILIES, WINDOW, make
from models import TEXTS, Untrimmed, pipeline_logits, segments_without_gap, without_one
from pairs import assert_pairs_fit
from trimexport import BuildSpec, Texts, build
from trimexport.bundle.written_graph import load_graph
from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.tokenize import TextEncoder

TOLERANCE = 1e-3
# Root mean square, in standard deviations of these small models' logits. Float16 is that of the
# weights alone: their products are computed in float32 on a CPU.
ERROR = {"int8": 0.2, "tensorrt-int8": 0.3, "tensorrt-fp16": 0.01}
LABELS = ("positive", "negative", "World")
# Longer than the window, and so are some of the texts, in a batch with shorter ones.
PROMPT = "Read the review. Then say in one word what it is.\n\nReview: {text}\nSentiment:"


# What norms, rotary embeddings and the pick of the last token were made of before the passes.
OLD_OPERATORS = {"ReduceMean", "Sqrt", "Reciprocal", "Neg", "GatherElements"}

# Both tests see every family; what is a variant of another row is in one of them.
LANGUAGE_MODELS = [name for name in FAMILIES if name not in ("smollm", "phi3", "gpt2-scaled")]
# Its text part is a gemma3's, of which graphs for GPUs are built anyway.
WITHOUT_GPU = ("gemma3-multimodal",)
# Of Granite transformers has no classifier.
WITHOUT_CLASSIFIER = ("llama3", "phi3-longrope", "gpt2", "granite")
CLASSIFIERS = [name for name in FAMILIES if name not in WITHOUT_CLASSIFIER]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_model(name: str, tmp_path: Path) -> None:
    directory = make(name, tmp_path / "model")
    precision = ("fp32", "int8")
    spec = BuildSpec(
        precision=precision,
        tensorrt=() if name in WITHOUT_GPU else ("fp16", "int8"),
        model=str(directory),
        labels=LABELS,
        prompt=PROMPT,
    )
    # One text: a random model decides many so narrowly that int8 may turn them.
    manifest = build(
        spec,
        tmp_path / "bundle",
        sample=Texts(("dull",)),
        calibration=Texts(tuple(text for text in TEXTS if text)),
        engines=False,
    ).manifest
    judge = Untrimmed(directory)
    tokens = [label.token_ids[0] for label in manifest.labels]
    texts, rows = segments_without_gap(PROMPT, judge, manifest, tmp_path / "bundle")
    prefix = len(manifest.prompt.prefix_ids)
    lengths = [len(row) - prefix for row in rows]
    assert min(lengths) < WINDOW < min(prefix, max(lengths))

    expected = judge.logits_of(rows, tokens)
    found = Classifier.load(tmp_path / "bundle", variant="fp32").logits(texts)
    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(left_padded(tmp_path / "bundle", manifest, texts) - expected).max() < TOLERANCE

    assert not OLD_OPERATORS & operators(tmp_path / "bundle")

    deviation = (expected - expected.mean(axis=0)).std()
    for variant in manifest.variants[1:]:
        answers = logits(tmp_path / "bundle", variant.name, texts)
        assert (answers - expected).std() < ERROR[variant.name] * deviation, variant.name

    # What must not pass: a prefix that lost its last token, and layers without their window.
    mutant = judge.logits_of([without_one(row, prefix - 1) for row in rows], tokens)
    assert np.abs(found - mutant).max() > 100 * TOLERANCE
    if FAMILIES[name].windowed:
        wide = Untrimmed(directory, window=10_000).logits_of(rows, tokens)
        assert np.abs(found - wide).max() > 100 * TOLERANCE


def operators(bundle: Path) -> set[str]:
    """What the fp32 graph is made of."""
    return {node.op_type for node in load_graph(bundle / "onnx" / "model.onnx").graph.node}


def logits(bundle: Path, variant: str, texts: list[str]) -> npt.NDArray[np.float32]:
    """What a variant answers; int8's weights are looked at besides: no sum of theirs overflows."""
    classifier = Classifier.load(bundle, variant=variant)
    if variant == "int8":
        assert_pairs_fit(bundle)
    return classifier.logits(texts)


def left_padded(bundle: Path, manifest: Manifest, texts: list[str]) -> npt.NDArray[np.float32]:
    """All texts as one batch, padded on the left, by plain ONNX Runtime."""
    encoder = TextEncoder.load(bundle, manifest)
    rows = [encoder.encode(text).ids for text in texts]
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        start = ids.shape[1] - len(row)
        ids[index, start:], mask[index, start:] = row, 1
    session = ort.InferenceSession(str(bundle / "onnx" / "model.onnx"))
    return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_fine_tuned_classifier(name: str, tmp_path: Path) -> None:
    """No labels, no prompt: the bundle answers as transformers' own pipeline does."""
    names = {0: "bad", 1: "fair", 2: "good"}
    directory = make(name, tmp_path / "model", classifier=True, layers=1, id2label=names)
    built = build(BuildSpec(precision=("fp32",), model=str(directory)), tmp_path / "bundle")
    assert built.manifest.label_names == ("bad", "fair", "good")
    assert built.report.mass is None

    texts = [text for text in TEXTS if text]
    expected = pipeline_logits(directory, texts)
    predictions = Classifier.load(tmp_path / "bundle").classify(texts)
    found = np.log([item.probabilities for item in predictions])
    assert expected.std(axis=0).mean() >= 0.5, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < TOLERANCE
    cut = pipeline_logits(directory, [text[1:] for text in texts if len(text) > 1])
    assert np.abs(found - cut).max() > 100 * TOLERANCE
