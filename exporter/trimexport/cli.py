"""`trimexport`: build bundles, verify them, inspect what would be cut.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 an
expected failure, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click

from . import __version__
from .console import Commands, ConsoleProgress
from .errors import SpecError
from .prompt import unescape
from .spec import PRECISIONS, TRUNCATE, BuildSpec, parse_labels, parse_verbalizers, read_recipe

_MODEL = click.option(
    "--model", help="Directory or hub id of the model.  [default: the gemma-mini that ships]"
)
_REVISION = click.option("--revision", help="Branch, tag or commit of a hub id.")
_LABELS = click.option("--labels", help="Labels, separated by commas, in the logits' order.")
_PROMPT = click.option("--prompt", help=r"Template with one {text}; \n is a line break.")
_PROMPT_FILE = click.option(
    "--prompt-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The template as a file, taken as it is but for a line break at its very end.",
)
_VERBALIZE = click.option(
    "--verbalize",
    multiple=True,
    metavar="LABEL=WORD[,WORD]",
    help="Words that stand for a label instead of its own name.",
)
_TEXTS = click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts to compare on: .txt, .csv or .jsonl; a column `label` adds accuracies.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimexport")
def main() -> None:
    """Compile text classifiers out of decoder language models.

    \b
    Example:
      trimexport build --labels positive,negative -o build/sentiment
    """


@main.command()
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file that names the build; options given beside it take precedence.",
)
@_MODEL
@_REVISION
@_LABELS
@_PROMPT
@_PROMPT_FILE
@_VERBALIZE
@click.option(
    "--precision", help=f"Variants, the default one first: {', '.join(PRECISIONS)}.  [default: fp32]"
)
@click.option(
    "--max-tokens", type=int, help="Most tokens of prompt and text.  [default: the model's context]"
)
@click.option(
    "--truncate", type=click.Choice(TRUNCATE), help="Which end of a longer text is cut off."
)
@_TEXTS
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the bundle.  [default: build/ and the labels]",
)
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@_JSON
def build(
    recipe: Path | None,
    model: str | None,
    revision: str | None,
    labels: str | None,
    prompt: str | None,
    prompt_file: Path | None,
    verbalize: tuple[str, ...],
    precision: str | None,
    max_tokens: int | None,
    truncate: str | None,
    texts: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    r"""Build a bundle and prove that it answers as the untrimmed model does.

    \b
    Example:
      trimexport build --model google/gemma-2b --labels positive,negative \
          --prompt "Review: {text}\nSentiment:" -o build/sentiment
      trimexport build --recipe models/sst2-gemma-2b.toml -o build/sst2
    """
    from . import report
    from .pipeline import build as run
    from .texts import read_texts

    progress = ConsoleProgress()
    spec = _spec(recipe, model, revision, labels, prompt, prompt_file, verbalize, progress)
    if precision is not None:
        spec = replace(spec, precision=parse_labels(precision))
    if max_tokens is not None:
        spec = replace(spec, max_tokens=max_tokens)
    if truncate is not None:
        spec = replace(spec, truncate=truncate)
    target = output or Path("build") / "-".join(spec.labels).replace("/", "_")
    sample = None if texts is None else read_texts(texts)
    built = run(spec, target, force=force, sample=sample, progress=progress)
    if as_json:
        found = {"bundle": str(target), **report.as_dict(built.report)}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(report.table(built.report))
    size = sum(file.bytes for file in built.manifest.files)
    click.echo(f"\n{target}: {size / 1e6:,.1f} MB, try: trimexport-run classify {target} TEXT")


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@_TEXTS
@click.option("--model", help="Where the checkpoint is now, if it has moved since the build.")
@_JSON
def verify(bundle: Path, texts: Path | None, model: str | None, as_json: bool) -> None:
    """Compare every variant of BUNDLE with the untrimmed PyTorch model.

    Prints a table and writes reports/parity.html into the bundle. Exits 1 if a variant is outside
    its tolerance, naming the texts.

    \b
    Example:
      trimexport verify build/sentiment --texts texts.txt
    """
    from . import report
    from .parity import require
    from .texts import read_texts
    from .verification import verify as run

    sample = None if texts is None else read_texts(texts)
    found = run(bundle, sample=sample, model=model, progress=ConsoleProgress())
    if as_json:
        click.echo(json.dumps(report.as_dict(found), indent=2, ensure_ascii=False))
    else:
        click.echo(report.table(found))
    require(found)


@main.command()
@_MODEL
@_REVISION
@_LABELS
@_PROMPT
@_PROMPT_FILE
@_VERBALIZE
@_JSON
def inspect(
    model: str | None,
    revision: str | None,
    labels: str | None,
    prompt: str | None,
    prompt_file: Path | None,
    verbalize: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what would be cut: layers, parameters and bytes, before and after.

    \b
    Example:
      trimexport inspect --model models/gemma-mini --labels positive,negative
    """
    from .pipeline import plan
    from .inspection import inspect_plan
    from .report import inspection_table

    progress = ConsoleProgress()
    spec = _spec(None, model, revision, labels, prompt, prompt_file, verbalize, progress)
    planned = plan(spec)
    for line in planned.verbalizer.notes:
        progress.say(line)
    found = inspect_plan(planned)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo(inspection_table(found, planned))


def _spec(
    recipe: Path | None,
    model: str | None,
    revision: str | None,
    labels: str | None,
    prompt: str | None,
    prompt_file: Path | None,
    verbalize: tuple[str, ...],
    progress: ConsoleProgress,
) -> BuildSpec:
    """The spec that the options name, with what is not given filled in."""
    if prompt is not None and prompt_file is not None:
        raise click.UsageError("Give --prompt or --prompt-file, not both.")
    template = None if prompt is None else unescape(prompt)
    if prompt_file is not None:
        template = _read_prompt(prompt_file)
    words = parse_verbalizers(verbalize)
    if recipe is not None:
        base = read_recipe(recipe)
        return replace(
            base,
            model=model or base.model,
            revision=revision or base.revision,
            labels=parse_labels(labels) if labels else base.labels,
            prompt=base.prompt if template is None else template,
            verbalizers={**base.verbalizers, **words},
        )
    if labels is None:
        raise click.UsageError("Missing option '--labels', for example --labels positive,negative.")
    return _filled(model, revision, parse_labels(labels), template, words, progress)


def _filled(
    model: str | None,
    revision: str | None,
    labels: tuple[str, ...],
    template: str | None,
    words: dict[str, tuple[str, ...]],
    progress: ConsoleProgress,
) -> BuildSpec:
    """Take the checkpoint that ships where no model is named, and its card's prompt for the
    labels where no prompt is; say what was taken in one line."""
    from .shipped import NAME, prompt_for, shipped_checkpoint
    from .verbalizer import check_labels

    check_labels(labels)
    directory = shipped_checkpoint() if model is None else Path(model)
    chosen = template if template is not None else prompt_for(directory, labels)
    if model is None or template is None:
        named = f"the {NAME} that ships" if model is None else str(directory)
        progress.say(f"model: {named}; prompt: {json.dumps(chosen, ensure_ascii=False)}")
    return BuildSpec(
        model=model or str(directory),
        revision=revision,
        labels=labels,
        prompt=chosen,
        verbalizers=words,
    )


def _read_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the prompt file {path} cannot be read: {error}") from None
