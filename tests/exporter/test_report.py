"""The parity report as table, Markdown, JSON, page and model card."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from trimexport import ParityError, ParityReport
from trimexport.parity.json_report import as_dict
from trimexport.parity.model_card import model_card
from trimexport.parity.page import html_page
from trimexport.parity.render import markdown, table
from trimexport.parity.report import (
    Disagreement,
    LabelMass,
    TokenisationGap,
    VariantParity,
)
from trimexport.parity.tolerance import TOLERANCES
from trimexport.parity.verdict import measured, require
from trimexport.parity.warnings import doubts, warnings
from trimexport_runtime import read_manifest
from trimexport_runtime.score import Score

VOID = {"meta", "link", "br", "img", "circle", "rect", "line"}


def _report(flips: int = 0, texts: int = 4, **change: object) -> ParityReport:
    """A report on `texts` texts, the variant answering differently on the first `flips`."""
    reference = np.tile([0.9, 0.1], (texts, 1))
    ours = reference.copy()
    ours[:flips] = ours[:flips, ::-1]
    names = tuple(f"<b>text</b> & {i}" for i in range(texts))
    variant = VariantParity(
        name="fp32",
        backend="onnxruntime",
        max_logit_difference=4.5e-5 if not flips else 2.5,
        mean_logit_difference=1e-6,
        max_probability_difference=0.8 if flips else 1e-6,
        agreement=1 - flips / texts,
        margin_error=0.0312 if texts > 1 else None,
        accuracy=0.75,
        outside=tuple(range(flips)),
        disagreements=tuple(
            Disagreement(i, names[i], "positive", "negative", 2.2, 1.25) for i in range(flips)
        ),
        tolerance=TOLERANCES["fp32"],
        probabilities=ours,
    )
    made = ParityReport(
        labels=("positive", "negative"),
        texts=names,
        gold=None,
        reference_accuracy=0.5,
        reference_probabilities=reference,
        logit_deviation=1.5,
        margin_deviation=2.5,
        variants=(variant,),
        gap=TokenisationGap(texts, 0, 0, None),
        mass=LabelMass(0.97, 0.91),
    )
    return replace(made, **change)


class _Page(HTMLParser):
    """Checks nesting, and notes every address that a browser would load."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.counts: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _parsed(page: str) -> _Page:
    parser = _Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize("flips", [0, 3])
def test_the_page_is_whole_and_needs_nothing_else(flips: int) -> None:
    page = html_page(_report(flips))
    parsed = _parsed(page)
    assert page.startswith("<!doctype html>")
    assert parsed.addresses == []
    assert not re.search(r"https?://|@import|url\(|<script", page)
    assert parsed.counts["svg"] == 1
    assert parsed.counts["circle"] == 8  # two labels of four texts
    assert page.count('class="bad"') == 2 * flips
    assert "100.00%" in parsed.text or flips
    assert ("OUTSIDE TOLERANCE" in parsed.text) == bool(flips)
    for index in range(flips):
        assert f"<b>text</b> & {index}" in parsed.text  # escaped, so it is text
    assert "b" not in parsed.counts


def test_the_page_stays_small() -> None:
    page = html_page(_report(texts=20_000))
    assert _parsed(page).counts["circle"] <= 4_000
    assert len(page) < 1_000_000


def test_dots_lie_where_the_probabilities_say() -> None:
    page = html_page(_report(flips=1, texts=1))
    found = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="2.5" class="bad"', page)
    # reference 0.9 across and variant 0.1 up, in a frame of 360 that begins at 40
    assert found == [("364.0", "364.0"), ("76.0", "76.0")]


def test_the_table() -> None:
    lines = table(_report(flips=1)).splitlines()
    assert lines[0].split("  ")[0] == "variant"
    assert lines[1].split() == ["reference", "50.00%"]
    assert lines[2].split() == [
        "fp32", "75.00%", "19.41%", "to", "99.37%", "0.031", "2.50e+00", "1.00e-06", "8.00e-01",
        "75.00%", "OUTSIDE", "TOLERANCE",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "tokenisation gap: 0 of 4 texts (0.00%)" in text
    assert "label mass: 97.0% of the full vocabulary's probability on average, 91.0% at l" in text
    assert "fp32 answers 'negative' for 'positive' on text 1 (margins 1.2500 and 2.2000)" in text


def test_many_disagreements_are_counted_in_the_table() -> None:
    text = table(_report(flips=30, texts=40))
    assert text.count("answers 'negative'") == 20
    assert "fp32: 10 more disagreements are in the JSON report" in text


def test_json_holds_what_the_table_shows() -> None:
    found = json.loads(json.dumps(as_dict(_report(flips=30, texts=40)), allow_nan=False))
    assert found["within_tolerance"] is False
    assert found["texts"] == 40
    assert found["labels"] == ["positive", "negative"]
    assert found["reference"] == {"accuracy": 0.5}
    assert found["logit_standard_deviation"] == 1.5
    assert found["margin_standard_deviation"] == 2.5
    assert found["cannot_judge"] is None
    (variant,) = found["variants"]
    assert variant["name"] == "fp32"
    assert variant["agreement"] == 0.25
    assert variant["agreement_interval"] == pytest.approx([0.1269, 0.4120], abs=1e-4)
    assert variant["margin_error"] == 0.0312
    low, high = variant["margin_error_interval"]
    assert low < 0.0312 < high
    assert variant["kept"] is False
    assert variant["max_logit_difference"] == 2.5
    assert variant["mean_logit_difference"] == 1e-6
    assert variant["max_probability_difference"] == 0.8
    assert variant["accuracy"] == 0.75
    assert variant["tolerance"] == {
        "max_logit_difference": 1e-3,
        "agreement": 1.0,
        "margin_error": None,
    }
    assert len(variant["disagreements"]) == 30
    assert variant["disagreements"][0]["reference_margin"] == 2.2
    assert found["tokenisation_gap"] == {
        "compared": 40,
        "different": 0,
        "share": 0.0,
        "flips": 0,
        "proposed_prompt": None,
        "share_by_question": {},
    }
    assert found["label_mass"] == {"mean": 0.97, "least": 0.91}


def test_markdown_is_one_table_with_as_many_cells_in_every_line() -> None:
    lines = [line for line in markdown(_report()).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {10}


def test_a_margin_error_that_is_undefined() -> None:
    variant = replace(_quantised(_report()).variants[0], margin_error=None)
    found = _report(variants=(variant,))
    assert "  —  " in table(found)
    (shown,) = json.loads(json.dumps(as_dict(found), allow_nan=False))["variants"]
    assert shown["margin_error"] is shown["margin_error_interval"] is None
    assert measured(variant).endswith("margin error undefined, for the texts' margins hardly vary")


def _quantised(report: ParityReport) -> ParityReport:
    """The report, its variant called int8 and judged as such, on texts that can judge it."""
    half = len(report.texts) // 2
    reference = np.concatenate([np.tile([0.9, 0.1], (half, 1)), np.tile([0.1, 0.9], (half, 1))])
    (variant,) = report.variants
    variant = replace(variant, name="int8", tolerance=TOLERANCES["int8"])
    return replace(report, variants=(variant,), reference_probabilities=reference)


def test_texts_that_cannot_judge() -> None:
    good = _quantised(_report(texts=20))
    assert doubts(good) is None
    assert warnings(good) == []
    alike = np.tile([0.9, 0.1], (20, 1))
    for changed, reason in (
        ({"mass": LabelMass(0.4, 0.1)}, "the labels hold too little of the model's probability"),
        (
            {"reference_probabilities": alike},
            "the untrimmed model answers 'positive' to 20 of 20 texts",
        ),
        (
            {"margin_deviation": 0.2},
            "the margin between its two best labels hardly varies (standard deviation 0.20 logits)",
        ),
    ):
        found = replace(good, **changed)
        said = doubts(found)
        assert said == (
            f"these texts cannot judge the quantised variants: {reason}; give texts of the task "
            "with --texts, behind a prompt that the model answers"
        )
        assert warnings(found)[-1] == f"warning: {said}"
        assert as_dict(found)["cannot_judge"] == said
        for shown in (table(found), markdown(found), _parsed(html_page(found)).text):
            assert said in shown
        assert doubts(replace(found, variants=_report().variants)) is None, "float32 needs no more"


@pytest.mark.parametrize(
    ("score", "labels", "said"),
    [
        (Score("log-odds"), ("yes", "no"), "the untrimmed model answers 'no' to 20 of 20 texts"),
        (Score("logit"), ("yes",), "the untrimmed model answers 'not yes' to 20 of 20 texts"),
        (Score("independent"), ("a", "b"), "'not a label' to 20 of 20 texts and labels"),
        (Score("logit", sigmoid=False), ("stars",), None),
    ],
)
def test_texts_that_a_score_cannot_be_judged_by(
    score: Score, labels: tuple[str, ...], said: str | None
) -> None:
    """Of a number that is no probability the side of 0 says nothing, nor does a single label's
    mass."""
    low = LabelMass(0.9 if score.kind != "logit" else 0.01, 0.0)
    alike = np.tile([0.1, 0.9], (20, 1))
    good = _quantised(_report(texts=20, score=score, labels=labels, mass=low))
    assert doubts(good) is None
    found = doubts(replace(good, reference_probabilities=alike))
    assert found is None if said is None else found is not None and said in found


def test_the_verdict_names_what_cannot_be_judged() -> None:
    good = _quantised(_report(texts=20))
    bad = replace(good.variants[0], margin_error=0.9)
    with pytest.raises(ParityError) as caught:
        require(replace(good, variants=(bad,), mass=LabelMass(0.4, 0.1)))
    first, last = str(caught.value).splitlines()
    assert first == (
        "variant int8 is outside its tolerance: label agreement 100.00% (95 %: 83.16% to 100.00%; "
        "allowed: 96.83% or more), margin error 0.900 (95 %: 0.574 to 1.411; allowed: under 0.1)"
    )
    assert last.startswith("these texts cannot judge the quantised variants: the labels hold too")


def test_a_variant_that_is_kept_although_it_is_outside() -> None:
    good = _quantised(_report(texts=20))
    kept = replace(good.variants[0], margin_error=0.9, kept=True)
    found = replace(good, variants=(kept,))
    require(found)
    assert not found.within
    for shown in (table(found), markdown(found), _parsed(html_page(found)).text):
        assert "OUTSIDE, KEPT" in shown
        assert "int8 is outside its tolerance and was kept: label agreement 100.00%" in shown
    assert as_dict(found)["variants"][0]["kept"] is True
    assert "KEPT" not in table(good)


def test_a_bad_prompt_is_told() -> None:
    bad = _report(gap=TokenisationGap(4, 2, 1, "'a.'"), mass=LabelMass(0.01, 0.001))
    text = table(bad)
    assert "2 of 4 texts (50.00%)" in text
    assert "above 1 %" in text
    assert "1.0% of the full" in text
    assert "the prompt does not ask for these labels" in text
    gap, mass = warnings(bad)
    assert gap.startswith("warning: 50.0% of the texts are tokenised differently")
    assert mass.startswith("warning: the labels hold only 1.0% of the model's probability")
    assert warnings(_report()) == []


def test_the_card(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    assert "| terms |" not in model_card(manifest, _report())
    source = replace(
        manifest.source, model="google/gemma-2b", revision="v1", notice="Terms | apply"
    )
    first = replace(manifest.labels[0], name="good | fine")
    noted = replace(manifest, source=source, labels=(first, *manifest.labels[1:]))
    card = model_card(noted, _report())
    assert "| terms | Terms \\| apply |" in card
    assert "`google/gemma-2b` at revision `v1`" in card
    assert "| labels | good \\| fine, negative |" in card
    assert "| prompt | `Review: {text}\\nSentiment:` |" in card
    assert markdown(_report()) in card


def test_a_fine_tuned_classifier_has_no_label_mass_and_no_label_tokens(tiny_bundle: Path) -> None:
    found = _report(mass=None)
    assert "label mass" not in table(found) + markdown(found) + html_page(found)
    assert as_dict(found)["label_mass"] is None
    assert warnings(found) == []
    manifest = read_manifest(tiny_bundle)
    card = model_card(manifest, _report())
    assert "No training was done." in card
    assert "| label tokens | positive: ▁positive; negative: ▁negative |" in card
    labels = tuple(replace(it, words=(), token_ids=(), tokens=()) for it in manifest.labels)
    source = replace(
        manifest.source, model="stars", architecture="MistralForSequenceClassification"
    )
    card = model_card(replace(manifest, labels=labels, source=source), found)
    assert "\nThe fine-tuned text classifier `stars` (MistralForSequenceClassification)" in card
    assert "| labels | positive, negative |\n| prompt |" in card
    for wrong in ("No training was done", "label tokens", "label words", "label mass"):
        assert wrong not in card


def test_the_bundle_s_own_report_and_card(tiny_bundle: Path) -> None:
    page = _parsed((tiny_bundle / "reports" / "parity.html").read_text(encoding="utf-8"))
    assert page.addresses == []
    assert "fp32" in page.text
    card = (tiny_bundle / "README.md").read_text(encoding="utf-8")
    assert "| fp32 | 100.00% |" in card
