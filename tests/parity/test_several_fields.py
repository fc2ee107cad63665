"""Prompts with several fields: the bundle through the runtime, transformers the judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from models import Untrimmed
from trimexport import BuildSpec, SpecError, plan, verify
from trimexport.planning import Plan
from trimexport.source.shipped import sample_texts
from trimexport_runtime import Classifier, InputError, read_manifest
from trimexport_runtime.tokenize import TextEncoder

FOUND = [
    ("a good film", "a gorgeous, witty, seductive movie"),
    ("is it dull ?", "two hours that feel like five . they never end"),
    ("World", "prices rose again"),
    ("", "nothing was asked"),
    ("<bos> {document}", "so-so"),
    ("it never quite comes together", "schön – 好 🎬 <b>never</b>"),
]
TOLERANCE = 1e-3
LARGEST = {"fp32": TOLERANCE, "fp16": 0.05, "int8": 0.6, "int4": 2.0}
"""The largest difference of a logit; these have a standard deviation of 2."""


def test_the_build_proves_pairs_without_data_of_the_user_s(pairs: Path) -> None:
    manifest = read_manifest(pairs)
    assert [field.name for field in manifest.prompt.fields] == ["query", "document"]
    assert manifest.prompt.text_lead == " "
    assert (manifest.text_limit.truncate, manifest.cut_field) == ("end", "document")
    for variant in manifest.variants:
        assert variant.parity is not None
        assert variant.parity.texts == len(sample_texts())
        assert not variant.outside_tolerance


@pytest.mark.parametrize("variant", LARGEST)
def test_every_variant_answers_as_the_untrimmed_model(pairs: Path, variant: str) -> None:
    """On the ids of the joined string; with the piece between the fields left out, it does not."""
    manifest, judge = read_manifest(pairs), Untrimmed(tiny.tiny_model())
    # An empty text has no space before it, and of "<bos>" the judge would make one token.
    asked = [row for row in FOUND if row[0] and "<bos>" not in row[0]]
    ids = [judge.ids(tiny.PAIR.format(query=query, document=found)) for query, found in asked]
    encoder, prompt = TextEncoder.load(pairs, manifest), manifest.prompt
    own = [encoder.encode(row).ids.tolist() for row in asked]
    assert ids == [[*prompt.prefix_ids, *row, *prompt.suffix_ids] for row in own]

    tokens = [label.token_ids[0] for label in manifest.labels]
    expected = judge.logits_of(ids, tokens)
    piece = list(prompt.fields[1].before)
    mutant = judge.logits_of([_without(row, piece) for row in ids], tokens)
    found = Classifier.load(pairs, variant=variant).logits(asked)
    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < LARGEST[variant]
    assert np.abs(found - mutant).max() > 1.5 * LARGEST[variant]


def _without(row: list[int], piece: list[int]) -> list[int]:
    (start,) = [at for at in range(len(row)) if row[at : at + len(piece)] == piece]
    return row[:start] + row[start + len(piece) :]


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_batch_mates_and_padding_do_not_matter(pairs: Path, variant: str) -> None:
    """To the last bit: alone, in any order, beside rows that are much longer."""
    classifier = Classifier.load(pairs, variant=variant)
    rows = [*FOUND, ("why " * 20, "because " * 30), ("a", "")]
    alone = np.concatenate([classifier.logits([row]) for row in rows])
    assert np.array_equal(classifier.logits(rows), alone)
    order = np.random.default_rng(3).permutation(len(rows))
    assert np.array_equal(classifier.logits([rows[at] for at in order]), alone[order])
    named = [dict(zip(("document", "query"), reversed(row), strict=True)) for row in rows]
    assert np.array_equal(classifier.logits(named), alone)


def test_verify_takes_pairs(pairs: Path) -> None:
    from trimexport import Texts

    given = Texts(tuple(FOUND), ("yes", "no", "yes", "no", "yes", "no"))
    report = verify(pairs, sample=given, backends=("onnxruntime", "pytorch"))
    assert len(report.texts) == len(FOUND)
    assert report.texts[0] == {"query": FOUND[0][0], "document": FOUND[0][1]}
    with pytest.raises(InputError, match="text 1: this is one text, and the bundle's prompt takes"):
        verify(pairs, sample=Texts((FOUND[0], "alone")))


def planned(**options: object) -> Plan:
    spec = BuildSpec(
        model=str(tiny.tiny_model()), labels=("yes", "no"), prompt=tiny.PAIR, precision=("fp32",)
    )
    return plan(replace(spec, **options))  # type: ignore[arg-type]


def encoder_of(found: Plan) -> TextEncoder:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(found.text_tokenizer))
    tokenizer.encode_special_tokens = True
    fields = found.prompt.fields
    return TextEncoder(tokenizer, found.text_limit, allow_empty=True, fields=fields)


@pytest.mark.parametrize(
    ("truncate", "cut"),
    [
        ("end", "document:end"),
        ("start", "document:start"),
        ("query", "query:end"),
        ("query:start", "query:start"),
        ("document:start", "document:start"),
    ],
)
def test_one_field_is_cut(truncate: str, cut: str) -> None:
    found, roomy = planned(truncate=truncate, max_tokens=40), planned()
    name, end = cut.split(":")
    assert (found.text_limit.field, found.text_limit.truncate) == (name, end)
    row = {"query": "a good film", "document": "not bad"} | {name: "one two" + " three four" * 17}
    assert not encoder_of(found).encode(row | {name: "one two"}).truncated
    whole, given = (encoder_of(it).encode(row) for it in (roomy, found))
    assert (whole.truncated, given.truncated, len(given.ids)) == (False, True, found.limit)
    excess = len(whole.ids) - found.limit
    first = len(encoder_of(roomy).encode(row | {name: ""}).ids) if name == "document" else 0
    last = len(whole.ids) if name == "document" else first + 36
    gone = range(last - excess, last) if end == "end" else range(first, first + excess)
    assert given.ids.tolist() == np.delete(whole.ids, gone).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"truncate": "text"},
            'truncate names "text", and the prompt has no field "text"; give end, start, or one of '
            "query, document, with :start behind it to cut its start",
        ),
        ({"max_tokens": 24}, "the prompt takes 24 of 24 tokens and leaves none for a text"),
        (
            {"prompt": "{a= an instruction of words} {b}\nIs:", "max_tokens": 8},
            "of 8 tokens and leaves none for a text",
        ),
        (
            {"few_shot": Path("none.jsonl"), "shots": 1},
            "--few-shot writes examples of a prompt with one field, and this one has query, "
            "document; drop it and write the examples into the prompt",
        ),
    ],
)
def test_what_cannot_be_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        planned(**options)
    assert message in str(refused.value)


def test_a_chat_by_hand() -> None:
    """Control tokens of the prompt are characters in every field, marked special or not; the
    default of a field too."""
    found = planned(
        prompt="<start_of_turn>user\n{rules=<unused0> or no}\n<unused0>{a}<unused1>\n{b}"
        "<end_of_turn>\n<start_of_turn>model\n"
    )
    tokens = {it["content"]: it["id"] for it in found.tokenizer.definition["added_tokens"]}
    own = {tokens[it] for it in ("<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>")}
    pieces = [token for field in found.prompt.fields for token in field.before]
    assert own & set(pieces) == {tokens["<unused0>"], tokens["<unused1>"]}
    text = "<unused0>x<unused1><end_of_turn>"
    ids = encoder_of(found).encode((text, text)).ids.tolist()
    assert [token for token in ids if token in own] == [tokens["<unused0>"], tokens["<unused1>"]]
    kept = encoder_of(found).encode(("<unused2>", "b")).ids.tolist()
    assert tokens["<unused2>"] in kept  # the prompt has none of it


def test_leads_that_differ() -> None:
    """The bundle's rows are those of the joined string; other clients cannot make them."""
    found = planned(prompt="A: {a}\n{b}\nIs: {c=good} so:")
    assert found.text_tokenizer["post_processor"] is None
    assert any("trimexport-runtime alone writes it" in note for note in found.notes)
    own = encoder_of(found).encode(("a film", "dull")).ids.tolist()
    joined = found.tokenizer.encode_start("A: a film\ndull\nIs: good so:")
    assert (*found.prompt.prefix_ids, *own, *found.prompt.suffix_ids) == joined


def test_a_prompt_with_one_text_is_written_as_ever() -> None:
    from trimexport.bundle.planned_manifest import prompt_of

    found = planned(prompt=tiny.PROMPT)
    assert (prompt_of(found).fields, found.text_limit.field) == ((), None)
    assert found.text_tokenizer["post_processor"] is None
