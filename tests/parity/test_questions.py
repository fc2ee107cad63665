"""Several questions in one pass against the untrimmed model that is asked each by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from families import WINDOW, make
from label_scores import by_definition, with_table
from models import TEXTS, Untrimmed, without_one
from tiny import TEXTS as FEW
from tiny import tiny_bundle
from trimexport import BuildSpec, QuestionSpec, Texts, build, verify
from trimexport.bundle.part_by_part import feed_of
from trimexport.bundle.question_heads import tree_of_bundle
from trimexport.graph.label_tree import LabelTree
from trimexport_runtime import Classifier, Manifest, read_manifest
from trimexport_runtime.questions import slices, views
from trimexport_runtime.tokenize import TextEncoder

TOLERANCE = 1e-4
PROMPT = "Read the story. Then answer.\n\nStory: {text}\nThe question: {question}\nAnswer:"
QUESTIONS = (
    QuestionSpec("toxic", "Is it insulting?"),
    QuestionSpec("topic", "What is it about?", ("World news", "negative", "World sports", "World")),
    QuestionSpec(
        "mood", "Is it dull?", ("negative", "mixed", "positive"), {"mixed": ("World", "not")}
    ),
)

Floats = npt.NDArray[np.float64]


def spec(model: Path, **options: object) -> BuildSpec:
    given = {"precision": ("fp32",), "prompt": PROMPT, "questions": QUESTIONS, **options}
    return BuildSpec(model=str(model), labels=("positive", "negative"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gemma2", "gpt2"])
def test_logits_of_all_questions(name: str, tmp_path: Path) -> None:
    """Windows, soft-caps and rotary embeddings; and positions that are learnt."""
    directory, bundle = make(name, tmp_path / "model"), tmp_path / "bundle"
    more = {"precision": ("fp32", "int8")} if name == "gpt2" else {"tensorrt": ("fp16",)}
    asked = spec(directory, **more)
    manifest = build(asked, bundle, sample=Texts(("dull",)), engines=False).manifest
    assert manifest.format_version == 3
    judge = Untrimmed(directory)
    texts, rows = joined(judge, manifest, bundle)
    assert max(len(row) for own in rows for row in own) > WINDOW

    expected = asked_one_by_one(judge, manifest, rows)
    assert expected.std(axis=0).mean() >= 0.5, "a model that says nothing proves nothing"
    classifier = Classifier.load(bundle, variant="fp32")
    found = classifier.logits(texts)
    assert np.abs(found - expected).max() < TOLERANCE
    topic = found[:, slices(manifest)[1]]
    assert np.abs(np.exp(topic).sum(axis=1) - 1).max() < TOLERANCE
    if name == "gpt2":
        check_int8(bundle, texts, expected)
        check_order(asked, tmp_path, texts, found)
    else:
        plain = bundle / manifest.variant("tensorrt-fp16").graph
        assert (run(plain, bundle, texts) - expected).std() < 0.05 * expected.std()

    # What must not pass: a suffix without a token, nodes that see each other, and nodes that stand
    # one behind the other.
    lacking = [[without_one(row, len(row) - 2) for row in own] for own in rows]
    assert np.abs(asked_one_by_one(judge, manifest, lacking) - found).max() > 100 * TOLERANCE
    tree = LabelTree(tree_of_bundle(manifest).trie)
    for table_name, table in {"seen": tree.seen, "shift": tree.shift}.items():
        other = np.full(table.shape, int(table_name == "seen"))
        changed = with_table(bundle, tmp_path / table_name, table.numpy(), other)
        assert np.abs(changed.logits(texts) - expected).max() > 100 * TOLERANCE, table_name


def joined(
    judge: Untrimmed, manifest: Manifest, bundle: Path
) -> tuple[list[str], list[list[list[int]]]]:
    """Texts whose ids in the joined string are those of the segments with every question, and these
    ids, by question."""
    encoder = TextEncoder.load(bundle, manifest)
    texts, rows = [], []
    for text in TEXTS:
        whole = [judge.ids(PROMPT.format(text=text, question=it.text)) for it in QUESTIONS]
        middle = encoder.encode(text).ids.tolist()
        own = [
            [*view.prompt.prefix_ids, *middle, *view.prompt.suffix_ids] for view in views(manifest)
        ]
        if whole == own:
            texts.append(text)
            rows.append(own)
    assert len(texts) >= 4, "the segments should agree with the joined string on most texts"
    return texts, [list(own) for own in zip(*rows, strict=True)]


def asked_one_by_one(judge: Untrimmed, manifest: Manifest, rows: list[list[list[int]]]) -> Floats:
    """The untrimmed model's answers to each question by itself, one question after the other."""
    return np.concatenate(
        [answers(judge, view, own) for view, own in zip(views(manifest), rows, strict=True)], axis=1
    )


def answers(judge: Untrimmed, view: Manifest, rows: list[list[int]]) -> Floats:
    """The logits of a question's labels, or their log-probabilities where they are read whole."""
    if any(label.sequences for label in view.labels):
        return by_definition(judge, view, [tuple(row) for row in rows])
    words = [judge.logits_of(rows, list(label.token_ids)) for label in view.labels]
    return np.stack([np.logaddexp.reduce(own.astype(float), axis=1) for own in words], axis=1)


def check_int8(bundle: Path, texts: list[str], expected: Floats) -> None:
    """It is near, and a text's answer has the same bits whatever stands beside it."""
    classifier = Classifier.load(bundle, variant="int8")
    found = Classifier.load(bundle, variant="int8").logits(texts)
    assert (found - expected).std() < 0.2 * expected.std()
    together = classifier.logits(texts)
    alone = np.concatenate([classifier.logits([text]) for text in texts])
    assert np.array_equal(together, alone)
    assert np.array_equal(classifier.logits(texts[::-1])[::-1], together)


def check_order(
    asked: BuildSpec, room: Path, texts: list[str], found: npt.NDArray[np.float32]
) -> None:
    """Questions in another order give the same logits in that order."""
    turned = replace(asked, questions=QUESTIONS[::-1], precision=("fp32",))
    manifest = build(turned, room / "turned", sample=Texts(("dull",))).manifest
    logits = Classifier.load(room / "turned").logits(texts)
    back = np.concatenate([logits[:, own] for own in slices(manifest)[::-1]], axis=1)
    assert np.abs(back - found).max() < 1e-5


def run(graph: Path, bundle: Path, texts: list[str]) -> npt.NDArray[np.float32]:
    """The logits of a graph for GPUs, by ONNX Runtime on the CPU."""
    encoder = TextEncoder.load(bundle, read_manifest(bundle))
    session = ort.InferenceSession(graph)
    found = session.run(None, feed_of([encoder.encode(text).ids for text in texts]))[0]
    return np.asarray(found)


def test_prompts_of_all_shapes(tiny_model: Path, tmp_path: Path) -> None:
    """Questions with nothing in common, one of which begins as another does, behind a bare text,
    which may be empty: verify knows them again."""
    questions = (
        QuestionSpec("good", "good"),
        QuestionSpec("news", "good news", ("very good", "very bad")),
        QuestionSpec("dull", "Is it dull", ("no", "yes")),
    )
    asked = spec(tiny_model, prompt="{text} {question}", questions=questions)
    manifest = build(asked, tmp_path / "bundle", sample=Texts(FEW[:2])).manifest
    tree = tree_of_bundle(manifest)
    assert (tree.trunk, len(tree.answers)) == ((), 3)
    assert manifest.text_limit.tokens == 128 - 1 - max(tree.trie.depths)
    report = verify(tmp_path / "bundle", sample=Texts(FEW), backends=("onnxruntime", "pytorch"))
    assert report.within
    assert {it.title for it in report.variants} == {"fp32", "trimmed on pytorch"}
    assert max(it.max_logit_difference for it in report.variants) < TOLERANCE
    assert report.questions == ("good", "news", "dull")
    assert all(len(it.probabilities) == 3 * len(FEW) for it in report.variants)


def test_one_question_alone(tiny_model: Path, tmp_path: Path) -> None:
    """It is answered as by a bundle whose prompt has it written in."""
    asked = spec(
        tiny_model,
        prompt="Review: {text}\n{question}:",
        questions=(QuestionSpec("mood", "Sentiment", ("positive", "negative")),),
    )
    manifest = build(asked, tmp_path / "bundle", sample=Texts(FEW[:2])).manifest
    assert manifest.label_names == ("mood: positive", "mood: negative")
    assert tree_of_bundle(manifest).trie.token_ids == ()
    found = Classifier.load(tmp_path / "bundle").logits(FEW)
    assert np.abs(found - Classifier.load(tiny_bundle()).logits(FEW)).max() < 1e-5
