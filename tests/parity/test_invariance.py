"""Same text, same answer, to the last bit: whatever its batch mates, its place, its padding.

In int8 a change of the last bit in one activation can move a logit by tenths, so nothing here has
a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from families import make
from tasks import SENTIMENT
from trimexport import BuildSpec, Texts, build
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.backends.onnxruntime import session_options
from trimexport_runtime.tokenize import TextEncoder

TEXT = "a gorgeous , witty , seductive movie"
VOCABULARY = 8000
# Around the sizes at which matrix products are cut into blocks.
LENGTHS = (1, 1, 2, 3, 5, 8, 15, 16, 17, 22, 31, 33, 47, 63, 64, 65, 100, 128, 129, 200, 300)

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

Subject = tuple[Path, str]  # a bundle, one of its variants

# By the fixture of the bundle.
PROMPTED = [("sentiment", "fp32"), ("sentiment_int8", "int8"), ("log_odds", "int8")]
# With a prompt before heads of 256, whose keys and values are constants.
WIDE = [("behind_a_prompt", "fp32"), ("behind_a_prompt", "int8")]
PROMPTLESS = [
    ("promptless", "fp32"),
    ("one_logit", "fp32"),
    ("promptless", "int8"),
    ("whole_labels", "int8"),
    ("mean", "fp32"),
    ("mean", "int8"),
]


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads as wide as in large models, whose products are cut into blocks."""
    wide = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 2}
    wide |= {"num_key_value_heads": 1, "max_position_embeddings": 512}
    full = {"layer_types": ["full_attention"], "head_dim": 256}
    return make("qwen3", tmp_path_factory.mktemp("wide") / "model", layers=1, **wide, **full)


def bare_spec(model: Path) -> BuildSpec:
    """Two labels and the text alone, in float32 and int8."""
    return BuildSpec(
        model=str(model),
        labels=("positive", "negative"),
        prompt="{text}",
        precision=("fp32", "int8"),
    )


@pytest.fixture(scope="module")
def promptless(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing before a text and nothing behind it, so that a text may be one token."""
    built = build(bare_spec(wide_model), tmp_path_factory.mktemp("promptless") / "bundle")
    assert built.manifest.prompt.prefix_ids == built.manifest.prompt.suffix_ids == ()
    return built.directory


@pytest.fixture(scope="module")
def behind_a_prompt(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred tokens before the text."""
    spec = replace(bare_spec(wide_model), prompt=f"{'A film to be judged. ' * 30}{{text}} It was")
    sample = Texts(("dull",))
    built = build(spec, tmp_path_factory.mktemp("prompt") / "bundle", sample=sample)
    assert len(built.manifest.prompt.prefix_ids) > 128
    return built.directory


@pytest.fixture(scope="module")
def one_logit(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one row in its head, whose product may be another kernel's."""
    spec = BuildSpec(
        model=str(wide_model),
        labels=("positive",),
        prompt="{text}",
        precision=("fp32",),
        score="logit",
    )
    return build(spec, tmp_path_factory.mktemp("one") / "bundle").directory


@pytest.fixture(scope="module")
def mean(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that reads the mean of the text's hidden states."""
    spec = replace(bare_spec(wide_model), pool="mean")
    sample = Texts(("dull",))
    return build(spec, tmp_path_factory.mktemp("mean") / "bundle", sample=sample).directory


@pytest.fixture(scope="module")
def log_odds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gemma-mini's first task as log-odds, scaled and shifted."""
    score = {"score": "log-odds", "score_scale": 0.7, "score_shift": -0.3}
    spec = replace(SENTIMENT, precision=("int8",), **score)
    return build(spec, tmp_path_factory.mktemp("log-odds") / "bundle").directory


@pytest.fixture(scope="module")
def whole_labels(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with labels that begin alike, whose trie stands behind every text."""
    labels = ("very positive", "very negative", "negative", "negative and long", "World")
    spec = BuildSpec(model=str(wide_model), labels=labels, prompt="{text}", precision=("int8",))
    # Random weights leave little of such scores in int8; one text may always differ.
    sample = Texts(("dull",))
    built = build(spec, tmp_path_factory.mktemp("whole") / "bundle", sample=sample)
    assert all(label.sequences for label in built.manifest.labels)
    return built.directory


@pytest.fixture(scope="module", params=[*PROMPTED, *WIDE, *PROMPTLESS], ids="-".join)
def subject(request: pytest.FixtureRequest) -> Subject:
    bundle, variant = request.param
    return request.getfixturevalue(bundle), variant


@pytest.fixture(scope="module")
def load(subject: Subject) -> Callable[[int], ort.InferenceSession]:
    """The variant in ONNX Runtime with so many threads."""
    bundle, variant = subject
    graph = bundle / read_manifest(bundle).variant(variant).graph

    def loaded(threads: int) -> ort.InferenceSession:
        options = session_options(threads)
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    return loaded


@pytest.fixture(scope="module")
def session(load: Callable[[int], ort.InferenceSession]) -> ort.InferenceSession:
    return load(2)


@pytest.fixture(scope="module")
def ids(sentiment: Path) -> list[int]:
    return TextEncoder.load(sentiment, read_manifest(sentiment)).encode(TEXT).ids.tolist()


def run(session: ort.InferenceSession, rows: Ids, mask: Ids) -> Floats:
    return session.run(["logits"], {"input_ids": rows, "attention_mask": mask})[0]


def run_alone(session: ort.InferenceSession, row: list[int]) -> Floats:
    """A text without any padding."""
    return run(session, np.array([row]), np.ones((1, len(row)), dtype=np.int64))[0]


def place(row: list[int], at: list[int], width: int) -> tuple[Ids, Ids]:
    """A row whose tokens stand at the given places; between them is noise that is masked out."""
    rng = np.random.default_rng(len(at) + width)
    ids = rng.integers(0, VOCABULARY, (1, width))
    mask = np.zeros((1, width), dtype=np.int64)
    ids[0, at] = row
    mask[0, at] = 1
    return ids, mask


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_padding_may_be_anywhere(
    session: ort.InferenceSession, ids: list[int], data: st.DataObject
) -> None:
    """Right, left or with holes: only the real tokens count, in their order."""
    width = len(ids) + data.draw(st.integers(0, 40), label="padding")
    places = sorted(data.draw(st.permutations(range(width)), label="places")[: len(ids)])
    found = run(session, *place(ids, places, width))
    assert np.array_equal(found[0], run_alone(session, ids))


def test_padding_left_and_right(session: ort.InferenceSession, ids: list[int]) -> None:
    width = len(ids) + 30
    for start in (0, 30):
        found = run(session, *place(ids, list(range(start, start + len(ids))), width))
        assert np.array_equal(found[0], run_alone(session, ids))


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_batch_mates_do_not_matter(
    session: ort.InferenceSession, ids: list[int], data: st.DataObject
) -> None:
    """Alone, and among 64 random rows of random lengths, at any place."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    width = 64
    rows = rng.integers(0, VOCABULARY, (65, width))
    lengths = rng.integers(0, width + 1, 65)
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
    at = data.draw(st.integers(0, 64), label="place")
    rows[at], mask[at] = 0, 0
    rows[at, : len(ids)], mask[at, : len(ids)] = ids, 1
    assert np.array_equal(run(session, rows, mask)[at], run_alone(session, ids))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_length_with_every_number_of_threads(
    load: Callable[[int], ort.InferenceSession], threads: int
) -> None:
    """Texts of one token and of many, each alone and in batches of many shapes, are answered as
    one thread answers each of them alone."""
    rng = np.random.default_rng(1)
    texts = [rng.integers(3, VOCABULARY, length).tolist() for length in LENGTHS]
    one, several = load(1), load(threads)
    expected = np.stack([run_alone(one, text) for text in texts])
    assert expected.std(axis=0).min() > 0.1
    assert len(np.unique(expected, axis=0)) == len(texts)  # each of them is another answer
    assert np.array_equal(np.stack([run_alone(several, text) for text in texts]), expected)
    short = [index for index, length in enumerate(LENGTHS) if length <= 33]
    for group in (
        rng.permutation(len(texts)),
        rng.permutation(len(texts))[:2],
        rng.choice(short, 64),
        rng.choice(short, 16),
    ):
        for holes in (False, True):
            rows, mask = scatter([texts[index] for index in group], holes, rng)
            assert np.array_equal(run(several, rows, mask), expected[group])


def scatter(texts: list[list[int]], holes: bool, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """A batch, padded with noise: on the right, or, a little wider, anywhere."""
    width = max(map(len, texts)) + (int(rng.integers(1, 20)) if holes else 0)
    rows = rng.integers(0, VOCABULARY, (len(texts), width))
    mask = np.zeros_like(rows)
    for row, text in enumerate(texts):
        at = np.sort(rng.permutation(width)[: len(text)]) if holes else np.arange(len(text))
        rows[row, at], mask[row, at] = text, 1
    return rows, mask


@pytest.mark.parametrize("subject", PROMPTED, ids="-".join, indirect=True)
def test_an_empty_row_is_the_bare_prompt(session: ort.InferenceSession, ids: list[int]) -> None:
    """A row without a token is answered like any other, alone and beside a full one."""
    alone = run(session, np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64))
    rows, mask = place(ids, list(range(len(ids))), len(ids))
    both = run(session, np.vstack([rows, rows]), np.vstack([mask, 0 * mask]))
    assert np.isfinite(alone).all()
    assert np.array_equal(both[1], alone[0])
    assert np.abs(both[0] - both[1]).max() > 0.01


@pytest.mark.parametrize("subject", PROMPTED, ids="-".join, indirect=True)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_order_does_not_matter(subject: Subject, seed: int) -> None:
    """The classifier gives every text its own answer, in the caller's order."""
    classifier = _classifier(*subject)
    texts = [TEXT, "dull", "", "not bad at all " * 9, "it is " * 40, "good\nbad", "so-so"]
    order = np.random.default_rng(seed).permutation(len(texts))
    straight = classifier.logits(texts)
    shuffled = classifier.logits([texts[i] for i in order])
    assert np.array_equal(shuffled, straight[order])
    assert np.array_equal(classifier.logits([texts[order[0]]])[0], straight[order[0]])


_LOADED: dict[Subject, Classifier] = {}


def _classifier(bundle: Path, variant: str) -> Classifier:
    if (bundle, variant) not in _LOADED:
        _LOADED[bundle, variant] = Classifier.load(bundle, variant=variant)
    return _LOADED[bundle, variant]
