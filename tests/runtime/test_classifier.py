from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from long_texts import CountingTokenizer
from trimexport_runtime import (
    BundleError,
    Classifier,
    InputError,
    Manifest,
    Prediction,
    read_manifest,
)
from trimexport_runtime.batching import WINDOW_CHARACTERS, WINDOW_TEXTS
from trimexport_runtime.bundle import MANIFEST, to_json
from trimexport_runtime.cli import main
from trimexport_runtime.errors import NoNumberError
from trimexport_runtime.long_text import first_ids, first_part, last_ids

Expected = Callable[[Path, str], npt.NDArray[np.float64]]
Counted = Callable[[list[str]], tuple[Iterator[str], list[str]]]
REUSE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXTS = [
    "a gorgeous, witty, seductive movie",
    "",
    "bad",
    "NUL \0 byte",
    "two\nlines\tand a tab",
    "naïve ☕ 😀 日本語 e\u0301",
    " leading and trailing ",
    "the plot is thin " * 40,
    "<pad><unk><0x41>",
    "▁▁▁",
]


def test_logits_are_those_of_the_graph_in_the_callers_order(
    bundle: Path, classifier: Classifier, expected_logits: Expected
) -> None:
    logits = classifier.logits(TEXTS)
    assert logits.dtype == np.float32
    wanted = np.array([expected_logits(bundle, text) for text in TEXTS])
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    assert wanted.std() > 0.5


def test_predictions_are_the_softmax_of_the_logits(classifier: Classifier) -> None:
    logits = classifier.logits(TEXTS).astype(np.float64)
    for row, prediction in zip(logits, classifier.classify(TEXTS), strict=True):
        wanted = np.exp(row) / np.exp(row).sum()
        assert prediction.probabilities == pytest.approx(wanted.tolist())
        assert prediction.label == classifier.labels[int(row.argmax())]
        assert prediction.probability == max(prediction.probabilities)
        assert not prediction.truncated


@REUSE
@given(st.lists(st.text(max_size=60), max_size=12), st.text(max_size=60))
def test_an_answer_does_not_depend_on_the_batch(
    classifier: Classifier, others: list[str], text: str
) -> None:
    alone = classifier.logits([text])[0]
    together = classifier.logits([*others, text, *others])[len(others)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_more_texts_than_a_window_keep_their_order(classifier: Classifier) -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(2 * WINDOW_TEXTS + 3)]
    answers = classifier.classify(texts)
    assert len(answers) == len(texts)
    for number in (0, 1, WINDOW_TEXTS, len(texts) - 1):
        alone = classifier.classify([texts[number]])[0]
        assert answers[number].tokens == alone.tokens
        assert answers[number].probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_no_texts_give_no_answers(classifier: Classifier) -> None:
    assert classifier.classify([]) == []
    assert classifier.logits([]).shape == (0, 3)
    assert classifier.logits([]).dtype == np.float32
    assert list(classifier.classify_stream(iter(()))) == []


def test_an_empty_text_is_classified_by_the_prompt_alone(classifier: Classifier) -> None:
    assert classifier.classify([""])[0].tokens == 0


def test_an_empty_text_without_a_prompt_is_an_error(make_bundle: Callable[..., Path]) -> None:
    classifier = Classifier.load(make_bundle(prompt=False))
    assert classifier.classify(["a"])[0].tokens == 1
    with pytest.raises(InputError, match=r"text 1: .* no tokens .* leave empty texts out"):
        classifier.classify(["a", ""])


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_a_long_text_is_cut(
    make_bundle: Callable[..., Path], expected_logits: Expected, truncate: str
) -> None:
    folder = make_bundle(tokens=4, truncate=truncate)
    classifier = Classifier.load(folder)
    text = "\x01\x02\x03\x04\x05\x06"  # one byte token each
    part = text[:4] if truncate == "end" else text[2:]
    cut, whole = classifier.classify([text, part])
    assert (cut.truncated, cut.tokens) == (True, 4)
    assert (whole.truncated, whole.tokens) == (False, 4)
    assert cut.probabilities == whole.probabilities
    np.testing.assert_allclose(
        classifier.logits([text])[0], expected_logits(folder, part), atol=1e-5
    )


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_only_what_is_kept_of_a_long_text_is_tokenised(bundle: Path, truncate: str) -> None:
    """A text of 21 MB, of which a few thousand characters are read, and the ids of all of it."""
    kept = CountingTokenizer(Tokenizer.from_file(str(bundle / "tokenizer.json")))
    find = first_ids if truncate == "end" else last_ids
    text = "a witty, seductive movie. " * 800_000
    ids = find(text, 504, kept, kept.reach)
    assert kept.characters < 2 * first_part(504)
    kept.characters = 0
    assert len(ids) > 504
    part = text[:9_100] if truncate == "end" else text[-9_100:]
    whole = kept(part)
    assert whole[:504] == ids[:504] if truncate == "end" else whole[-504:] == ids[-504:]


@pytest.mark.parametrize("truncate", ["end", "start"])
@pytest.mark.parametrize("text", ["a witty movie " * 900, "<a" * 9_000, "日本 " * 4_000, "ok " * 2])
def test_a_text_far_over_the_limit_is_cut_as_any_other(
    make_bundle: Callable[..., Path], truncate: str, text: str
) -> None:
    folder = make_bundle(tokens=9, truncate=truncate)
    own = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    found = Classifier.load(folder).encode(text)
    assert found.ids.tolist() == (own[:9] if truncate == "end" else own[-9:])
    assert found.truncated == (len(own) > 9)


@pytest.fixture
def unknowing(make_bundle: Callable[..., Path]) -> Path:
    """A bundle as earlier builds made them of a tokenizer with a token more than the model has rows
    for, which is also the padding."""
    folder = make_bundle()
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    rows = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken("<img>", normalized=False)])
    tokenizer.save(path)
    manifest = read_manifest(folder)
    size = (folder / "tokenizer.json").stat().st_size
    files = (replace(manifest.files[0], bytes=size), *manifest.files[1:])
    manifest = replace(manifest, files=files, pad_token_id=rows)
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows}), encoding="utf-8")
    return folder


UNKNOWN = r"the text has the token '<img>' \((\d+)\), and the model knows \1; leave it out of the"


def test_a_token_that_the_model_does_not_know_costs_one_text(
    unknowing: Path, tmp_path: Path
) -> None:
    """In the library, on standard output, and in a job."""
    texts = ["a gorgeous movie", "see <img> here", "dull", ""]
    classifier = Classifier.load(unknowing)
    first, bad, *rest = classifier.classify_each(texts)
    assert isinstance(bad, InputError)
    assert re.search(UNKNOWN, str(bad))
    assert [first, *rest] == classifier.classify([texts[0], *texts[2:]])
    with pytest.raises(InputError, match="text 1: " + UNKNOWN):
        classifier.logits(texts)
    (tmp_path / "in.txt").write_text("\n".join(texts[:3]), encoding="utf-8")
    arguments = ["classify", str(unknowing), "--file", str(tmp_path / "in.txt")]
    for more in (["--json"], ["-o", str(tmp_path / "out.jsonl")]):
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 1
        assert "1 of the " in result.stderr
        out = result.stdout if more == ["--json"] else (tmp_path / "out.jsonl").read_text()
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row.get("label") for row in rows] == [first.label, None, rest[0].label]
        assert re.search(UNKNOWN, rows[1]["error"])


@pytest.mark.parametrize("rows", [0, -1, True, 2.5, "400", [400]])
def test_a_number_of_tokens_that_is_none(bundle: Path, rows: object) -> None:
    (bundle / "config.json").write_text(json.dumps({"vocab_size": rows}), encoding="utf-8")
    with pytest.raises(BundleError, match=r"says vocab_size .*, which is no number of tokens"):
        Classifier.load(bundle)


def test_what_config_json_says_of_the_model(unknowing: Path) -> None:
    """An unreadable one is a damaged bundle; one without the number of tokens checks nothing."""
    (unknowing / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"config\.json cannot be read .* copy the bundle again"):
        Classifier.load(unknowing)
    (unknowing / "config.json").write_text("{}", encoding="utf-8")
    assert len(Classifier.load(unknowing).encode("<img>").ids) == 1


@pytest.mark.parametrize("text", ["a" * 10**6, "a witty, seductive movie. " * 38_462])
def test_a_million_characters(classifier: Classifier, text: str) -> None:
    began = time.process_time()
    prediction = classifier.classify([text])[0]
    assert (prediction.truncated, prediction.tokens) == (True, 512)
    assert time.process_time() - began < 30  # about 1 s; quadratic work would take hours


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", "b\udc80c"], r"text 1: character 1 is the lone surrogate U\+DC80.*errors=\"replace"),
        (["\ud800"], r"text 0: character 0 is the lone surrogate U\+D800"),
        (["a", None], "text 1: a text must be a str, this is NoneType; convert it first"),
        ([b"a"], "text 0: a text must be a str, this is bytes"),
        ("a string", r"a single str; put it in a list: classify\(\[text\]\)"),
        (b"bytes", "a single bytes; put it in a list"),
        (None, "texts must be a list of str, this is NoneType"),
    ],
)
def test_what_is_not_a_list_of_texts_is_an_error(
    classifier: Classifier, texts: list[str], message: str
) -> None:
    for method in (classifier.classify, classifier.logits):
        with pytest.raises(InputError, match=message):
            method(texts)
    with pytest.raises(InputError, match=message):
        list(classifier.classify_stream(texts))


def test_a_single_string_is_refused_before_the_first_answer_is_taken(
    classifier: Classifier,
) -> None:
    with pytest.raises(InputError, match="put it in a list"):
        classifier.classify_stream("a string")


def test_the_stream_answers_what_stands_before_a_bad_text(classifier: Classifier) -> None:
    stream = classifier.classify_stream(["a", "\ud800"])
    assert isinstance(next(stream), Prediction)
    with pytest.raises(InputError, match="text 1"):
        next(stream)


def test_each_gives_errors_in_their_places(classifier: Classifier) -> None:
    first, second, third = classifier.classify_each(["a", "\ud800", "b"])
    assert isinstance(second, InputError)
    assert [first, third] == classifier.classify(["a", "b"])


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [
        ("fp32", "see with `trimexport-run info --check` whether its files are whole"),
        ("fp16", "float16 ends at 65504; use a variant in another precision"),
    ],
)
def test_a_text_whose_logits_are_no_numbers_is_one_text(
    make_bundle: Callable[..., Path],
    spoil: Callable[[Path, str], None],
    with_variants: Callable[..., Callable[[Manifest], Manifest]],
    precision: str,
    remedy: str,
) -> None:
    change = with_variants(it={"precision": precision})
    whole = Classifier.load(make_bundle("whole", change=change), variant="it", threads=1)
    texts = ["a movie", "a movie % of it", "dull"]
    spoil(folder := make_bundle("spoiled", change=change), "%")
    classifier = Classifier.load(folder, variant="it", threads=1)
    first, bad, last = classifier.classify_each(texts)
    assert [first, last] == whole.classify([texts[0], texts[2]])
    assert isinstance(bad, NoNumberError)
    assert str(bad).startswith("the variant it gives it a logit that is no finite number")
    assert remedy in str(bad)
    for ask in (classifier.classify, classifier.logits):
        with pytest.raises(InputError, match=f"text 1: the variant it .*{remedy[:9]}"):
            ask(texts)
    assert np.array_equal(classifier.logits(texts[::2]), whole.logits(texts[::2]))


def test_the_stream_reads_no_further_than_a_window(
    classifier: Classifier, counted: Counted
) -> None:
    texts, given_so_far = counted(["text"] * (5 * WINDOW_TEXTS))
    stream = classifier.classify_stream(texts)
    assert given_so_far == []
    next(stream)
    assert len(given_so_far) == WINDOW_TEXTS


def test_long_texts_do_not_pile_up(classifier: Classifier, counted: Counted) -> None:
    texts, given_so_far = counted(["x" * (WINDOW_CHARACTERS // 2)] * 9)
    next(classifier.classify_stream(texts))
    assert len(given_so_far) == 2


def test_threads_share_a_classifier(classifier: Classifier) -> None:
    wanted = classifier.classify(TEXTS)
    found: list[list[Prediction]] = []

    def work() -> None:
        found.extend(classifier.classify(TEXTS) for _ in range(10))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [wanted] * 40


def test_control_tokens_in_a_text_are_characters(make_bundle: Callable[..., Path]) -> None:
    from trimexport_runtime.tokenize import TextEncoder

    folder = make_bundle()
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=64)
    tokenizer.save(path)
    encoder = TextEncoder.load(folder, read_manifest(folder))
    ids = encoder.encode("<eos>").ids.tolist()
    assert tokenizer.token_to_id("<eos>") not in ids
    assert 3 < len(ids) < 64


def test_the_labels_and_the_variant_are_told(classifier: Classifier) -> None:
    assert classifier.labels == ("negative", "positive", "mixed")
    assert classifier.variant.name == "fp32"
    assert classifier.manifest.source.model == "tiny"
