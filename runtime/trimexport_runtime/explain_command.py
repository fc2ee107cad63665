"""`trimexport-run explain`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .backbone import manifest_of_either
from .backends import DEFAULT
from .explain import Explanation, Part, explain
from .options import TASK
from .progress import prepare_stdout
from .questions import view_of
from .records import Given, command_line, load
from .render import answer_cells, prediction_dict
from .result_keys import texts_dict
from .score import Score
from .visible import visible

SHOWN = 10  # words in the table
STRONG = 0.25  # log-odds from which on a word is coloured


@click.command("explain")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option(
    "--pair",
    nargs=2,
    metavar="TEXT TEXT",
    help="Two texts, for a bundle whose prompt has two fields, in their order.",
)
@click.option("--field", help="The field whose words are left out.  [default: the one that is cut]")
@click.option("--question", help="The question whose answer is explained, where there are several.")
@TASK
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--variant", help="Which variant of the bundle to run.  [default: the fastest]")
def explain_text(
    bundle: Path,
    text: str | None,
    pair: tuple[str, str] | None,
    field: str | None,
    question: str | None,
    task: Path | None,
    as_json: bool,
    variant: str | None,
) -> None:
    """Show which words of TEXT move its label, and by how much; or of a pair of texts, which words
    of one of the two.

    Each word is left out in turn. Prints the answer, the text with the words that speak for it in
    green and against it in red (on a terminal), and the ten words that matter most: by how much
    each raises the log-odds of the label, and the label's probability without it. Of a bundle with
    several questions --question names the one whose answer is explained.

    \b
    Example:
      trimexport-run explain build/sentiment "a gorgeous, witty, seductive movie"
    """
    given = Given(() if text is None else (text,), () if pair is None else (pair,))
    if bool(given.texts) == bool(given.pairs):
        raise click.UsageError("Give a TEXT or --pair TEXT TEXT, one of them.")
    manifest = manifest_of_either(bundle, task)
    view, _ = view_of(manifest, question)
    (record,) = command_line(given, manifest.prompt.places)
    prepare_stdout(as_json)
    classifier = load(bundle, task, variant, DEFAULT, None)
    explanation = explain(classifier, record.text, field, question)
    if as_json:
        value = {
            **texts_dict(manifest.prompt.places, record.text),
            **({"field": explanation.field} if len(manifest.prompt.places) > 1 else {}),
            **({} if question is None else {"question": question}),
            "prediction": prediction_dict(explanation.prediction, view),
            "parts": [
                {**vars(part), "text": explanation.text[part.start : part.end]}
                for part in explanation.parts
            ],
            "variant": classifier.variant.name,
            "provider": classifier.provider,
        }
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(lines(explanation, view.score)))


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
