"""Fine-tuned classifiers: whose labels, which problems, and where the answer is read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import families
import tiny
from trimexport import BuildSpec, CheckpointError, SpecError, UnsupportedError, plan
from trimexport.bundle.files import first_manifest, write_client_files
from trimexport.inspection.sizes import inspect_plan
from trimexport.inspection.table import inspection_table
from trimexport.planning import Plan
from trimexport.prompt.fine_tuned import without_padding
from trimexport_runtime.bundle import Score, Variant, read_manifest, to_json

NAMES = {0: "bad", 1: "fair", 2: "good"}
PROMPT = "Review: {text}\nIs it good?"
END = 373  # of the small byte-level tokenizer, where it is the padding too
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 with a layer of three labels, and a tokenizer without a start token."""
    directory = tmp_path_factory.mktemp("classifier") / "stars"
    return families.make("gpt2", directory, classifier=True, id2label=NAMES, pad_token_id=0)


@pytest.fixture(scope="module")
def one_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a layer of one."""
    directory = tmp_path_factory.mktemp("classifier") / "one"
    return families.make("gpt2", directory, classifier=True, num_labels=1, pad_token_id=0)


@pytest.fixture
def make(whole: Path, tmp_path: Path) -> Make:
    """A copy with other settings in its config.json."""

    def copy(**change: Any) -> Path:
        directory = shutil.copytree(whole, tmp_path / "stars")
        tiny.edit_json(directory / "config.json", lambda it: it.update(change))
        return directory

    return copy


def planned(directory: Path, **spec: Any) -> Plan:
    return plan(BuildSpec(model=str(directory), **spec))


def refused(directory: Path, message: str, kind: type[Exception] = SpecError, **spec: Any) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        planned(directory, **spec)


def numbered(*names: str) -> dict[str, str]:
    return {str(index): name for index, name in enumerate(names)}


def test_labels_stand_in_the_order_of_their_numbers(make: Make) -> None:
    found = planned(make(id2label={"2": "good", "0": "bad", "1": "fair"}))
    assert found.labels == ("bad", "fair", "good")
    assert found.verbalizer is None
    assert found.rows == (0, 1, 2)
    assert found.group_sizes == (1, 1, 1)


@pytest.mark.parametrize("padding", [-1, 10**6, "0"])
def test_padding_that_is_no_token(make: Make, padding: object) -> None:
    """No token is padding then, as where there is none, and the answer is read at the end."""
    directory = make(pad_token_id=padding)
    if isinstance(padding, str) and hasattr(transformers, "TokenizersBackend"):
        refused(directory, "cannot be read as a transformers configuration", CheckpointError)
        return
    found = planned(directory)
    assert found.checkpoint.config.pad_token_id is None
    assert found.notes == ()
    inspect_plan(found)


def test_ten_labels_are_not_sorted_as_words(tmp_path: Path) -> None:
    names = [f"label {index}" for index in range(11)]
    own = dict(enumerate(names))
    directory = families.make("gpt2", tmp_path / "many", classifier=True, layers=1, id2label=own)
    shuffled = dict(sorted(numbered(*names).items()))
    tiny.edit_json(directory / "config.json", lambda it: it.update(id2label=shuffled))
    assert planned(directory).labels == tuple(names)


def test_labels_that_are_only_numbered_can_be_named(make: Make) -> None:
    directory = make(id2label=numbered("LABEL_0", "LABEL_1", "LABEL_2"))
    assert planned(directory).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert planned(directory, labels=("a", "b", "c")).labels == ("a", "b", "c")
    refused(directory, "has 3 labels of its own, LABEL_0, LABEL_1, LABEL_2", labels=("a", "b"))
    refused(directory, 'label "a" is given twice', labels=("a", "b", "a"))
    refused(directory, 'a label is empty in "a", "", "c"', labels=("a", "", "c"))


def test_the_checkpoint_s_own_names_may_be_repeated(whole: Path) -> None:
    assert planned(whole, labels=("bad", "fair", "good")).labels == ("bad", "fair", "good")


@pytest.mark.parametrize(
    "labels", [("good", "fair", "bad"), ("bad", "good"), ("bad", "fair", "great")]
)
def test_other_names_than_the_checkpoint_s(whole: Path, labels: tuple[str, ...]) -> None:
    message = "has 3 labels of its own, bad, fair, good; drop --labels"
    refused(whole, message, labels=labels)


def test_partly_numbered_labels_are_names(make: Make) -> None:
    directory = make(id2label=numbered("bad", "LABEL_1", "good"))
    refused(directory, "labels of its own, bad, LABEL_1, good", labels=("bad", "fair", "good"))


def test_words_for_labels_that_need_none(whole: Path) -> None:
    words = {"bad": ("awful",)}
    refused(whole, "whose labels need no words; drop --verbalize", verbalizers=words)


def test_examples_for_a_model_that_does_not_learn_from_them(whole: Path) -> None:
    message = "learns nothing from examples before it; drop --few-shot and --shots"
    refused(whole, message, few_shot=Path("none.csv"), shots=2)


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, Score()),
        ({"problem_type": "single_label_classification"}, Score()),
        ({"problem_type": "multi_label_classification"}, Score("independent")),
    ],
)
def test_a_score_as_transformers_pipeline_reads_it(
    make: Make, change: dict[str, Any], score: Score
) -> None:
    assert planned(make(**change)).score == score


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, Score("logit")),
        ({"problem_type": "multi_label_classification"}, Score("logit")),
        ({"problem_type": "regression"}, Score("logit", sigmoid=False)),
    ],
)
def test_a_score_of_one_output(
    one_output: Path, tmp_path: Path, change: dict[str, Any], score: Score
) -> None:
    directory = shutil.copytree(one_output, tmp_path / "one")
    tiny.edit_json(directory / "config.json", lambda it: it.update(change))
    found = planned(directory)
    assert (found.score, found.labels, found.outputs) == (score, ("LABEL_0",), 1)
    assert planned(directory, labels=("relevant",)).labels == ("relevant",)
    refused(directory, "has 1 labels of its own, LABEL_0; drop --labels", labels=("a", "b"))


@pytest.mark.parametrize("problem", ["regression", "ranking"])
def test_a_problem_that_no_score_answers(make: Make, problem: str) -> None:
    message = f"has the problem_type {problem} and 3 outputs; a bundle answers with one label of"
    refused(make(problem_type=problem), message, kind=UnsupportedError)


@pytest.mark.parametrize("score", ["log-odds", "logit"])
def test_a_score_for_a_model_that_has_its_own(whole: Path, score: str) -> None:
    message = "is a fine-tuned classifier, whose score is what it was trained for; drop --score"
    refused(whole, message, score=score)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (numbered("bad", "bad", "good"), "does not give each a name of its own; mend it"),
        (numbered("bad", " ", "good"), "does not give each a name of its own; mend it"),
        ({"1": "bad", "2": "fair", "3": "good"}, "does not number its labels from 0"),
    ],
)
def test_names_that_tell_nothing_apart(make: Make, names: dict[str, str], message: str) -> None:
    refused(make(id2label=names), message)


@pytest.mark.parametrize("names", [("bad", "good"), ("a", "b", "c", "d"), ("bad",)])
def test_as_many_names_as_rows(make: Make, names: tuple[str, ...]) -> None:
    message = f"label{'s' * (len(names) > 1)} (id2label), and the output layer score.weight has 3"
    refused(make(id2label=numbered(*names)), message, kind=CheckpointError)


def test_the_text_alone_is_the_prompt(whole: Path) -> None:
    found = planned(whole)
    assert found.prompt.template.source == "{text}"
    assert (found.prompt.prefix_ids, found.prompt.suffix_ids) == ((), ())
    assert found.limit == 256


def test_a_prompt_stands_around_the_text_all_the_same(whole: Path) -> None:
    found = planned(whole, prompt=PROMPT)
    encode = found.tokenizer.whole.encode
    assert found.prompt.prefix_ids == tuple(encode("Review:").ids)
    assert found.prompt.suffix_ids == tuple(encode("\nIs it good?").ids)
    assert found.prompt.text_lead == " "
    assert found.limit == 256 - len(found.prompt.prefix_ids) - len(found.prompt.suffix_ids)


def append_end(directory: Path) -> Path:
    """Let the tokenizer write its end token after every string."""

    def change(definition: dict[str, Any]) -> None:
        token = "<|end|>"
        (known,) = (it for it in definition["added_tokens"] if it["content"] == token)
        assert known["id"] == END
        parts = [{"Sequence": {"id": "A", "type_id": 0}}]
        definition["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [*parts, {"SpecialToken": {"id": token, "type_id": 0}}],
            "pair": [*parts, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [END], "tokens": [token]}},
        }

    tiny.edit_json(directory / "tokenizer.json", change)
    return directory


@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize(("padding", "kept"), [(0, (END,)), (END, ()), (None, (END,))])
def test_the_answer_is_read_at_the_last_token_that_is_no_padding(
    make: Make, prompt: str | None, padding: int | None, kept: tuple[int, ...]
) -> None:
    """transformers looks there, so an end token that is padding too is passed over."""
    found = planned(append_end(make(pad_token_id=padding)), prompt=prompt)
    suffix = "" if prompt is None else "\nIs it good?"
    around = found.tokenizer.whole.encode(suffix, add_special_tokens=False).ids
    assert found.prompt.suffix_ids == (*around, *kept)
    assert found.tokenizer.end_ids == (END,)


def test_a_language_model_does_not_end_its_prompt(tmp_path: Path) -> None:
    """It goes on writing, whatever its tokenizer puts after a whole string."""
    directory = append_end(families.make("gpt2", tmp_path))
    found = planned(directory, labels=("positive", "negative"), prompt="A: {text}\nB:")
    assert END not in found.prompt.suffix_ids


@pytest.mark.parametrize(
    ("ids", "padding", "kept"),
    [
        ((5, 6, 7), 0, (5, 6, 7)),
        ((5, 6, 0, 0), 0, (5, 6)),
        ((0, 5, 0, 6, 0), 0, (0, 5, 0, 6)),
        ((0, 0), 0, ()),
        ((5, 0), None, (5, 0)),
        ((), 0, ()),
    ],
)
def test_without_padding(ids: tuple[int, ...], padding: int | None, kept: tuple[int, ...]) -> None:
    assert without_padding(ids, padding) == kept


def test_what_is_left_of_it_is_all_of_it(whole: Path) -> None:
    """No row of its output layer is cut; a bias of zeros is added to it."""
    found = inspect_plan(planned(whole))
    parts = {part.name: part for part in found.parts}
    assert not found.tied
    assert (parts["output layer"].before, parts["output layer"].after) == (3 * 64, 3 * 65)
    assert all(it.before == it.after for it in found.parts if it.name != "output layer")
    assert found.head_before == found.head_after == 3 * 64
    assert found.bytes_after == found.bytes_before + 4 * 3


def test_the_table_has_a_row_for_each_label(whole: Path) -> None:
    found = planned(whole)
    table = inspection_table(inspect_plan(found), found)
    assert "GPT2ForSequenceClassification in" in table
    assert table.endswith("label bad: row 0\nlabel fair: row 1\nlabel good: row 2")
    assert "tied" not in table


def test_labels_of_the_manifest_have_no_tokens(whole: Path, tmp_path: Path) -> None:
    found = planned(whole)
    variant = Variant("fp32", "onnx/model.onnx", (), "fp32", 20, ("CPUExecutionProvider",), 0)
    write_client_files(found, (variant,), tmp_path)
    manifest = first_manifest(found, (variant,), tmp_path, {})
    (tmp_path / "trimexport.json").write_text(to_json(manifest), encoding="utf-8")
    read = read_manifest(tmp_path)
    assert read.label_names == ("bad", "fair", "good")
    assert {(it.words, it.token_ids, it.tokens) for it in read.labels} == {((), (), ())}
    assert read.source.architecture == "GPT2ForSequenceClassification"
    assert read.prompt.template == "{text}"
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "bad", "1": "fair", "2": "good"}


def test_a_classifier_is_no_chat_model(make: Make) -> None:
    refused(make(), "was not trained to answer in a chat; drop --chat", chat=True)


def test_a_padding_token_that_texts_may_end_in(make: Make) -> None:
    """transformers reads the answer before it; parity cannot tell, so the user is told."""
    (note,) = planned(make(pad_token_id=0)).notes
    assert note.startswith('the padding token "!" (0) is no special one')


@pytest.mark.parametrize("pad", [None, END])
def test_a_padding_token_that_no_text_has(make: Make, pad: int | None) -> None:
    assert planned(make(pad_token_id=pad)).notes == ()


def test_a_label_that_is_no_text(make: Make) -> None:
    refused(make(id2label={"0": None, "1": "fair", "2": "good"}), "a name of its own; mend it")
