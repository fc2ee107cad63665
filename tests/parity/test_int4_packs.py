"""Packs on a backbone in int4 answer as the bundle of the same prompt does, which has weights of
its own: those of a bundle are rounded by texts behind its prompt, a backbone's behind none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models import GEMMA_MINI
from packs import without_first
from trimexport import BuildSpec, QuestionSpec, build, calibrate, fit
from trimexport.bundle.pack_file import read_arrays, write_pack
from trimexport.packs.backbone import build_backbone
from trimexport.packs.pack import pack
from trimexport.packs.whole_bundle import bundle_of
from trimexport.source.shipped import sample_texts
from trimexport_runtime import Classifier
from trimexport_runtime.pack import read_pack
from tuning import FRAMES, made

SENTIMENT = BuildSpec(
    model=str(GEMMA_MINI),
    labels=("positive", "negative"),
    prompt="Review: {text}\nSentiment:",
    precision=("int4",),
)
ASKED = BuildSpec(
    model=str(GEMMA_MINI),
    prompt="Review: {text}\n{question}:",
    questions=(
        QuestionSpec("sentiment", "Sentiment", ("negative", "positive")),
        QuestionSpec("topic", "Topic", ("World", "Sports", "Business", "Sci/Tech")),
    ),
)
TEXTS = sample_texts()
CLOSE = 0.03
"""Of the margin's deviation over texts; int4 moves it by 0.005 to 0.006 in either."""

Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("int4") / "backbone"
    build_backbone(BuildSpec(model=str(GEMMA_MINI), precision=("int4",)), output)
    return output


@pytest.fixture(scope="module")
def sentiment(backbone: Path) -> Path:
    return pack(backbone, SENTIMENT, backbone.parent / "sentiment.pack").path


@pytest.fixture(scope="module")
def asked(backbone: Path) -> Path:
    return pack(backbone, ASKED, backbone.parent / "asked.pack").path


def logits(directory: Path, task: Path | None = None, texts: Sequence[str] = TEXTS) -> Logits:
    return Classifier.load(directory, task=task).logits(texts)


def apart(one: Logits, other: Logits) -> float:
    """How far the margins of two labels are apart, by their deviation."""
    own, its = (each[:, 0] - each[:, 1] for each in (one, other))
    return float((own - its).std() / its.std())


def test_a_pack_answers_as_the_bundle_of_its_prompt(
    backbone: Path, sentiment: Path, tmp_path: Path
) -> None:
    """And a prefix that lacks one of its four positions is seen."""
    build(SENTIMENT, tmp_path / "bundle")
    whole, found = logits(tmp_path / "bundle"), logits(backbone, sentiment)
    assert np.array_equal(found.argmax(axis=1), whole.argmax(axis=1))
    assert apart(found, whole) < CLOSE
    arrays = read_arrays(sentiment)
    assert {it.dtype for name, it in arrays.items() if name.startswith("prefix_key")} == {
        np.dtype(np.float16)
    }
    described = read_pack(sentiment)
    mutant = tmp_path / "mutant.pack"
    write_pack(mutant, described.backbone, described.manifest, without_first(arrays))
    assert apart(logits(backbone, mutant), whole) > 5 * CLOSE


@pytest.mark.parametrize("task", ["sentiment", "asked"])
def test_the_bundle_of_both_is_the_pack(
    backbone: Path, task: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """To the last bit, with the pack's parity, which is within int4's tolerance."""
    path: Path = request.getfixturevalue(task)
    whole = bundle_of(backbone, path, tmp_path / "bundle")
    assert whole.apart == {"int4": 0.0}
    (variant,) = whole.manifest.variants
    assert variant.parity is not None
    assert variant.parity.margin_error is not None
    assert variant.parity.margin_error < CLOSE
    assert not variant.outside_tolerance


def test_questions_answer_as_in_a_bundle(backbone: Path, asked: Path, tmp_path: Path) -> None:
    build(BuildSpec(**{**vars(ASKED), "precision": ("int4",)}), tmp_path / "bundle")
    whole, found = logits(tmp_path / "bundle"), logits(backbone, asked)
    for part in (slice(0, 2), slice(2, 6)):
        assert np.abs(found - whole)[:, part].max() < 0.1 * whole[:, part].std()


def test_a_pack_is_calibrated_and_fitted(backbone: Path, sentiment: Path, tmp_path: Path) -> None:
    task, output = tmp_path / "task.pack", tmp_path / "fitted.pack"
    task.write_bytes(sentiment.read_bytes())
    before = logits(backbone, task)
    bias = calibrate(backbone, TEXTS, pack=task).calibration.bias
    assert logits(backbone, task) - before == pytest.approx(
        np.tile(bias, (len(before), 1)), abs=1e-5
    )
    data = made(FRAMES[:2])
    rows = [(text, gold) for text, gold in zip(data.texts, data.gold or (), strict=True)]
    own = [(text, gold) for text, gold in rows if gold != "neutral"]
    fitted = fit(backbone, output, type(data)(*map(tuple, zip(*own, strict=True))), pack=task)
    assert fitted.compared.fitted.accuracy >= fitted.compared.zero_shot.accuracy
    assert np.abs(logits(backbone, output) - before).max() > 0.1
