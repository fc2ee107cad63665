"""Options that several commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import click

MODEL = click.option(
    "--model",
    help="Directory, GGUF file or hub id of the model.  [default: the gemma-mini that ships]",
)
REVISION = click.option("--revision", help="Branch, tag or commit of a hub id.")
ADAPTER = click.option(
    "--adapter",
    metavar="DIR",
    help="An adapter in peft's format, LoRA or a trained prompt: a directory or hub id.",
)
TOKENIZER = click.option(
    "--tokenizer",
    metavar="PLACE",
    help="Directory or file of a tokenizer, instead of the model's own.",
)
MOVED_TOKENIZER = click.option(
    "--tokenizer", metavar="PLACE", help="Where its tokenizer is now, if a named one has moved."
)
MOVED_ADAPTER = click.option(
    "--adapter", metavar="DIR", help="Where its adapter is now, if it has one that has moved."
)
LABELS = click.option(
    "--labels",
    help="Labels, separated by commas, in the logits' order. A fine-tuned classifier has its own.",
)
PROMPT = click.option(
    "--prompt",
    help=r"Template with one {text} or several fields; \n is a line break. A fine-tuned "
    "classifier needs none.",
)
PROMPT_FILE = click.option(
    "--prompt-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The template as a file, taken as it is but for a line break at its very end.",
)
VERBALIZE = click.option(
    "--verbalize",
    multiple=True,
    metavar="LABEL=WORD[,WORD]",
    help="Words that stand for a label instead of its own name.",
)
LABEL_LEAD = click.option(
    "--label-lead",
    metavar="SPACES",
    help="What stands between prompt and label, '' for nothing.  [default: by the prompt's end]",
)
QUESTION = click.option(
    "--question",
    "questions",
    multiple=True,
    metavar='NAME="TEXT"',
    help="A question that stands in the prompt's {question}. Several are answered in one pass, "
    "each with the --labels.",
)
CHAT = click.option(
    "--chat", is_flag=True, help="Make the prompt the user's turn in the model's chat template."
)
SYSTEM = click.option("--system", metavar="TEXT", help="What --chat's system turn says.")
FEW_SHOT = click.option(
    "--few-shot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts with labels (.jsonl, .csv, .parquet), of which examples are written into the "
    "prompt.",
)
SHOTS = click.option("--shots", type=int, help="How many examples of each label.")
SEED = click.option("--seed", type=int, help="Which examples, in which order.  [default: 0]")
SCORE = click.option(
    "--score",
    metavar="KIND",
    help="What the graph returns: a logit for each label (softmax), the first of two less the "
    "second (log-odds), or that of the only label (logit).  [default: softmax]",
)
SCORE_SCALE = click.option(
    "--score-scale", type=float, help="What a single score is multiplied with.  [default: 1]"
)
SCORE_SHIFT = click.option(
    "--score-shift", type=float, help="What is added to it then.  [default: 0]"
)
TRUNCATE = click.option(
    "--truncate",
    metavar="END",
    help="Which end of a longer text is cut off: end or start. Of several fields one is cut: FIELD "
    "or FIELD:start.  [default: end, of the last field without a default]",
)
BACKBONE = click.option(
    "--backbone",
    required=True,
    type=click.Path(path_type=Path),
    help="The directory that `trimexport build --backbone` wrote.",
)
TEXTS = click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts to compare on: .txt, .csv, .jsonl or .parquet, several fields by columns of their "
    "names; a column `label` adds accuracies.",
)
TEXT_COLUMN = click.option("--text-column", help="Where the texts are.  [default: text]")
TASK = click.option(
    "--task",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The task pack to change, where BUNDLE is a backbone.",
)
COLUMNS = click.option(
    "--columns",
    metavar="FIELD=NAME,...",
    help="Where the texts of several fields are.  [default: columns of the fields' names]",
)
LABEL_COLUMN = click.option(
    "--label-column", default="label", help="Where their labels are.  [default: label]"
)


def _prepare_stdout(context: click.Context, option: click.Parameter, as_json: bool) -> bool:
    """Before anything is printed: JSON is UTF-8, and text escapes what a terminal cannot show."""
    from trimexport_runtime.progress import prepare_stdout  # here, so that help stays quick

    prepare_stdout(as_json)
    return as_json


JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object.", callback=_prepare_stdout
)


def names_a_question(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a model and what it is asked."""
    named = (MODEL, REVISION, ADAPTER, TOKENIZER, LABELS, PROMPT, PROMPT_FILE, CHAT, SYSTEM)
    return functools.reduce(lambda inner, option: option(inner), reversed(named), command)


def names_a_classifier(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a model, what it is asked, and its answers."""
    named = (
        QUESTION,
        VERBALIZE,
        LABEL_LEAD,
        SCORE,
        SCORE_SCALE,
        SCORE_SHIFT,
        FEW_SHOT,
        SHOTS,
        SEED,
    )
    inside = functools.reduce(lambda inner, option: option(inner), reversed(named), command)
    return names_a_question(inside)
