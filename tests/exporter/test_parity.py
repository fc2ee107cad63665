"""The verdict on a bundle: what is measured, what is named, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import GEMMA_MINI, gemma, save
from trimexport import BuildSpec, ParityError, SpecError, Texts, build, verify
from trimexport.parity.report import TOLERANCES, Disagreement, require, warnings
from trimexport.planning import plan
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
    ("precision", "margin", "flips", "within"),
    [
        ("fp32", 0.01, 1, False),
        ("int8", 0.5, 1, True),
        ("int8", 0.5, 2, False),
        ("int8", 0.05, 5, True),
        ("int4", 0.15, 5, True),
        ("int4", 0.25, 2, False),
    ],
)
def test_what_may_flip(  # type: ignore[no-untyped-def]
    report, precision: str, margin: float, flips: int, within: bool
) -> None:
    """One text, for a share below one text shows nothing; and those that are hardly decided."""
    (variant,) = report.variants
    flip = Disagreement(1, "bad film", "negative", "positive", margin, 0.25)
    bad = replace(variant, tolerance=TOLERANCES[precision], disagreements=(flip,) * flips)
    assert bad.within is within


def test_thousands_of_texts_are_counted(report) -> None:  # type: ignore[no-untyped-def]
    (variant,) = report.variants
    many = replace(report, texts=("x",) * 5000)
    bad = replace(variant, max_logit_difference=2.0, outside=tuple(range(5000)))
    with pytest.raises(ParityError, match="and 4,980 more texts outside"):
        require(replace(many, variants=(bad,)))


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
