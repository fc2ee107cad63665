"""Fine-tuned classifiers from the command line to an answer, transformers the judge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from click.testing import CliRunner, Result
from transformers import pipeline

import families
import tiny
from models import TEXTS, pipeline_logits
from trimexport import BuildSpec, SpecError, build, evaluate
from trimexport.cli import main as exporter
from trimexport_runtime import Classifier, Prediction, read_manifest
from trimexport_runtime.cli import main as runtime

Invoke = Callable[..., Result]
Refused = Callable[..., str]
NAMES = {0: "bad", 1: "fair", 2: "good"}


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with three labels and one layer. Shared: copy it to change it."""
    directory = tmp_path_factory.mktemp("fine-tuned") / "stars"
    return families.make("llama3", directory, classifier=True, layers=1, id2label=NAMES)


def run(*arguments: object) -> Result:
    """A command line of the runtime."""
    return CliRunner().invoke(runtime, [str(it) for it in arguments], prog_name="trimexport-run")


def said_by(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_from_a_checkpoint_to_an_answer(tiny_invoke: Invoke, stars: Path) -> None:
    """Nothing but the model is given: its labels, its name, and the text alone as the prompt."""
    built = tiny_invoke("build", "--model", stars, "--precision", "fp32")
    assert built.exit_code == 0, built.output
    bundle = Path("build") / "stars"
    assert f"\n{bundle}: " in built.stdout
    assert "label mass" not in built.stdout + built.stderr
    assert [path.name for path in Path("build").iterdir()] == ["stars"]

    verified = tiny_invoke("verify", bundle, "--json")
    assert verified.exit_code == 0, verified.output
    report = json.loads(verified.stdout)
    assert report["within_tolerance"] is True
    assert report["label_mass"] is None
    assert report["tokenisation_gap"]["different"] == 0
    assert report["logit_standard_deviation"] >= 0.5

    texts = [text for text in TEXTS if text]
    answered = run("classify", bundle, *texts, "--json")
    assert answered.exit_code == 0, answered.output
    found = [
        [answer["probabilities"][name] for name in NAMES.values()] for answer in said_by(answered)
    ]
    expected = np.exp(pipeline_logits(stars, texts))
    assert np.abs(np.array(found) - expected).max() < 1e-4
    assert len({answer["label"] for answer in said_by(answered)}) > 1

    info = run("info", bundle, "--check")
    assert info.exit_code == 0, info.output
    lines = [line.split(maxsplit=1) for line in info.stdout.splitlines()]
    assert [rest for name, *rest in lines if name == "label"] == [["bad"], ["fair"], ["good"]]
    assert ["source", "stars (LlamaForSequenceClassification)"] in lines
    assert "label mass" not in info.stdout

    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "The fine-tuned text classifier `stars` (LlamaForSequenceClassification)" in card
    assert "| labels | bad, fair, good |" in card
    assert "| prompt | `{text}` |" in card
    for wrong in ("No training was done", "label tokens", "label mass"):
        assert wrong not in card
    manifest = read_manifest(bundle)
    assert manifest.label_mass is None
    assert manifest.pad_token_id == json.loads((bundle / "config.json").read_text())["pad_token_id"]


def test_a_prompt_and_an_end_token_that_is_padding_too(tiny_invoke: Invoke, tmp_path: Path) -> None:
    """The tokenizer ends every string with the token that also pads; transformers reads the answer
    before it. The judge is given the joined string."""
    directory = families.make(
        "mistral", tmp_path / "model", classifier=True, layers=1, id2label=NAMES
    )
    tiny.edit_json(directory / "config.json", lambda it: it.update(pad_token_id=1))
    tiny.edit_json(
        directory / "tokenizer_config.json",
        lambda it: it.update(pad_token="<eos>", add_eos_token=True),
    )

    def end_with_eos(definition: dict[str, Any]) -> None:
        rule = definition["post_processor"]
        rule["single"].append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
        rule["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}

    tiny.edit_json(directory / "tokenizer.json", end_with_eos)
    prompt = "Review: {text}\nIs it good? Answer:"
    shell = prompt.replace("\n", "\\n")
    build = ("build", "--model", directory, "--prompt", shell, "--precision", "fp32")
    built = tiny_invoke(*build, "-o", "out", "--json")
    assert built.exit_code == 0, built.output
    report = json.loads(built.stdout)
    assert report["tokenisation_gap"]["different"] == 0
    assert 1 not in read_manifest(Path("out")).prompt.suffix_ids

    texts = [text for text in TEXTS if text and text[0] != " "]
    answered = run("classify", "out", *texts, "--json")
    assert answered.exit_code == 0, answered.output
    found = [
        [answer["probabilities"][name] for name in NAMES.values()] for answer in said_by(answered)
    ]
    joined = [prompt.replace("{text}", text) for text in texts]
    expected = pipeline_logits(directory, joined)
    assert expected.std(axis=0).mean() >= 0.5, "a model that says nothing proves nothing"
    assert np.abs(np.array(found) - np.exp(expected)).max() < 1e-4
    bare = np.exp(pipeline_logits(directory, texts))
    assert np.abs(np.array(found) - bare).max() > 0.1


def test_inspect_names_the_rows(tiny_invoke: Invoke, stars: Path) -> None:
    done = tiny_invoke("inspect", "--model", stars)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "LlamaForSequenceClassification in" in done.stdout
    assert "prompt: 1 tokens before a text and 0 after it, which leaves 255" in done.stdout
    assert done.stdout.endswith("label bad: row 0\nlabel fair: row 1\nlabel good: row 2\n")
    assert json.loads(tiny_invoke("inspect", "--model", stars, "--json").stdout)["tied"] is False


def test_numbered_labels_are_named(tiny_invoke: Invoke, stars: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(stars, tmp_path / "numbered")
    own = {str(index): f"LABEL_{index}" for index in range(3)}
    tiny.edit_json(directory / "config.json", lambda it: it.update(id2label=own))
    done = tiny_invoke("inspect", "--model", directory, "--labels", "bad,fair,good")
    assert done.stdout.endswith("label bad: row 0\nlabel fair: row 1\nlabel good: row 2\n")
    assert done.stderr == ""
    done = tiny_invoke("inspect", "--model", directory)
    assert "label LABEL_1: row 1\n" in done.stdout


@pytest.mark.parametrize("command", [("build", "-o", "out"), ("inspect",)])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "good,fair,bad"), "has 3 labels of its own, bad, fair, good; drop --labels"),
        (("--labels", "bad,good"), "has 3 labels of its own"),
        (("--labels", "one"), "has 3 labels of its own"),
        (("--verbalize", "bad=awful"), "whose labels need no words; drop --verbalize"),
        (("--prompt", "no place"), "has no field: write {text} where the text"),
        (("--chat",), "was not trained to answer in a chat; drop --chat"),
    ],
)
def test_what_does_not_go_with_a_fine_tuned_classifier(
    tiny_refused: Refused,
    stars: Path,
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    first, *rest = command
    assert message in tiny_refused(first, "--model", stars, *arguments, *rest)


def test_texts_with_answers_that_are_no_labels(
    tiny_refused: Refused, stars: Path, tmp_path: Path
) -> None:
    """Known only once the model has said its labels; before anything is traced all the same."""
    path = tmp_path / "texts.csv"
    path.write_text("text,label\na,bad\nb,awful\n", encoding="utf-8")
    said = tiny_refused("build", "--model", stars, "--texts", path, "-o", "out")
    assert "labelled awful, the bundle's labels are bad, fair, good" in said


def test_what_it_would_say(tiny_refused: Refused, stars: Path) -> None:
    said = tiny_refused("inspect", "--model", stars, "--text", "a")
    assert "is a fine-tuned classifier, which says nothing but its labels; drop --text" in said


def scores_of(directory: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """What transformers' own pipeline says of each label, [texts, labels]."""
    classify = pipeline("text-classification", model=str(directory), top_k=None)
    names = classify.model.config.id2label
    rows = [{it["label"]: it["score"] for it in classify([text])[0]} for text in texts]
    return np.array([[row[names[at]] for at in sorted(names)] for row in rows])


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama3", {"num_labels": 1}),
        ("gpt2", {"num_labels": 1, "problem_type": "regression", "pad_token_id": 0}),
        ("llama3", {"id2label": NAMES, "problem_type": "multi_label_classification"}),
    ],
    ids=["sigmoid", "regression", "multi-label"],
)
def test_heads_of_other_kinds(family: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """As transformers' pipeline gives them; in int8 the same bits in any batch."""
    directory = families.make(family, tmp_path / "model", classifier=True, layers=1, **kind)
    spec = BuildSpec(model=str(directory), precision=("fp32", "int8"))
    built = build(spec, tmp_path / "bundle")
    assert built.report.reference_accuracy is None
    texts = [text for text in TEXTS if text]
    expected = scores_of(directory, texts)
    assert expected.std() > 0.1, "a model that says nothing proves nothing"
    for variant, near in (("fp32", 1e-4), ("int8", 0.1 * max(1.0, float(expected.std())))):
        classifier = Classifier.load(built.directory, variant=variant)
        found = classifier.classify(texts)
        shares = np.array([it.probabilities for it in found])
        assert np.abs(shares - expected).max() < near, variant
        together = classifier.logits(texts)
        for text, row in zip(texts, together, strict=True):
            assert np.array_equal(classifier.logits([text])[0], row)
        assert np.array_equal(classifier.logits(texts[::-1]), together[::-1])
    if "id2label" in kind:
        check_independent(built.directory, found)
    else:
        assert [it.score for it in found] == pytest.approx(together[:, 0].tolist())
        cells = run("classify", built.directory, texts[0]).stdout.split("\t")
        assert len(cells) == (3 if "problem_type" in kind else 4)
    config = json.loads((built.directory / "config.json").read_text())
    assert config.get("problem_type") == kind.get("problem_type")
    assert len(config["id2label"]) == together.shape[1]


PAIRS = [("a fine film", "it was good"), ("good", "a bad one"), ("well", "I"), ("a", "b c d e")]


def with_separators(directory: Path) -> Path:
    """Let the tokenizer write its end token between and behind the texts of a pair."""

    def change(definition: dict[str, Any]) -> None:
        rule = definition["post_processor"]
        end = {"SpecialToken": {"id": "<eos>", "type_id": 0}}
        rule["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}
        rule["pair"] = [*rule["single"], end, {"Sequence": {"id": "B", "type_id": 0}}, end]

    tiny.edit_json(directory / "tokenizer.json", change)
    return directory


@pytest.mark.parametrize("change", [lambda it: it, with_separators], ids=["plain", "separators"])
def test_a_head_that_was_trained_on_pairs(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    """As transformers' pipeline gives it for `text` and `text_pair`; the separator counts."""
    made = families.make("mistral", tmp_path / "model", classifier=True, layers=1, num_labels=1)
    directory = change(made)
    spec = BuildSpec(model=str(directory), prompt="{text}{text_pair}", precision=("fp32",))
    built = build(spec, tmp_path / "bundle")
    assert built.report.gap.different == 0
    classify = pipeline("text-classification", model=str(directory))
    expected = [classify({"text": a, "text_pair": b})["score"] for a, b in PAIRS]
    classifier = Classifier.load(built.directory)
    found = [it.probability for it in classifier.classify(PAIRS)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.std(expected) > 0.01, "a model that says nothing proves nothing"
    ids = transformers.AutoTokenizer.from_pretrained(directory)("a film", "good")["input_ids"]
    prompt = classifier.manifest.prompt
    own = classifier.encode(("a film", "good")).ids.tolist()
    assert [*prompt.prefix_ids, *own, *prompt.suffix_ids] == ids


def check_independent(bundle: Path, found: list[Prediction]) -> None:
    """Labels from the threshold on, in JSON, for people, and judged by texts with several."""
    texts = [text for text in TEXTS if text]
    names = tuple(NAMES.values())
    for prediction in found:
        pairs = zip(names, prediction.probabilities, strict=True)
        assert prediction.labels == tuple(name for name, share in pairs if share >= 0.5)
        assert prediction.probability == max(prediction.probabilities)
    answered = said_by(run("classify", bundle, *texts, "--variant", "int8", "--json"))
    assert [tuple(it["labels"]) for it in answered] == [it.labels for it in found]
    assert all("score" not in it for it in answered)
    shown = run("classify", bundle, *texts, "--variant", "int8").stdout.splitlines()
    assert [it.split("\t")[0] for it in shown] == [", ".join(it.labels) or "-" for it in found]
    data = bundle.parent / "gold.jsonl"
    gold = [{"text": text, "label": list(it.labels)} for text, it in zip(texts, found, strict=True)]
    data.write_text("".join(json.dumps(row) + "\n" for row in gold), encoding="utf-8")
    command = ("eval", str(bundle), str(data), "--variant", "int8")
    for more in ((), ("--threshold", "0.5"), ("--threshold", "auto")):
        done = CliRunner().invoke(exporter, [*command, *more, "--json"])
        assert done.exit_code == 0, done.output
        (scores,) = json.loads(done.stdout)["variants"]
        assert (scores["exact"], scores["micro_f1"], scores["macro_f1"]) == (1.0, 1.0, 1.0)
        assert (scores["best_threshold"] is None) == ("auto" not in more)
    shown = CliRunner().invoke(exporter, [*command, "--threshold", "auto"]).stdout.splitlines()
    assert "the best on these texts" in shown[1]
    assert read_manifest(bundle).score.threshold == 0.5, "nothing was saved"
    saving = ("--threshold", "0.25", "--save")
    done = CliRunner().invoke(exporter, [*command, *saving])
    assert (done.exit_code, read_manifest(bundle).score.threshold) == (0, 0.25)
    lower = Classifier.load(bundle, variant="int8").classify(texts)
    pairs = zip(names, lower[0].probabilities, strict=True)
    assert lower[0].labels == tuple(name for name, share in pairs if share >= 0.25)
    done = CliRunner().invoke(exporter, [*command, "--save"])
    assert "--save writes a threshold; give one, or auto" in done.output
    unread = bundle.parent / "no-texts.jsonl"  # what is asked is looked at before any text
    unread.touch()
    every = ("--variant", "all", "--threshold", "0.5", "--save")
    done = CliRunner().invoke(exporter, ["eval", str(bundle), str(unread), *every])
    assert "--save writes the threshold of one variant" in done.output
    done = CliRunner().invoke(exporter, [*command, "--threshold", "often"])
    assert "--threshold is 'often'; give a probability from 0 to 1, or auto" in done.output
    done = CliRunner().invoke(exporter, [*command, "--threshold", "2"])
    assert "the threshold is 2; give a probability from 0 to 1, or auto" in done.output
    done = CliRunner().invoke(exporter, [*command, "--abstain-below", "0.5"])
    assert "--abstain-below is of labels of which one is true; leave it out" in done.output
    with pytest.raises(SpecError, match="are independent, and a text may have several"):
        evaluate(bundle, data)


CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + message['role'] + '\\n' + message['content'] + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def test_inspect_counts_the_tokens_of_a_chat(
    tiny_invoke: Invoke, tiny_copy: Path, tmp_path: Path
) -> None:
    """The template's turns are part of the prompt, the system turn too; so with a recipe."""
    tiny.edit_json(tiny_copy / "tokenizer_config.json", lambda it: it.update(chat_template=CHAT))
    labels = ("--labels", "positive,negative")
    command = ("inspect", "--model", tiny_copy, *labels, "--prompt", "Good? {text}")

    def around(*more: str) -> tuple[int, int]:
        done = tiny_invoke(*command, *more)
        assert done.exit_code == 0, done.output
        words = done.stdout.partition("\nprompt: ")[2].split()
        assert words[1:5] == ["tokens", "before", "a", "text"]
        return int(words[0]), int(words[6])

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    user, model = "<bos><start_of_turn>user\nGood?", "<end_of_turn>\n<start_of_turn>model\n"
    system = "<start_of_turn>system\nBe brief.<end_of_turn>\n"
    assert around() == (count("<bos>Good?"), 0)
    assert around("--chat") == (count(user), count(model))
    assert around("--chat", "--system", "Be brief.") == (count(user) + count(system), count(model))
