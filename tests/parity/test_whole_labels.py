"""Labels that begin alike: one pass against the untrimmed model reading each label by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from families import WINDOW, make
from guards import both_ways
from models import TEXTS, Untrimmed, segments_without_gap
from trimexport import BuildSpec, Texts, build, verify
from trimexport.graph.label_tree import LabelTree
from trimexport.prompt.label_trie import make_trie
from trimexport_runtime import Classifier, Manifest

TOLERANCE = 1e-4
LABELS = (
    "World politics",
    "World",
    "World sports today",
    "World sports now",
    "negative news",
    "negative law today",
    "positive",
    "negative law now",
)
PROMPT = "Read the story. Then say in a word or two what it is about.\n\nStory: {text}\nTopic:"

Ids = tuple[int, ...]
Ints = npt.NDArray[np.int64]


@pytest.mark.parametrize("name", ["gemma2", "phi3-longrope", "gpt2"])
def test_scores_of_whole_labels(name: str, tmp_path: Path) -> None:
    """Windows, soft-caps, rotary embeddings of several kinds and none."""
    directory = make(name, tmp_path / "model")
    precision = ("fp32", "int8") if name == "gpt2" else ("fp32",)
    spec = BuildSpec(precision=precision, model=str(directory), labels=LABELS, prompt=PROMPT)
    bundle = tmp_path / "bundle"
    manifest = build(spec, bundle, sample=Texts(("dull",))).manifest
    judge = Untrimmed(directory)
    texts, rows = segments_without_gap(PROMPT, judge, manifest, bundle)
    assert max(map(len, rows)) > WINDOW

    expected = reference(judge, manifest, rows)
    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    found = Classifier.load(bundle, variant="fp32").logits(texts)
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(np.exp(found).sum(axis=1) - 1).max() < TOLERANCE
    if "int8" in precision:
        rounded = both_ways(lambda: Classifier.load(bundle, variant="int8").logits(texts))
        assert (rounded - expected).std() < 0.2 * expected.std()

    # A short text in a batch with one that fills the model's context.
    texts_apart = ["x " * 400, "dull"]
    alone = [Classifier.load(bundle, variant="fp32").logits([text])[0] for text in texts_apart]
    together = Classifier.load(bundle, variant="fp32", token_budget=8192).logits(texts_apart)
    assert np.abs(together - np.stack(alone)).max() < TOLERANCE

    # What must not pass: nodes that see each other, and nodes that stand one behind the other.
    tree = LabelTree(make_trie([it for label in manifest.labels for it in label.sequences]))
    assert tree.nodes > 3
    for name, table in {"seen": tree.seen, "shift": tree.shift}.items():
        other = np.full(table.shape, int(name == "seen"))
        changed = mutant(bundle, tmp_path / name, table.numpy(), other)
        assert np.abs(changed.logits(texts) - expected).max() > 100 * TOLERANCE, name


def reference(judge: Untrimmed, manifest: Manifest, rows: list[Ids]) -> npt.NDArray[np.float64]:
    """By definition: every beginning of a label is a sequence of its own."""
    whole = [it for label in manifest.labels for it in label.sequences]
    scores = np.zeros((len(rows), len(whole)))
    for place, sequence in enumerate(whole):
        for end, token in enumerate(sequence):
            below = sorted({it[end] for it in whole if it[:end] == sequence[:end]})
            if len(below) == 1:
                continue
            logits = judge.logits_of([(*row, *sequence[:end]) for row in rows], below)
            logits = logits.astype(np.float64)
            share = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            scores[:, place] += share[:, below.index(token)]
    ends = np.cumsum([len(label.sequences) for label in manifest.labels])
    groups = np.split(scores, ends[:-1], axis=1)
    return np.stack([np.logaddexp.reduce(group, axis=1) for group in groups], axis=1)


def mutant(bundle: Path, copy: Path, table: Ints, other: Ints) -> Classifier:
    """The fp32 variant with other numbers in a table."""
    shutil.copytree(bundle, copy)
    graph = copy / "onnx" / "model.onnx"
    model = onnx.load(graph, load_external_data=False)
    whole = [it for it in model.graph.initializer if it.data_type == onnx.TensorProto.INT64]
    (same,) = [it for it in whole if np.array_equal(numpy_helper.to_array(it), table)]
    same.CopyFrom(numpy_helper.from_array(other, same.name))
    graph.write_bytes(model.SerializeToString())
    manifest = copy / "trimexport.json"
    text = manifest.read_text(encoding="utf-8")
    size = (bundle / "onnx" / "model.onnx").stat().st_size
    manifest.write_text(
        text.replace(f'"bytes": {size}', f'"bytes": {graph.stat().st_size}'), encoding="utf-8"
    )
    return Classifier.load(copy, variant="fp32")


def test_prompts_of_all_shapes(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing around a text, and labels that all begin alike: verify knows them again."""
    labels = ("very good", "very bad", "very bad indeed")
    spec = BuildSpec(precision=("fp32",), model=str(tiny_model), labels=labels, prompt="{text}")
    built = build(spec, tmp_path / "bundle", sample=Texts(TEXTS[:2]))
    assert built.manifest.text_limit.tokens == 128 - 3
    report = verify(
        tmp_path / "bundle", sample=Texts(TEXTS[:4]), backends=("onnxruntime", "pytorch")
    )
    assert report.within
    assert {it.title for it in report.variants} == {"fp32", "trimmed on pytorch"}
    assert max(it.max_logit_difference for it in report.variants) < TOLERANCE
