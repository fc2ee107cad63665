"""The verdict on a bundle: what is measured, what is named, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from models import GEMMA_MINI, gemma, save
from trimexport import BuildSpec, ParityError, SpecError, Texts, build, verify
from trimexport.evaluation.intervals import of_ratio
from trimexport.model.layerwise import LayerwiseModel
from trimexport.numerics import margin_error, margins
from trimexport.parity import backends
from trimexport.parity.json_report import as_dict
from trimexport.parity.measure import measure, require_finite
from trimexport.parity.render import table
from trimexport.parity.report import Disagreement
from trimexport.parity.tolerance import TOLERANCES
from trimexport.parity.verdict import failures, require
from trimexport.parity.warnings import warnings
from trimexport.planning import plan
from trimexport.prompt.tokenizer import load_tokenizer
from trimexport.source.checkpoint import open_checkpoint
from trimexport.texts import check_sample

PROMPT = "Review: {text}\nSentiment:"
LABELS = ("positive", "negative")


@pytest.fixture(scope="module")
def report(sentiment: Path):  # type: ignore[no-untyped-def]
    return verify(sentiment, sample=Texts(("good", "bad film", "so-so", "x" * 5000)))


def test_what_was_measured(report) -> None:  # type: ignore[no-untyped-def]
    (variant,) = report.variants
    assert variant.within
    assert variant.outside == ()
    assert variant.agreement == 1
    assert report.reference_probabilities.shape == (4, 2)
    assert np.allclose(report.reference_probabilities.sum(1), 1)
    assert 0 < report.mass.least <= report.mass.mean <= 1


def test_cut_texts_do_not_count_towards_the_gap(report) -> None:  # type: ignore[no-untyped-def]
    assert report.gap.compared == 3
    assert report.gap.share == 0


def test_every_text_outside_is_named(report) -> None:  # type: ignore[no-untyped-def]
    (variant,) = report.variants
    flip = Disagreement(1, "bad film", "negative", "positive", 0.5, 0.25)
    bad = replace(
        variant, max_logit_difference=2.0, agreement=0.75, outside=(2, 1), disagreements=(flip,)
    )
    with pytest.raises(ParityError) as error:
        require(replace(report, variants=(bad, replace(bad, name="int8"))))
    message = str(error.value)
    for part in ("variant fp32", "variant int8", "text 3 is outside: 'so-so'", "text 2: negative"):
        assert part in message


@pytest.mark.parametrize(
    ("precision", "texts", "flips", "within"),
    [
        ("fp32", 32, 0, True),
        ("fp32", 5000, 1, False),
        ("fp16", 32, 1, True),
        ("fp16", 1000, 15, False),
        ("int8", 5, 1, True),
        ("int8", 5, 2, False),
        ("int8", 32, 3, True),
        ("int8", 32, 4, False),
        ("int8", 1000, 32, True),
        ("int8", 1000, 45, False),
        ("int4", 32, 16, False),
        ("int4", 1000, 90, True),
        ("int4", 1000, 100, False),
    ],
)
def test_labels_that_may_change(  # type: ignore[no-untyped-def]
    report, precision: str, texts: int, flips: int, within: bool
) -> None:
    """So many as are not too many for the share that is allowed, by how many texts there are."""
    (variant,) = report.variants
    flip = Disagreement(1, "bad film", "negative", "positive", 0.01, 0.25)
    changed = replace(
        variant,
        tolerance=TOLERANCES[precision],
        disagreements=(flip,) * flips,
        probabilities=np.full((texts, 2), 0.5),
    )
    assert changed.within is within


@pytest.mark.parametrize(
    ("precision", "texts", "error", "within"),
    [
        ("fp32", 32, 0.2, True),  # it has its largest difference
        ("fp16", 32, 0.02, True),
        ("fp16", 32, 0.1, False),
        ("int8", 32, None, True),
        ("int8", 32, 0.14, True),
        ("int8", 32, 0.15, False),
        ("int8", 1821, 0.11, False),
        ("int8", 2, 0.5, True),  # two texts show little
        ("int4", 32, 0.35, True),
        ("int4", 32, 0.36, False),
        ("tensorrt-int8", 1821, 0.2, True),
        ("tensorrt-int8", 1821, 0.22, False),
    ],
)
def test_the_margin_error_that_may_be(  # type: ignore[no-untyped-def]
    report, precision: str, texts: int, error: float | None, within: bool
) -> None:
    (variant,) = report.variants
    changed = replace(
        variant,
        tolerance=TOLERANCES[precision],
        margin_error=error,
        probabilities=np.full((texts, 2), 0.5),
    )
    assert changed.within is within


@pytest.mark.parametrize("precision", ["int8", "int4", "tensorrt-int8", "fp16"])
def test_answers_by_chance_are_refused(precision: str) -> None:
    """Whatever the texts that ship say."""
    for seed in range(50):
        draw = np.random.default_rng(seed)
        reference, found = draw.normal(size=(2, 32, 2))
        error = margin_error(reference, found)
        assert error is not None
        assert of_ratio(error, 32)[0] > TOLERANCES[precision].margin_error


def test_the_labels_that_a_margin_error_may_change() -> None:
    """Among margins that are normal around 0."""
    draw = np.random.default_rng(0)
    for limits in TOLERANCES.values():
        if limits.margin_error is not None:
            margins = draw.normal(size=400_000)
            errors = limits.margin_error * draw.normal(size=400_000)
            kept = (np.sign(margins) == np.sign(margins + errors)).mean()
            assert kept == pytest.approx(limits.agreement, abs=1e-3)


def test_the_margin_is_between_the_reference_s_two_best_labels() -> None:
    reference = np.array([[5.0, 3.0, -9.0], [-9.0, 1.0, 2.0], [4.0, -9.0, 0.0]])
    other = np.array([[5.5, 3.0, 90.0], [90.0, 1.0, 2.5], [4.0, 90.0, 1.0]])
    expected, found = margins(reference, other)
    assert expected.tolist() == [2.0, -1.0, 4.0]
    assert found.tolist() == [2.5, -1.5, 3.0]
    error = np.std([0.5, -0.5, -1.0]) / np.std([2.0, -1.0, 4.0])
    assert margin_error(reference, other) == pytest.approx(error)


def test_where_a_margin_error_is_undefined() -> None:
    one = np.array([[1.0, 2.0]])
    assert margin_error(one, one + 1) is None
    alike = np.repeat(one, 5, axis=0)
    assert margin_error(alike + np.eye(5, 2) * 1e-5, alike) is None
    assert margin_error(alike + np.eye(5, 2), alike + np.eye(5, 2)) == 0.0


def test_a_margin_error_leaves_out_what_lies_between_questions() -> None:
    """Two questions whose margins are far apart are not easier to answer than one."""
    rng = np.random.default_rng(2)
    near, far = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + np.array([50.0, 0.0])
    noise = rng.normal(size=(80, 2)) / 10
    both = np.stack([near, far], axis=1).reshape(80, 2)
    alone = [margin_error(own, own + noise[at::2]) for at, own in enumerate((near, far))]
    found = margin_error(both, both + noise, kinds=2)
    assert min(alone) <= found <= max(alone)
    assert margin_error(both, both + noise) < found / 5


def test_a_shift_of_all_margins_is_seen_by_the_labels_and_not_by_the_margin_error() -> None:
    reference = np.random.default_rng(1).normal(size=(32, 2))
    assert margin_error(reference, reference + np.array([3.0, 0.0])) == pytest.approx(0, abs=1e-12)


def test_thousands_of_texts_are_counted(report) -> None:  # type: ignore[no-untyped-def]
    (variant,) = report.variants
    many = replace(report, texts=("x",) * 5000)
    bad = replace(variant, max_logit_difference=2.0, outside=tuple(range(5000)))
    with pytest.raises(ParityError, match="and 4,980 more texts outside"):
        require(replace(many, variants=(bad,)))


@pytest.mark.parametrize("whole", [True, False])
def test_logits_that_are_no_numbers(
    tiny_bundle_copy: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """They fail on whatever backend, and all that is written of them is JSON."""
    if not whole:
        monkeypatch.setattr(backends, "WHOLE_BYTES", 0)
    sample = Texts(("a film", "\u262f", "dull"))  # whose bytes are in no other text
    tiny.spoil(tiny_bundle_copy, sample.texts[1])
    tokenizer = load_tokenizer(tiny_model)
    model = LayerwiseModel(open_checkpoint(tiny_model, "", None))
    report = measure(tiny_bundle_copy, model, tokenizer, sample)
    assert report.variants == ()
    (row,) = report.not_run
    assert row.failed
    assert row.reason.startswith("text 2 ('\u262f'): the variant fp32 gives it a logit that is no")
    assert not report.within
    assert failures(report) == {"fp32": [f"fp32 fails: {row.reason}"]}
    assert "NO NUMBERS" in table(report)
    assert json.loads(json.dumps(as_dict(report), allow_nan=False))["within_tolerance"] is False


def test_a_fitted_head_that_is_no_number(report) -> None:  # type: ignore[no-untyped-def]
    logits = np.array([[1.0, 2.0], [np.nan, 1.0]])
    with pytest.raises(ParityError, match=r"a logit of text 2 \('bad film'\) is no finite number"):
        require_finite(logits, report.texts)


def test_a_gap_is_measured_and_warned_of(tmp_path: Path) -> None:
    """A text that ends in a space fuses with a prompt that goes on with one."""
    directory = save(gemma(seed=6), tmp_path / "model")
    spec = BuildSpec(
        precision=("fp32",),
        model=str(directory),
        labels=LABELS,
        prompt="Review: {text} \nSentiment:",
    )
    texts = ("good ", "bad  ", "fine", "a b ")
    built = build(spec, tmp_path / "bundle", sample=Texts(texts))
    assert built.report.gap.compared == 4
    assert built.report.gap.different == 3
    assert built.manifest.tokenisation_gap == 0.75
    (gap, mass) = warnings(built.report)
    assert gap.startswith("warning: 75.0% of the texts are tokenised differently")
    assert mass.startswith("warning: the labels hold only")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Texts(()), "there is no text to compare on"),
        (Texts(("a",), ("good",)), "labelled good, the bundle's labels are positive, negative"),
    ],
)
def test_samples_that_are_refused(sample: Texts, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_sample(sample, LABELS)


def test_all_notices_are_carried() -> None:
    """A recipe's notice does not replace the card's."""
    spec = BuildSpec(
        precision=("fp32",), model=str(GEMMA_MINI), labels=LABELS, prompt=PROMPT, notice="Ours"
    )
    notice = plan(spec).notice
    assert notice is not None
    assert notice.startswith("Ours. gemma-mini was trained on")
