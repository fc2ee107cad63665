"""Every wrong command line ends in one message, with nothing printed and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tiny

Refused = Callable[..., str]
LABELS = ("--labels", "positive,negative")
PROMPT = ("--prompt", "Review: {text}\\nSentiment:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--labels', for example --labels positive,negative."),
        ([*LABELS, "--prompt", "{text}", "--prompt-file", "FILE"], "not both"),
        ([*LABELS, "--prompt-file", "none"], "'none' does not exist"),
        ([*LABELS, "--truncate", "middle"], "'middle' is not one of 'end', 'start'"),
        ([*LABELS, "--max-tokens", "many"], "'many' is not a valid integer"),
        ([*LABELS, "--texts", "none.txt"], "'none.txt' does not exist"),
        (["--recipe", "none.toml"], "'none.toml' does not exist"),
        ([*LABELS, "--modell", "x"], "No such option"),
        ([*LABELS, "extra"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(
    tiny_refused: Refused, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "prompt.txt").write_text("{text}", encoding="utf-8")
    arguments = [str(tmp_path / "prompt.txt") if it == "FILE" else it for it in arguments]
    assert message in tiny_refused("build", *arguments, code=2)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("positive", 'there is 1 label ("positive"), a classifier needs two'),
        ("", 'a label is empty in ""'),
        ("positive,,negative", 'a label is empty in "positive", "", "negative"'),
        ("positive,negative,positive", 'label "positive" is given twice'),
        ("good,bad", "no prompt is known for the labels good,bad; the model comes with"),
    ],
)
def test_wrong_labels(tiny_refused: Refused, labels: str, message: str) -> None:
    assert message in tiny_refused("build", "--labels", labels, "-o", "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--score", "logit"), "the score logit is made of 1 label, not of 2"),
        (("--score", "sigmoid"), 'score is "sigmoid"; give one of softmax, log-odds, logit'),
        (("--score-shift", "2"), "drop them, or give --score log-odds or logit"),
        (("--score", "log-odds", "--score-scale", "0"), "score-scale is 0, with which every"),
    ],
)
def test_wrong_scores(tiny_refused: Refused, options: tuple[str, ...], message: str) -> None:
    assert message in tiny_refused("build", *LABELS, *PROMPT, *options, "-o", "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mixed=fair", '--verbalize names "mixed", which is no label; the labels are "positive"'),
        ("positive=good,good", 'the words "good" and "good" are the same tokens'),
        ("positive=good,", 'label "positive" has an empty word'),
        ("positive=\u16a0", "is not in the model's vocabulary"),
        ("positive", "has no label and words; write label=word,word"),
    ],
)
def test_wrong_words(tiny_refused: Refused, tiny_model: Path, words: str, message: str) -> None:
    said = tiny_refused(
        "build", "--model", tiny_model, *LABELS, *PROMPT, "--verbalize", words, "-o", "out"
    )
    assert message in said


def test_labels_with_the_same_word(tiny_refused: Refused, tiny_model: Path) -> None:
    words = ("--verbalize", "positive=great", "--verbalize", "negative=great")
    said = tiny_refused("build", "--model", tiny_model, *LABELS, *PROMPT, *words, "-o", "out")
    assert '"great" of "positive" are the same tokens ("▁great")' in said
    assert '--verbalize "negative=word"' in said


@pytest.mark.parametrize("command", ["build", "inspect"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shots", "2"), "shots is given without a file of examples; name one with --few-shot"),
        (("--seed", "2"), "seed is given without a file of examples; name one with --few-shot"),
        (("--few-shot", "FILE"), "without how many to take of each label; say it with --shots"),
        (("--few-shot", "FILE", "--shots", "0"), "shots is 0; give 1 or more"),
        (("--few-shot", "FILE", "--shots", "2"), 'has 1 different texts of label "negative"'),
    ],
)
def test_wrong_examples(
    tiny_refused: Refused,
    tiny_model: Path,
    tmp_path: Path,
    command: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    path = tmp_path / "examples.csv"
    path.write_text("text,label\na,positive\nb,positive\nc,negative\n", encoding="utf-8")
    given = [path if it == "FILE" else it for it in options]
    said = tiny_refused(command, "--model", tiny_model, *LABELS, *PROMPT, *given)
    assert message in said


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Review", "has no {text}, it needs exactly one"),
        ("", "has no {text}, it needs exactly one"),
        ("{text} {text}", "has 2 {text}, it needs exactly one"),
        ("{text} {", "has a single '{'"),
        ("a } {text}", "has a single '}'"),
        ("{{text}}", "has no {text}"),
        ("x " * 200 + "{text}", "tokens and leaves none for a text; shorten it"),
    ],
)
def test_wrong_prompts(
    tiny_refused: Refused, tiny_model: Path, tmp_path: Path, prompt: str, message: str
) -> None:
    command = ("build", "--model", tiny_model, *LABELS, "-o", "out")
    assert message in tiny_refused(*command, "--prompt", prompt)
    (tmp_path / "prompt.txt").write_text(prompt, encoding="utf-8")
    assert message in tiny_refused(*command, "--prompt-file", tmp_path / "prompt.txt")


def test_a_prompt_file_that_is_not_text(tiny_refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"\xff{text}")
    said = tiny_refused("build", *LABELS, "--prompt-file", tmp_path / "prompt.txt", "-o", "out")
    assert "prompt.txt cannot be read" in said


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--precision", "fp8"), "precision fp8 cannot be built; give each of fp32"),
        (("--precision", ""), "cannot be built"),
        (("--max-tokens", "0"), "max-tokens is 0; give 1 or more"),
        (("--max-tokens", "3"), "leaves none for a text; shorten it or raise --max-tokens"),
    ],
)
def test_wrong_values(
    tiny_refused: Refused, tiny_model: Path, option: tuple[str, str], message: str
) -> None:
    command = ("build", "--model", tiny_model, *LABELS, *PROMPT, "-o", "out")
    assert message in tiny_refused(*command, *option)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("int3", "--keep: 'int3' cannot be kept, for it is not built; the build's variants are"),
        ("int8,fp32,", "--keep: 'fp32', '' cannot be kept, for it is not built; the build's"),
    ],
)
def test_to_keep_what_is_not_built(
    tiny_refused: Refused, tiny_model: Path, names: str, message: str
) -> None:
    command = ("build", "--model", tiny_model, *LABELS, *PROMPT, "-o", "out")
    command += ("--tensorrt", "fp16", "--tensorrt-onnx-only", "--keep", names)
    said = tiny_refused(*command, code=2)
    assert message in said
    assert "variants are int8, tensorrt-fp16." in said


def test_poor_calibration_texts_are_warned_of(
    tiny_refused: Refused, tiny_model: Path, tmp_path: Path
) -> None:
    """Before a model is read, so that a build need not be waited for."""
    (tmp_path / "one.txt").write_text("dull\n", encoding="utf-8")
    (tmp_path / "wrong.jsonl").write_text('{"text": "a", "label": "x"}\n', encoding="utf-8")
    command = ("build", "--model", tiny_model, *LABELS, *PROMPT, "-o", "out")
    command += ("--calibration", tmp_path / "one.txt", "--texts", tmp_path / "wrong.jsonl")
    said = tiny_refused(*command)
    assert "warning: there are few calibration texts, 1; give at least 10, better a" in said
    assert "labelled x" in said


def _truncate(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _unlink(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def _configure(**change: object) -> Callable[[Path], None]:
    return lambda model: tiny.edit_json(model / "config.json", lambda it: it.update(change))


@pytest.mark.parametrize("command", [("build", "-o", "out"), ("inspect",)])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_unlink("config.json"), "has no config.json"),
        (_unlink("model.safetensors"), "has no weights"),
        (_truncate, "is truncated or damaged"),
        (_configure(architectures=["BertModel"]), "is a BertModel; supported are Gemma"),
        (
            _configure(architectures=["BertForSequenceClassification"]),
            "GPT2LMHeadModel, and classifiers that were fine-tuned from them",
        ),
        (_configure(use_bidirectional_attention=True), "only causal decoders can be compiled"),
        (_configure(hidden_size=48), "the two do not belong together"),
        (_configure(num_hidden_layers=3), "lacks the tensor model.layers.2"),
        (_configure(num_attention_heads=-1), "transformers cannot build the model"),
    ],
)
def test_wrong_models(
    tiny_refused: Refused,
    tiny_copy: Path,
    command: tuple[str, ...],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    damage(tiny_copy)
    first, *rest = command
    assert message in tiny_refused(first, "--model", tiny_copy, *LABELS, *PROMPT, *rest)


@pytest.mark.parametrize("command", ["build", "inspect"])
def test_no_model(tiny_refused: Refused, command: str) -> None:
    said = tiny_refused(command, "--model", "none/at/all", *LABELS, *PROMPT)
    assert "none/at/all does not exist; --model takes a directory" in said


@pytest.mark.parametrize("command", ["build", "inspect"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("none/at/all", "none/at/all does not exist; --model takes a directory"),
        ("./none", "./none does not exist; --model takes a directory"),
        ("n" * 300, "does not exist; --model takes a directory"),
        ("", "the model's name is empty; --model takes a directory"),
        (" ", "the model's name is empty; --model takes a directory"),
    ],
)
def test_no_model_and_no_prompt(
    tiny_refused: Refused, command: str, model: str, message: str
) -> None:
    assert message in tiny_refused(command, "--model", model, *LABELS)


@pytest.mark.parametrize("command", ["build", "inspect"])
def test_a_language_model_without_labels(
    tiny_refused: Refused, tiny_model: Path, command: str
) -> None:
    said = tiny_refused(command, "--model", tiny_model, *PROMPT, code=2)
    assert "Missing option '--labels', for example --labels positive,negative." in said


@pytest.mark.parametrize("command", ["build", "inspect"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("none/at/all", "none/at/all does not exist; --model takes a directory"),
        ("n" * 300, "does not exist; --model takes a directory"),
        ("", "the model's name is empty; --model takes a directory"),
    ],
)
def test_no_model_and_no_labels(
    tiny_refused: Refused, command: str, model: str, message: str
) -> None:
    """It might have been a fine-tuned classifier, which needs no labels."""
    assert message in tiny_refused(command, "--model", model)


@pytest.mark.parametrize("command", ["build", "inspect"])
def test_a_system_turn_without_chat(tiny_refused: Refused, command: str) -> None:
    said = tiny_refused(command, *LABELS, *PROMPT, "--system", "Be brief.", code=2)
    assert "--system is the system turn of --chat; give both." in said


def test_chat_without_a_template(tiny_refused: Refused, tiny_model: Path) -> None:
    command = ("build", "--model", tiny_model, *LABELS, *PROMPT, "--chat", "-o", "out")
    assert "has no chat template; drop --chat" in tiny_refused(*command)


def test_an_empty_model_beside_others(
    tiny_refused: Refused, tiny_bundle: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("model = 'a/b'\nprompt = '{text}'\nlabels = ['a', 'b']", encoding="utf-8")
    assert "name is empty" in tiny_refused("build", "--recipe", recipe, "--model", "")
    assert "name is empty" in tiny_refused("verify", tiny_bundle, "--model", "")


def test_a_revision_of_a_directory(tiny_refused: Refused, tiny_model: Path) -> None:
    message = "is a directory; a revision belongs to a hub id"
    assert message in tiny_refused("build", *LABELS, "--revision", "v1")
    command = ("inspect", "--model", tiny_model, *LABELS, *PROMPT, "--revision", "v1")
    assert message in tiny_refused(*command)


def test_an_output_that_exists(tiny_refused: Refused, tiny_bundle_copy: Path) -> None:
    before = tiny.snapshot(tiny_bundle_copy)
    said = tiny_refused("build", *LABELS, "-o", tiny_bundle_copy)
    assert "bundle exists; give --force to replace it" in said
    assert tiny.snapshot(tiny_bundle_copy) == before


def test_the_old_bundle_survives_a_failed_build(
    tiny_refused: Refused, tiny_copy: Path, tiny_bundle_copy: Path
) -> None:
    before = tiny.snapshot(tiny_bundle_copy)
    _truncate(tiny_copy)
    command = ("build", "--model", tiny_copy, *LABELS, *PROMPT, "-o", tiny_bundle_copy, "--force")
    assert "is truncated or damaged" in tiny_refused(*command)
    assert tiny.snapshot(tiny_bundle_copy) == before


def test_force_does_not_replace_what_is_no_bundle(tiny_refused: Refused, tiny_copy: Path) -> None:
    before = tiny.snapshot(tiny_copy)
    said = tiny_refused("build", *LABELS, "-o", tiny_copy, "--force")
    assert "is not a bundle, so --force does not replace it" in said
    assert tiny.snapshot(tiny_copy) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "is not a TOML file"),
        ("labels = [1, 2]", "labels is [1, 2], it has to be a list of strings"),
        ("modell = 'x'", "unknown key 'modell'"),
        ("labels = ['a', 'b']", "model missing; a recipe names model, prompt and labels"),
        ("model = 'a/b'\nchat = 'no'", "chat is 'no', it has to be true or false"),
        ("model = 'a/b'\nsystem = 'x'", "a system turn is given without --chat"),
    ],
)
def test_wrong_recipes(tiny_refused: Refused, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert message in tiny_refused("build", "--recipe", tmp_path / "recipe.toml", "-o", "out")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "t.jsonl, line 2: "),
        ("t.txt", "", "holds no text"),
        ("t.csv", "text,label\na,mixed\n", "labelled mixed, the bundle's labels are positive"),
        ("t.pdf", "a", 'extension ".pdf"'),
    ],
)
def test_wrong_texts(
    tiny_refused: Refused, tiny_bundle: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert message in tiny_refused("verify", tiny_bundle, "--texts", tmp_path / name)


def test_no_bundle(tiny_refused: Refused, tiny_model: Path, tmp_path: Path) -> None:
    assert "does not exist" in tiny_refused("verify", tmp_path / "none")
    assert "is not a bundle: it has no trimexport.json" in tiny_refused("verify", tiny_model)
    assert "Missing argument 'BUNDLE'" in tiny_refused("verify", code=2)


def test_an_altered_bundle(tiny_refused: Refused, tiny_bundle_copy: Path) -> None:
    path = tiny_bundle_copy / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("0", "1", 1), encoding="utf-8")
    assert "was altered" in tiny_refused("verify", tiny_bundle_copy)
