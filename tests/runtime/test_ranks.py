"""Documents ranked for a query: the inputs, the scores, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from runtime.conftest import MakeBundle
from trimexport_runtime import InputError, Manifest, read_manifest
from trimexport_runtime.bundle import Field
from trimexport_runtime.ranking import check_ranks, pair_inputs, ranked, raw_scores
from trimexport_runtime.score import INDEPENDENT, LOG_ODDS, LOGIT, Score

QUERY, PASSAGE = Field("query"), Field("passage", (9,))
TASK = Field("instruction", (8,), default="Find answers.")


@pytest.fixture
def with_fields(make_bundle: MakeBundle) -> Callable[..., Manifest]:
    """The manifest of a bundle with three labels, with other fields and another score."""
    manifest = read_manifest(make_bundle())

    def make(*fields: Field, kind: str = "softmax") -> Manifest:
        prompt = replace(manifest.prompt, fields=fields)
        return replace(manifest, prompt=prompt, score=Score(kind))

    return make


def test_the_inputs_of_pairs(with_fields: Callable[..., Manifest]) -> None:
    """By the names that the prompt has, whichever those are and wherever an instruction stands."""
    pairs = [("who", "Ann"), ("who", "")]
    plain = [{"query": "who", "passage": "Ann"}, {"query": "who", "passage": ""}]
    assert pair_inputs(with_fields(QUERY, PASSAGE), pairs) == plain
    for fields in ((TASK, QUERY, PASSAGE), (QUERY, TASK, PASSAGE), (QUERY, PASSAGE, TASK)):
        manifest = with_fields(*fields)
        assert pair_inputs(manifest, pairs) == plain
        told = pair_inputs(manifest, pairs, "<eos>")
        assert told == [{**it, "instruction": "<eos>"} for it in plain]


def test_bundles_that_cannot_rank(with_fields: Callable[..., Manifest]) -> None:
    third = Field("title", (7,))
    for manifest, said in (
        (with_fields(), r"has to be given one text \('text'\), and ranking takes two"),
        (with_fields(QUERY, TASK), r"has to be given one text \('query'\)"),
        (with_fields(QUERY, PASSAGE, third), r"given 3 texts \('query', 'passage', 'title'\)"),
        (with_fields(QUERY, PASSAGE, kind=INDEPENDENT), "labels are independent of each other"),
    ):
        with pytest.raises(InputError, match=said):
            check_ranks(manifest)
        with pytest.raises(InputError, match=said):
            pair_inputs(manifest, [("who", "Ann")])


def test_an_instruction_that_has_no_place(with_fields: Callable[..., Manifest]) -> None:
    other = replace(TASK, name="task")
    for fields in ((QUERY, PASSAGE), (QUERY, PASSAGE, other)):
        with pytest.raises(InputError, match="no field 'instruction' with a default"):
            pair_inputs(with_fields(*fields), [("who", "Ann")], "Find answers.")


def test_raw_scores(with_fields: Callable[..., Manifest]) -> None:
    """The only logit; of several the first label's log-odds, whose sigmoid is its probability."""
    one = np.array([[3.5], [-1.25]], np.float32)
    for kind in (LOG_ODDS, LOGIT):
        assert raw_scores(with_fields(QUERY, PASSAGE, kind=kind), one) == [3.5, -1.25]
    three = np.array([[1.0, 2.0, -3.0], [50.0, 0.0, 49.0]], np.float32)
    found = np.array(raw_scores(with_fields(QUERY, PASSAGE), three))
    shares = np.exp(three.astype(np.float64))
    assert np.allclose(1 / (1 + np.exp(-found)), shares[:, 0] / shares.sum(axis=1), rtol=1e-12)


def test_ranks() -> None:
    """The highest first, equal ones in their order, and no more than there are."""
    scores = [0.5, 0.9, 0.5, -1.0]
    assert ranked(scores) == [1, 0, 2, 3]
    assert ranked(scores, 2) == [1, 0]
    assert ranked(scores, 9) == [1, 0, 2, 3]
    assert ranked([]) == []
