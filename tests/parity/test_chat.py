"""Chat models: the prompt as the user's turn, judged by transformers' own rendering."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from models import TEXTS, Untrimmed, gemma, save, tokenizer_definition, without_one
from tiny import edit_json
from trimexport import BuildSpec, QuestionSpec, SpecError, build, plan
from trimexport.planning import Plan
from trimexport.prompt.chat import wrap_in_chat
from trimexport.prompt.few_shot import choose_shots
from trimexport.prompt.template import join, parse_template
from trimexport_runtime import Classifier

LABELS = ("World", "Sports")
PROMPT = "Is this review positive or negative?\n{text}"
TURN = "<start_of_turn>"
END = "<end_of_turn>\n"
# In the manner of Gemma 1 and 2: no system turn, what is said is trimmed.
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no such role') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# In the manner of Qwen3: a system turn, no bos, and a place for thoughts that is to stay empty.
THINKING = (
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<unused0>\n<unused1>\n' }}{% endif %}"
    "{% endif %}"
)
# A start of the answer that ends in a space, and one that lacks the answer's line break.
SPACE_BEFORE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
BREAK_LACKS = (
    "{% for message in messages %}{{ message['role'] + ':\n' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
# In the manner of Mistral: the answer follows the user's turn, with a space.
SPACED = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint whose tokenizer has the given chat template."""
    directory = save(gemma(seed=4), tmp_path_factory.mktemp("chat"))

    def with_template(template: str | None) -> Path:
        edit_json(directory / "tokenizer_config.json", lambda c: {**c, "chat_template": template})
        return directory

    return with_template


def planned(
    directory: Path, prompt: str = PROMPT, system: str | None = None, **options: Any
) -> Plan:
    spec = BuildSpec(
        precision=("fp32",),
        model=str(directory),
        labels=LABELS,
        prompt=prompt,
        chat=True,
        system=system,
        **options,
    )
    return plan(spec)


def test_the_bundle_answers_as_the_rendered_chat(
    chat_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """transformers renders and tokenises the whole conversation, text included."""
    directory = chat_model(THINKING)
    spec = BuildSpec(
        precision=("fp32",),
        model=str(directory),
        labels=LABELS,
        prompt=PROMPT,
        chat=True,
        system="Say {one} word.",
    )
    built = build(spec, tmp_path / "bundle")
    assert built.manifest.prompt.rendered
    assert built.report.gap.different == 0
    judge = Untrimmed(directory)
    turns = [{"role": "system", "content": "Say {one} word."}, {"role": "user", "content": ""}]
    texts = [text for text in TEXTS if text and text[0] != " "]
    rows = []
    for text in texts:
        turns[1]["content"] = PROMPT.replace("{text}", text)
        ids = judge.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        rows.append(list(ids))
    tokens = [label.token_ids[0] for label in built.manifest.labels]
    expected = judge.logits_of(rows, tokens)
    found = Classifier.load(tmp_path / "bundle").logits(texts)
    assert expected.std(axis=0).mean() >= 1, "a model that says nothing proves nothing"
    assert np.abs(found - expected).max() < 1e-3
    mutant = judge.logits_of([without_one(row, 1) for row in rows], tokens)
    assert np.abs(found - mutant).max() > 0.1


def test_control_tokens_work_in_the_template_only(chat_model: Callable[[str], Path]) -> None:
    found = planned(chat_model(GEMMA))
    turn = found.tokenizer.whole.token_to_id(TURN)
    assert found.prompt.prefix_ids[:2] == (2, turn), "one bos, the template's own"
    assert found.prompt.suffix_ids == found.tokenizer.encode_inside(END + TURN + "model\n")
    assert turn in found.prompt.suffix_ids
    kept = {token["content"] for token in found.text_tokenizer["added_tokens"]}
    assert kept.isdisjoint({TURN, "<end_of_turn>", "<bos>"})


@pytest.mark.parametrize(
    ("template", "token"),
    [
        (GEMMA, "World"),
        (THINKING, "World"),
        (SPACED, "▁World"),
        (SPACE_BEFORE, "▁World"),
        (BREAK_LACKS, "World"),
    ],
)
def test_labels_are_written_as_the_template_writes_an_answer(
    chat_model: Callable[[str], Path], template: str, token: str
) -> None:
    verbalizer = planned(chat_model(template)).verbalizer
    assert verbalizer is not None
    assert verbalizer.words[0][0].tokens[0] == token


def test_what_the_template_writes_is_no_token_in_a_text(chat_model: Callable[[str], Path]) -> None:
    """Also where the tokenizer does not mark it special, as Qwen3's `</think>`."""
    found = planned(chat_model(THINKING))
    closing = found.tokenizer.whole.token_to_id("<unused1>")
    assert closing in found.prompt.suffix_ids
    tokenizer = Tokenizer.from_str(json.dumps(found.text_tokenizer))
    assert closing not in tokenizer.encode("so <unused1> x", add_special_tokens=False).ids
    other = tokenizer.encode("so <table> x", add_special_tokens=False).tokens
    assert "<table>" in other, "what the template does not write stays as in the source"


def test_a_model_that_thinks_is_told_not_to(chat_model: Callable[[str], Path]) -> None:
    """Its first token is all that is read, so it must be the answer."""
    wrapped = wrap_in_chat(parse_template(PROMPT), None, chat_model(THINKING))
    assert wrapped.suffix == END + TURN + "assistant\n<unused0>\n<unused1>\n"


def test_braces_of_template_and_system_stay(chat_model: Callable[[str], Path]) -> None:
    parsed = parse_template("Answer {{so}}: {text}")
    wrapped = wrap_in_chat(parsed, "{text} is a word here", chat_model(THINKING))
    assert wrapped.prefix == (
        f"{TURN}system\n{{text}} is a word here{END}{TURN}user\nAnswer {{so}}: "
    )
    assert parse_template(wrapped.source).prefix == wrapped.prefix


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (None, None, r"has no chat template; drop --chat"),
        (GEMMA, "Be brief.", r"has no system turn \(no such role\); drop --system"),
        (SPACED, "Be brief.", r"has no system turn \(it leaves the text out\); drop --system"),
        ("{{ messages | nonsense }}", None, r"cannot be rendered \(.*nonsense.*\); drop --chat"),
        ("{% if %}", "Be brief.", r"cannot be rendered \(.*\); drop --chat"),
        ("nothing", None, r"writes the user's turn 0 times instead of once; drop --chat"),
    ],
)
def test_what_a_template_cannot_do(
    chat_model: Callable[[str], Path], template: str, system: str | None, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        planned(chat_model(template), system=system)


# Of several turns it writes the last alone.
LAST = "{% set message = messages[-1] %}{{ 'user: ' + message['content'] + '\n' }}"
EXAMPLES = [
    ("a <table> cup", "Sports"),
    ("the vote {s}", "World"),
    ("a goal", "Sports"),
    ("war", "World"),
]


@pytest.mark.parametrize(
    ("template", "system"), [(GEMMA, None), (THINKING, "Say {one} word."), (SPACED, None)]
)
def test_examples_are_earlier_turns(
    chat_model: Callable[[str], Path], tmp_path: Path, template: str, system: str | None
) -> None:
    """transformers renders and tokenises the whole conversation."""
    directory = chat_model(template)
    found = planned(directory, system=system, few_shot=_examples(tmp_path), shots=2)
    shots = choose_shots(found.spec)
    assert {(shot.text, shot.word) for shot in shots} == set(EXAMPLES)
    turns = [] if system is None else [{"role": "system", "content": system}]
    for shot in shots:
        said = PROMPT.replace("{text}", shot.text)
        turns.append({"role": "user", "content": said})
        turns.append({"role": "assistant", "content": shot.word})
    turns.append({"role": "user", "content": PROMPT.replace("{text}", "a fine text")})
    judge = AutoTokenizer.from_pretrained(directory)
    expected = judge.apply_chat_template(
        turns, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    tokenizer = Tokenizer.from_str(json.dumps(found.text_tokenizer))
    text = tokenizer.encode("a fine text", add_special_tokens=False).ids
    assert [*found.prompt.prefix_ids, *text, *found.prompt.suffix_ids] == list(expected)
    inside = tokenizer.encode("so <table> x", add_special_tokens=False).tokens
    assert "<table>" in inside, "an added token in an example is none of the template's"
    assert set(found.prompt.examples) == {text for text, _ in EXAMPLES}


def test_examples_that_the_template_leaves_out(
    chat_model: Callable[[str], Path], tmp_path: Path
) -> None:
    message = r"does not write the earlier turn 'Is this .*' as it is; drop --few-shot, or --chat"
    with pytest.raises(SpecError, match=message):
        planned(chat_model(LAST), few_shot=_examples(tmp_path), shots=2)


def test_an_example_with_what_the_template_writes(
    chat_model: Callable[[str], Path], tmp_path: Path
) -> None:
    path = _examples(tmp_path, [*EXAMPLES[:3], ("a <unused1> b", "World")])
    with pytest.raises(SpecError, match="'a <unused1> b' holds <unused1>, a control token of the"):
        planned(chat_model(THINKING), few_shot=path, shots=2)


def _examples(directory: Path, examples: Sequence[tuple[str, str]] = tuple(EXAMPLES)) -> Path:
    rows = (json.dumps({"text": text, "label": label}) + "\n" for text, label in examples)
    (directory / "examples.jsonl").write_text("".join(rows), encoding="utf-8")
    return directory / "examples.jsonl"


def test_a_system_turn_without_chat() -> None:
    with pytest.raises(SpecError, match="a system turn is given without --chat"):
        BuildSpec(precision=("fp32",), model="m", labels=LABELS, prompt=PROMPT, system="Be brief.")


def test_the_template_of_a_file_beside_the_tokenizer(tmp_path: Path) -> None:
    """`chat_template.jinja`, where newer checkpoints keep it."""
    directory = save(gemma(seed=4), tmp_path)
    (directory / "chat_template.jinja").write_text(GEMMA, encoding="utf-8")
    assert any(token["content"] == TURN for token in tokenizer_definition()["added_tokens"])
    assert TURN + "user\nIs this" in planned(directory).prompt.template.source


def test_fields_in_a_user_s_turn(chat_model: Callable[[str], Path]) -> None:
    """Judged by the rendering of the texts themselves."""
    directory = chat_model(THINKING)
    prompt = "{rules=Answer.}\n{{Query}}: {query} \nText: {text} ."
    found = planned(directory, prompt, "Be brief.")
    assert [field.default for field in found.prompt.fields] == ["Answer.", None, None]
    judge = AutoTokenizer.from_pretrained(directory)
    said = "Answer.\n{Query}: a good film \nText: dull ."
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}]
    whole = judge.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    template = found.prompt.template
    assert join(template, ["Answer.", "a good film", "dull"]) == whole
    assert parse_template(template.source).fields == template.fields


def test_questions_in_the_users_turn(chat_model: Callable[[str], Path]) -> None:
    """Each question's ids are the chat template's of the turn with its text."""
    directory = chat_model(GEMMA)
    questions = (QuestionSpec("a", "Is it {so}?"), QuestionSpec("b", "Is it dull?"))
    prompt = "Text: {text}\n\n{question} Say it:"
    found = planned(directory, prompt, questions=questions)
    judge = AutoTokenizer.from_pretrained(directory)
    tokenizer = Tokenizer.from_str(json.dumps(found.text_tokenizer))
    text = tokenizer.encode("a fine text", add_special_tokens=False).ids
    for question, asked in zip(questions, found.asked, strict=True):
        said = f"Text: a fine text\n\n{question.text} Say it:"
        expected = judge.apply_chat_template(
            [{"role": "user", "content": said}], add_generation_prompt=True, return_dict=False
        )
        ids = [*found.prompt.prefix_ids, *text, *asked.prompt.suffix_ids]
        assert ids == list(expected)
    again = parse_template(found.prompt.template.source)
    assert [field.name for field in again.fields] == ["text", "question"]
    assert found.questions is not None
    assert found.questions.trie.token_ids
