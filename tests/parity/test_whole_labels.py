"""Labels that begin alike: one pass against the untrimmed model reading each label by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from families import WINDOW, make
from label_scores import by_definition, with_table
from models import TEXTS, Untrimmed, segments_without_gap
from trimexport import BuildSpec, Texts, build, verify
from trimexport.graph.label_tree import LabelTree
from trimexport.prompt.label_trie import make_trie
from trimexport_runtime import Classifier

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

    expected = by_definition(judge, manifest, rows)
    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    found = Classifier.load(bundle, variant="fp32").logits(texts)
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(np.exp(found).sum(axis=1) - 1).max() < TOLERANCE
    if "int8" in precision:
        rounded = Classifier.load(bundle, variant="int8").logits(texts)
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
        changed = with_table(bundle, tmp_path / name, table.numpy(), other)
        assert np.abs(changed.logits(texts) - expected).max() > 100 * TOLERANCE, name


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
