"""Questions of a spec, a recipe and the command line: what is asked, what is refused, and a fitted
head in the place of one question's words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import families
import tiny
from trimexport import BuildSpec, QuestionSpec, SpecError, Texts, plan, read_recipe
from trimexport.bench.pytorch import Untrimmed
from trimexport.bundle.part_by_part import feed_of
from trimexport.bundle.question_heads import (
    put_question_head,
    read_question_head,
    tree_of_bundle,
)
from trimexport.bundle.written_graph import add_bias, load_graph
from trimexport.bundle.written_head import Head, give_hidden
from trimexport.cli import main
from trimexport.errors import ExportError
from trimexport.inspection.next_words import next_words, next_words_lines
from trimexport.inspection.sizes import inspect_plan
from trimexport.inspection.table import inspection_table
from trimexport.parity.decisions import decisions_of
from trimexport.parity.render import table
from trimexport.parity.warnings import doubts, warnings
from trimexport.progress import Silent
from trimexport.prompt.question_tree import Ending, make_question_tree
from trimexport.prompt.questions import ask, unasked
from trimexport.prompt.template import parse_template
from trimexport.verification import verify
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.questions import slices
from trimexport_runtime.tokenize import TextEncoder

PROMPT = "Mail: {text}\n{question}\nAnswer:"
SPAM = QuestionSpec("spam", "Does it advertise?")
MOOD = QuestionSpec("mood", "How is it?", ("bad", "fair", "good"))


def asked(**options: object) -> BuildSpec:
    spec = BuildSpec(
        model=str(tiny.tiny_model()),
        labels=("no", "yes"),
        prompt=PROMPT,
        precision=("fp32",),
        questions=(SPAM, MOOD),
    )
    return replace(spec, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"questions": (SPAM, MOOD, SPAM)},
            'question "spam" is given 2 times; give each a name of its own',
        ),
        (
            {"prompt": "Mail: {text}\nAnswer:"},
            "there are questions, and the prompt 'Mail: {text}\\nAnswer:' has no place for them; "
            r"write {question} behind the text, such as {text}\n\n{question}\nAnswer:",
        ),
        (
            {"prompt": "{question}\nAnswer:"},
            "the prompt '{question}\\nAnswer:' has no field for the text that the questions are "
            "about; write one before {question}, such as {text}",
        ),
        (
            {"prompt": "{title=none} {question}\nAnswer:"},
            "has no field for the text that the questions are about",
        ),
        (
            {"prompt": "{question}\nMail: {text}\nAnswer:"},
            "{question} stands before {text} in the prompt, so each question would read the text "
            "in a pass of its own; write {question} behind every text",
        ),
        (
            {"prompt": "{text} {question=What is it?}"},
            "gives {question} a default, and every question has its text; write {question} alone",
        ),
        ({"prompt": None}, "there are questions and no prompt; give one in which {question}"),
        (
            {"questions": (replace(SPAM, labels=("yes",)), MOOD)},
            'question "spam": there is 1 label ("yes"), a classifier needs two at least',
        ),
        ({"labels": ()}, 'question "spam": there is no label ()'),
        (
            {"verbalizers": {"maybe": ("perhaps",)}},
            '--verbalize names "maybe", which is no question\'s label; the labels are bad, fair, '
            "good, no, yes",
        ),
        (
            {"questions": (SPAM, replace(MOOD, verbalizers={"great": ("good",)}))},
            'question "mood": --verbalize names "great", which is no label',
        ),
        (
            {"score": "log-odds"},
            "the score is log-odds, and the answer to each of several questions is a softmax over "
            "its labels; drop the score, or build a bundle for one question without {question}",
        ),
        (
            {"few_shot": Path("some.jsonl"), "shots": 1},
            "--few-shot writes examples of one question, and there are several; drop it and write "
            "the examples into the prompt",
        ),
        (
            {"truncate": "question"},
            'truncate names "question", and the prompt has no field "question"; give end, start, '
            "or one of text",
        ),
        (
            {"max_tokens": 16},
            "the prompt, with the longest of its questions, takes 17 of 16 tokens and leaves none "
            "for a text; shorten it or raise --max-tokens",
        ),
    ],
)
def test_what_cannot_be_asked(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        plan(asked(**options))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (" spam", "Is it?", "the name ' spam' of a question is empty or has spaces around it"),
        ("", "Is it?", "give it one such as toxic"),
        ("a: b", "Is it?", "the name 'a: b' of a question has ':' in it"),
        ("a\tb", "Is it?", "has '\\t' in it, which stands beside names elsewhere; write it with"),
        ("spam", "  ", "the text '  ' of question \"spam\" is empty or has white space around it"),
        ("spam", "Is it?\n", "write the white space into the prompt, around {question}"),
    ],
)
def test_questions_that_are_none(name: str, text: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        QuestionSpec(name, text)
    assert message in str(refused.value)
    with pytest.raises(SpecError, match='label "a" of question "q" is given no words; name one'):
        QuestionSpec("q", "Is it?", verbalizers={"a": ()})


def test_a_fine_tuned_classifier_reads_no_question(tmp_path: Path) -> None:
    directory = families.make("gpt2", tmp_path, classifier=True, layers=1)
    with pytest.raises(SpecError, match="which answers what it was trained for and reads no quest"):
        plan(asked(model=str(directory)))


def test_more_tokens_than_a_graph_should_have() -> None:
    endings = [Ending((1, *([n] * 300)), ((7,), (8,))) for n in range(2, 20)]
    with pytest.raises(SpecError, match="the questions are 5,400 tokens behind each text"):
        make_question_tree(endings)


def test_a_field_of_that_name_without_questions() -> None:
    """It is one like others, as in prompts for pairs of a question and a text."""
    found = plan(asked(questions=(), prompt="{question}\nText: {text}\nAnswer:"))
    assert [field.name for field in found.prompt.fields] == ["question", "text"]
    assert (found.asked, found.questions, found.labels) == ((), None, ("no", "yes"))


IDS = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


@given(st.lists(IDS, min_size=1, max_size=5))
def test_the_tree_of_questions(suffixes: list[tuple[int, ...]]) -> None:
    """Each question's answer stands behind its own suffix, whatever the order of the questions."""
    endings = [Ending(suffix, ((7,), (8,))) for suffix in suffixes]
    tree = make_question_tree(endings)
    for ending, answer in zip(endings, tree.answers, strict=True):
        place = tree.trie.branches[answer]
        assert (*tree.trunk, *tree.trie.tokens_to(place)) == ending.suffix_ids
    assert all(suffix[: len(tree.trunk)] == tree.trunk for suffix in suffixes)
    turned = make_question_tree(endings[::-1])
    assert (turned.trunk, turned.trie.token_ids) == (tree.trunk, tree.trie.token_ids)
    assert turned.trie.branches == tree.trie.branches[::-1]


def test_words_that_are_read_whole_and_others() -> None:
    """Branches, rows and paths follow the questions; whole ones alone are normalised."""
    whole = Ending((5, 1), ((7, 1), (7, 2), (8,)))
    tree = make_question_tree([Ending((5, 1), ((9,), (7,))), whole, Ending((5,), ((3,), (2,)))])
    assert (tree.trunk, tree.trie.token_ids, tree.trie.parents) == ((5,), (1, 7), (-1, 0))
    assert (tree.answers, tree.trie.branches) == ((0, 1, 3), (0, 0, 1, -1))
    assert tree.trie.rows == ((7, 9), (7, 8), (1, 2), (2, 3))
    assert tree.trie.paths == ((1,), (0,), (2, 4), (2, 5), (3,), (7,), (6,))
    assert tree.trie.unscaled == {0, 3}


def test_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'model = "m"\nlabels = ["no", "yes"]\nprompt = "{text} {question}"\n'
        '[questions]\nspam = "Does it advertise?"\n'
        '[questions.mood]\ntext = "How is it?"\nlabels = ["bad", "good"]\n'
        'verbalizers = {bad = "dull", good = ["fine", "great"]}\n'
    )
    words = {"bad": ("dull",), "good": ("fine", "great")}
    assert read_recipe(recipe).questions == (
        SPAM,
        QuestionSpec("mood", "How is it?", ("bad", "good"), words),
    )
    recipe.write_text('model = "m"\n[questions.mood]\nlabels = ["bad", "good"]\n')
    with pytest.raises(SpecError, match=r"questions is .*, it has to be a table of questions such"):
        read_recipe(recipe)


def test_the_command_line(tiny_model: Path, tmp_path: Path) -> None:
    options = [
        "--model",
        tiny_model,
        "--labels",
        "no,yes",
        "--prompt",
        r"Mail: {text}\n{question}:",
    ]
    own = ["--question", "spam=Does it\\n advertise?", "--question", "dull=Is it dull?"]
    found = CliRunner().invoke(main, ["inspect", *map(str, options), *own, "--json"])
    assert found.exit_code == 0, found.output
    assert "2 questions in one pass: 15 tokens behind each text" in found.stderr
    assert json.loads(found.stdout)["head_after"] == 4 * 32
    for bad in ("spam", "=Is it?", "spam= "):
        refused = CliRunner().invoke(main, ["inspect", *map(str, options), "--question", bad])
        assert refused.exit_code == 1
        assert f'--question {bad!r} has no name and text; write name="text"' in refused.stderr


def test_inspection() -> None:
    planned = plan(asked(questions=(SPAM, replace(MOOD, labels=("very bad", "very good")))))
    shown = inspection_table(inspect_plan(planned), planned)
    assert "label spam: no: ▁no (" in shown
    assert "label mood: very good: ▁very (" in shown
    first, second = next_words(planned, ["a fine film"])
    assert (first.question, second.question) == ("spam", "mood")
    assert next_words_lines(first)[0].startswith('spam, "a fine film": label mass ')
    assert first.tokens != second.tokens


def test_a_template_with_a_question_and_back() -> None:
    template = parse_template("{{a}} {text}\n\n{question}\nAnswer:")
    written = ask(template, "Is it {so}?")
    assert (written.suffix, written.source) == (
        "\n\nIs it {so}?\nAnswer:",
        "{{a}} {text}\n\nIs it {{so}}?\nAnswer:",
    )
    assert unasked(written, template, "Is it {so}?").source == template.source
    other = parse_template(written.source.replace("\n\nIs", " \nIs"))
    assert unasked(other, template, "Is it {so}?").source == "{{a}} {text} \n{question}\nAnswer:"


def test_what_is_said_of_the_bundle(questions: Path) -> None:
    """Decisions are a text's to each question; a flip names it."""
    manifest, report = read_manifest(questions), verify(questions, sample=Texts(tiny.TEXTS))
    (variant,) = report.variants
    assert variant.probabilities.shape == (2 * len(tiny.TEXTS), 3)
    assert np.allclose(variant.probabilities.sum(1), 1)
    each = decisions_of(manifest)
    assert each.place(3) == (1, ("mood: bad", "mood: fair", "mood: good"))
    logits = Classifier.load(questions).logits(tiny.TEXTS).astype(np.float64)
    turned = logits.copy()
    turned[2, slices(manifest)[0]] *= -1
    assert np.flatnonzero(each.some_differ(logits, turned)).tolist() == [2]
    assert report.gap.compared == 2 * len(tiny.TEXTS)
    assert list(report.gap.by_question) == ["spam", "mood"]
    card = (questions / "README.md").read_text(encoding="utf-8")
    assert "\n# spam, mood\n" in card
    assert "a softmax is of one question's alone" in card
    assert "| question spam | Does it advertise? |" in card
    assert "2 questions, which the untrimmed model was asked one by one" in card


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_what_is_warned_of(questions: Path) -> None:
    """Of labels that texts have, of the question with the largest gap, and of texts that are all
    answered alike."""
    said = Said()
    gold = ("no",) * len(tiny.TEXTS)
    report = verify(questions, sample=Texts(tiny.TEXTS, gold=gold), progress=said)
    assert any("the texts have one label each and the bundle several" in it for it in said.lines)
    assert report.reference_accuracy is None
    gap = replace(report.gap, different=4, by_question={"spam": 0.1, "mood": 0.7}, proposal=None)
    lines = warnings(replace(report, gap=gap))
    assert any('most of them (70.0%) with question "mood"' in line for line in lines)
    assert "4 of 10 texts with questions (40.00%) are tokenised differently" in table(
        replace(report, gap=gap)
    )

    shares = np.tile([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]], (len(tiny.TEXTS), 1))
    (variant,) = report.variants
    judged = replace(variant, tolerance=replace(variant.tolerance, margin_error=0.1))
    alike = replace(report, reference_probabilities=shares, variants=(judged,))
    assert "answers every question with one label for nearly all texts" in str(doubts(alike))
    shares[1::4] = [[0.1, 0.2, 0.7]]
    assert "answers every question" not in str(doubts(alike))


def test_pytorch_is_asked_one_by_one(questions: Path) -> None:
    manifest, logits = read_manifest(questions), Classifier.load(questions).logits(tiny.TEXTS)
    untrimmed = Untrimmed(str(questions), str(tiny.tiny_model()), "float32", None)
    best = [own.start + logits[:, own].argmax(1) for own in slices(manifest)]
    assert untrimmed.labels(tiny.TEXTS) == [
        "; ".join(manifest.label_names[place] for place in row) for row in zip(*best, strict=True)
    ]


def test_a_fitted_head_of_one_question(questions: Path) -> None:
    """The others' logits keep their bits, and it reads the states at its own answer's place."""
    manifest = read_manifest(questions)
    encoder = TextEncoder.load(questions, manifest)
    feed = feed_of([encoder.encode(text).ids for text in tiny.TEXTS])
    before = Classifier.load(questions).logits(tiny.TEXTS)
    spam, mood = slices(manifest)
    graph = questions / manifest.variants[0].graph
    model, other, head = load_graph(graph), random_head(2, seed=1), random_head(3, seed=2)
    assert read_question_head(model, 1) is None
    put_question_head(model, random_head(3, seed=3), manifest, 1, 2)
    put_question_head(model, head, manifest, 1, 2)  # in its place
    found = read_question_head(model, 1)
    assert found is not None
    assert np.array_equal(found.weight, head.weight)
    logits, states = run(model, graph, feed)
    assert np.array_equal(logits[:, spam], before[:, spam])
    own = states[:, tree_of_bundle(manifest).answers[1]]
    assert np.abs(logits[:, mood] - (own @ head.weight.T + head.bias)).max() < 1e-4

    put_question_head(model, other, manifest, 0, 2)  # besides
    both, _ = run(model, graph, feed)
    assert np.array_equal(both[:, mood], logits[:, mood])
    first = states[:, tree_of_bundle(manifest).answers[0]]
    assert np.abs(both[:, spam] - (first @ other.weight.T + other.bias)).max() < 1e-4
    add_bias(model, [1.0, 0, 0, 0, 0])
    with pytest.raises(ExportError, match="logits without a bias"):
        put_question_head(model, head, manifest, 1, 2)


def random_head(labels: int, seed: int) -> Head:
    rng = np.random.default_rng(seed)
    return Head(
        rng.normal(size=(labels, 32)).astype(np.float32),
        rng.normal(size=labels).astype(np.float32),
    )


def run(
    model: onnx.ModelProto, graph: Path, feed: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """A changed graph's logits, and the hidden states of each text [texts, places, hidden]."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    name = give_hidden(whole)
    options = ort.SessionOptions()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(graph.parent)
    )
    session = ort.InferenceSession(whole.SerializeToString(), options)
    logits, hidden = session.run(["logits", name], feed)
    return logits, hidden.reshape(len(logits), -1, hidden.shape[-1])
