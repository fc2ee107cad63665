"""Which words an answer rests on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trimexport_runtime import Classifier, InputError
from trimexport_runtime.cli import main
from trimexport_runtime.explain import MOST_PARTS, explain

TEXT = "  a gorgeous,\twitty \U0001f3ac movie"


def run(*arguments: str | Path, color: bool = False) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)], color=color)


def test_each_word_is_left_out_in_turn(classifier: Classifier) -> None:
    found = explain(classifier, TEXT)
    words = [TEXT[part.start : part.end] for part in found.parts]
    assert words == ["a", "gorgeous,", "witty", "\U0001f3ac", "movie"]
    without = [
        "  gorgeous,\twitty \U0001f3ac movie",
        "  a witty \U0001f3ac movie",
        "  a gorgeous,\t\U0001f3ac movie",
        "  a gorgeous,\twitty movie",
        "  a gorgeous,\twitty \U0001f3ac",
    ]
    whole, *others = classifier.classify([TEXT, *without])
    assert found.prediction == whole
    place = classifier.labels.index(whole.label)

    def odds(share: float) -> float:
        return math.log(share / (1 - share))

    for part, other in zip(found.parts, others, strict=True):
        assert part.probability == pytest.approx(other.probabilities[place], rel=1e-5)
        expected = odds(whole.probability) - odds(other.probabilities[place])
        assert part.effect == pytest.approx(expected, abs=1e-5)
        assert part.label == other.label


def test_a_long_text_is_left_out_in_runs(classifier: Classifier) -> None:
    text = " ".join(f"w{number}" for number in range(1000))
    found = explain(classifier, text)
    assert len(found.parts) <= MOST_PARTS
    covered = " ".join(text[part.start : part.end] for part in found.parts)
    assert covered == text


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_a_text_without_words(classifier: Classifier, bundle: Path, text: str) -> None:
    with pytest.raises(InputError, match="the text has no words"):
        explain(classifier, text)
    result = run(bundle, text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the text has no words, so none can be left out")


def test_for_people_and_for_programs(bundle: Path, classifier: Classifier) -> None:
    found = explain(classifier, TEXT)
    result = run(bundle, TEXT)
    assert result.exit_code == 0, result.output
    first, text, empty, *table = result.stdout.splitlines()
    assert first == f"{found.prediction.label}  {found.prediction.probability:.1%}"
    assert (text, empty) == ("  a gorgeous,\\twitty \U0001f3ac movie", "")
    effects = [float(line.split()[0]) for line in table]
    assert len(effects) == 5
    assert [abs(it) for it in effects] == sorted(map(abs, effects), reverse=True)
    value = json.loads(run(bundle, TEXT, "--json").stdout)
    assert [part["text"] for part in value["parts"]] == TEXT.split()
    assert value["prediction"]["label"] == found.prediction.label
    assert value["variant"] == "fp32"
    assert value["parts"][0]["effect"] == pytest.approx(found.parts[0].effect, abs=1e-5)


def test_colours(sentiment: Path) -> None:
    """gemma-mini: what speaks for the answer is green, what speaks against it red."""
    text = "a gorgeous movie that is never dull"
    shown = run(sentiment, text, color=True).stdout.splitlines()
    assert shown[0].startswith("negative")
    assert "\x1b[31mgorgeous\x1b[0m movie" in shown[1]
    assert "\x1b[32mdull\x1b[0m" in shown[1]
    assert "\x1b[" not in run(sentiment, text).stdout


def test_words_of_one_field_are_left_out(pairs: Path) -> None:
    classifier = Classifier.load(pairs, threads=1)
    found = explain(classifier, ("a movie", "witty jokes"))
    assert (found.field, found.text) == ("document", "witty jokes")
    without = classifier.classify([("a movie", "jokes"), ("a movie", "witty")])
    assert [part.label for part in found.parts] == [it.label for it in without]
    other = explain(classifier, {"query": "a movie", "document": "b"}, "query")
    assert [other.text[part.start : part.end] for part in other.parts] == ["a", "movie"]
    default = explain(classifier, ("a", "b"), "instruction")
    assert default.text == "is it so"
    with pytest.raises(InputError, match="the text of document has no words"):
        explain(classifier, ("a", ""))
    with pytest.raises(InputError, match="has no field 'title'; it has: instruction, query, docu"):
        explain(classifier, ("a", "b"), "title")


def test_a_pair_on_the_command_line(pairs: Path, bundle: Path) -> None:
    result = run(pairs, "--pair", "a movie", "witty jokes", "--field", "query", "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert (value["query"], value["document"]) == ("a movie", "witty jokes")
    assert value["field"] == "query"
    assert [part["text"] for part in value["parts"]] == ["a", "movie"]
    assert "takes 2 together (query, document); give --pair" in run(pairs, "a").stderr
    assert "--pair gives two texts" in run(bundle, "--pair", "a", "b").stderr
    for arguments in ((), ("a", "--pair", "a", "b")):
        assert "Give a TEXT or --pair TEXT TEXT, one of them." in run(bundle, *arguments).stderr
