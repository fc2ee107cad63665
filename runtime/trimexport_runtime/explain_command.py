"""`trimexport-run explain`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .backends import DEFAULT
from .explain import Explanation, Part, explain
from .progress import prepare_stdout
from .records import load
from .render import answer_cells, prediction_dict, visible
from .score import Score

SHOWN = 10  # words in the table
STRONG = 0.25  # log-odds from which on a word is coloured


@click.command("explain")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--variant", help="Which variant of the bundle to run.  [default: the fastest]")
def explain_text(bundle: Path, text: str, as_json: bool, variant: str | None) -> None:
    """Show which words of TEXT move its label, and by how much.

    Each word is left out in turn. Prints the answer, the text with the words that speak for it in
    green and against it in red (on a terminal), and the ten words that matter most: by how much
    each raises the log-odds of the label, and the label's probability without it.

    \b
    Example:
      trimexport-run explain build/sentiment "a gorgeous, witty, seductive movie"
    """
    prepare_stdout(as_json)
    classifier = load(bundle, variant, DEFAULT, None)
    explanation = explain(classifier, text)
    if as_json:
        value = {
            "text": text,
            "prediction": prediction_dict(
                explanation.prediction, classifier.labels, classifier.manifest.score
            ),
            "parts": [
                {**vars(part), "text": text[part.start : part.end]} for part in explanation.parts
            ],
            "variant": classifier.variant.name,
            "provider": classifier.provider,
        }
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(lines(explanation, classifier.manifest.score)))


def lines(explanation: Explanation, score: Score) -> list[str]:
    """The lines that are printed for people. `click.echo` keeps colours on a terminal alone."""
    answer = explanation.prediction
    first = "  ".join(answer_cells(answer, score))
    if answer.truncated:
        first += f"  (of the first {answer.tokens:,} tokens or the last: the text was cut)"
    most = sorted(explanation.parts, key=lambda part: -abs(part.effect))[:SHOWN]
    table = (_line(explanation.text, part, answer.label, score) for part in most)
    return [first, _coloured(explanation), "", *table]


def _coloured(explanation: Explanation) -> str:
    text, pieces, at = explanation.text, [], 0
    for part in explanation.parts:
        pieces.append(visible(text[at : part.start]))
        word = visible(text[part.start : part.end])
        if abs(part.effect) >= STRONG:
            word = click.style(word, fg="green" if part.effect > 0 else "red")
        pieces.append(word)
        at = part.end
    return "".join([*pieces, visible(text[at:])])


def _line(text: str, part: Part, label: str, score: Score) -> str:
    word = visible(text[part.start : part.end])
    word = word if len(word) <= 40 else word[:39] + "…"
    turns = "" if part.label == label else f"; the answer would be {visible(part.label)}"
    share = f"{part.probability:.1%}" if score.sigmoid else f"{part.probability:.4f}"
    return f"{part.effect:+8.2f}  {word}  (without it {share}{turns})"
