"""Prompts that fuse with the texts: what is proposed instead, and that it helps."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from test_family_tokenizers import source_of

from trimexport.parity.boundary import find_gap_cause, gap_share, with_clean_suffix
from trimexport.parity.report import LabelMass, ParityReport, TokenisationGap
from trimexport.parity.warnings import GAP_WARNING, warnings
from trimexport.prompt.template import parse_template, shell_prompt, unescape, with_suffix

TEXTS = [
    ["a good film."], ["not bad !"], ["it 's fine..."], ["so-so"], ["prices rose again."],
    ["what a film?!"], ["(dull)"], ["two hours ."], ["日本語。"], ["good 😀"],
]  # fmt: skip
TEMPLATE = parse_template("Review: {text}\nSentiment:")


@pytest.mark.parametrize("family", ["llama 3", "qwen"])
def test_a_space_parts_the_full_stop_from_the_line_break(family: str) -> None:
    source = source_of(family)
    assert gap_share(TEMPLATE, source, TEXTS) > GAP_WARNING
    proposal = with_clean_suffix(TEMPLATE, source, TEXTS)
    assert proposal is not None
    assert proposal.source == "Review: {text} \nSentiment:"
    assert gap_share(proposal, source, TEXTS) == 0


@pytest.mark.parametrize("family", ["llama 2", "llama 2, metaspace"])
def test_no_proposal_without_a_gap(family: str) -> None:
    assert gap_share(TEMPLATE, source_of(family), TEXTS) == 0
    assert with_clean_suffix(TEMPLATE, source_of(family), TEXTS) is None


def test_a_prefix_at_fault_is_found() -> None:
    """Letters before the text: no white space behind it helps."""
    cause = find_gap_cause(parse_template("Re{text}\nSentiment:"), source_of("llama 3"), TEXTS)
    assert cause.at_prefix
    assert cause.proposal is None
    assert not find_gap_cause(TEMPLATE, source_of("llama 3"), TEXTS).at_prefix


def test_several_fields() -> None:
    """White space behind the last field helps there, and not between the fields."""
    source, rows = source_of("llama 3"), [[text, text] for (text,) in TEXTS]
    template = parse_template("A: {a} \nB: {b}\nIs:")
    assert gap_share(template, source, rows) > GAP_WARNING
    proposal = with_clean_suffix(template, source, rows)
    assert proposal is not None
    assert proposal.source == "A: {a} \nB: {b} \nIs:"
    assert gap_share(proposal, source, rows) == 0
    between = find_gap_cause(parse_template("A: {a}\nB: {b} \nIs:"), source, rows)
    assert (between.proposal, between.at_prefix) == (None, False)


def test_a_suffix_of_white_space_and_none_at_all() -> None:
    source = source_of("llama 3")
    assert with_clean_suffix(parse_template("Review: {text}"), source, TEXTS) is None
    proposal = with_clean_suffix(parse_template("Review: {text}\n"), source, TEXTS)
    assert proposal is not None
    assert gap_share(proposal, source, TEXTS) == 0


def test_braces_are_kept() -> None:
    template = parse_template('{{"text": "{text}"}}\n')
    other = with_suffix(template, ' "}\n')
    assert (other.prefix, other.suffix) == ('{"text": "', ' "}\n')


@pytest.mark.parametrize(
    "source",
    ["Review: {text} \nSentiment:", '{{"a": "{text}"}}\n', "it's $5 `{text}`\\n\t:", "{text}!\r\n"],
)
def test_what_is_pasted_into_a_shell_is_read_back(source: str) -> None:
    option, value = shlex.split(shell_prompt(source))
    assert option == "--prompt"
    assert unescape(value) == source


def _report(gap: TokenisationGap) -> ParityReport:
    return ParityReport(
        labels=("a", "b"),
        texts=("x",),
        gold=None,
        reference_accuracy=None,
        reference_probabilities=np.full((1, 2), 0.5),
        logit_deviation=1.0,
        margin_deviation=1.0,
        variants=(),
        gap=gap,
        mass=LabelMass(1.0, 1.0),
    )


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (
            TokenisationGap(4, 2, 1, "'a.'", proposal="Review: {text} \nSentiment:"),
            r'this prompt avoids it: --prompt "Review: {text} \nSentiment:"',
        ),
        (TokenisationGap(4, 2, 1, "'a.'", fixed=True), "trained with, so no other is proposed"),
        (TokenisationGap(4, 2, 1, "'a.'", at_prefix=True), "before a text fuses"),
        (TokenisationGap(4, 2, 1, "'a.'"), "no other white space behind the text"),
    ],
)
def test_the_warning_says_what_to_do(gap: TokenisationGap, said: str) -> None:
    (line,) = warnings(_report(gap))
    assert "50.0% of the texts are tokenised differently" in line
    assert said in line
    assert warnings(_report(TokenisationGap(400, 1, 0, "'a.'", proposal="{text}"))) == []
