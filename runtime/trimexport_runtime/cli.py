"""`trimexport-run`: classify texts with a bundle, and show what a bundle is.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 an
expected failure (one line says which), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from . import __version__
from .backends import DEFAULT, PROVIDERS
from .batching import windows
from .bundle import read_manifest
from .choice import choose
from .classifier import Classifier, Prediction
from .errors import BundleError, InputError, TrimexportRuntimeError
from .files import BadLine, Line, read_file, read_lines
from .integrity import check_engine, check_files
from .progress import Progress, is_terminal
from .render import Answer, answer_json, answer_line, bad_json, info_json, info_text
from .server.command import serve

_LARGE = 1 << 28  # bytes of a variant whose loading is announced


class _Commands(click.Group):
    """A group whose commands end in one line for every failure that is foreseen."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TrimexportRuntimeError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            ctx.exit(130)
        except OSError as error:  # files are read elsewhere: this is standard output
            _discard_stdout()
            if error.errno == errno.EPIPE:
                ctx.exit(1)
            reason = error.strerror or error
            raise click.ClickException(f"cannot write the results: {reason}") from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimexport-run")
def main() -> None:
    """Run text classifiers that trimexport compiled.

    \b
    Example:
      trimexport-run classify build/sentiment "a gorgeous, witty, seductive movie"
    """


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT ... | -]")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Read texts from a .txt, .csv or .jsonl.",
)
@click.option("--column", help="The column or key of the texts in --file.  [default: text]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--variant", help="Which variant of the bundle to run.  [default: the backend's fastest]"
)
@click.option(
    "--backend",
    type=click.Choice(tuple(PROVIDERS)),
    default=DEFAULT,
    help="What runs it; none stands in for another.  [default: onnxruntime, on the CPU]",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to use.  [default: all cores]")
def classify(
    bundle: Path,
    texts: tuple[str, ...],
    file: Path | None,
    column: str | None,
    as_json: bool,
    variant: str | None,
    backend: str,
    threads: int | None,
) -> None:
    """Classify texts given as arguments, in a file, or one a line on standard input (-).

    Prints label, probability and the shortened text, separated by tabs, in the order of the
    texts. With --json each line has index (the text's place in the input, from 0), line (its line
    in the file), text, label, probability, probabilities, truncated, tokens, and the variant and
    provider that computed it. Lines that cannot be read are reported by their number; the others
    are answered, and the exit status is 1.

    \b
    Example:
      trimexport-run classify build/sentiment "a gorgeous, witty, seductive movie"
      trimexport-run classify build/sentiment --file reviews.csv --json
      cat reviews.txt | trimexport-run classify build/sentiment -
    """
    records = _records(texts, file, column)
    _prepare_stdout(as_json)
    classifier = _load(bundle, variant, backend, threads)
    numbered = file is not None or texts == ("-",)
    bad = cut = 0
    with Progress("texts classified:", visible=not is_terminal(sys.stdout)) as progress:
        for answer in _answers(classifier, records):
            _print(answer, classifier, as_json=as_json, numbered=numbered)
            bad += isinstance(answer.result, BadLine)
            cut += not isinstance(answer.result, BadLine) and answer.result.truncated
            progress.advance()
    if cut and not as_json:
        limit = classifier.manifest.text_limit
        click.echo(
            f"Note: {cut:,} of the texts had more than {limit.tokens:,} tokens and were cut at "
            f"the {limit.truncate}",
            err=True,
        )
    if bad:
        what = "lines" if numbered else "texts"
        raise click.ClickException(f"{bad:,} of the {what} could not be classified")


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="Compare the SHA-256 of every file.")
def info(bundle: Path, as_json: bool, check: bool) -> None:
    """Show a bundle's labels, prompt, source and variants, and what would run it here.

    \b
    Example:
      trimexport-run info build/sentiment --check
    """
    manifest = read_manifest(bundle)
    if check:
        total = sum(entry.bytes for entry in manifest.files)
        total += sum(it.engine.bytes for it in manifest.variants if it.engine is not None)
        with Progress("checking files:", total) as progress:
            check_files(bundle, manifest, hashes=True, advance=progress.advance)
            for variant in manifest.variants:
                if variant.engine is not None:
                    check_engine(bundle, variant.engine, hashes=True, advance=progress.advance)
    _prepare_stdout(as_json)
    if as_json:
        click.echo(info_json(bundle, manifest, checked=check))
    else:
        click.echo(info_text(bundle, manifest, checked=check))


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--variant", help="The one variant to build for.  [default: all that are for TensorRT]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build_engines(bundle: Path, variant: str | None, as_json: bool) -> None:
    """Build TensorRT engines for this machine's GPU from a bundle's graphs, and keep them in it.

    They take the place of engines that were built elsewhere. Needs TensorRT and cuda-python, and no
    PyTorch.

    \b
    Example:
      trimexport-run build-engines build/sentiment
    """
    from .engine import build_engine, candidates, require_builder

    manifest = read_manifest(bundle)
    chosen = [it for it in candidates(manifest) if variant is None or it.name == variant]
    if not chosen:
        names = ", ".join(it.name for it in candidates(manifest))
        raise BundleError(f'the bundle has no "{variant}" for TensorRT; it has: {names}')
    require_builder()
    for item in chosen:
        with Progress(f"building the engine of {item.name}") as progress:
            progress.show()
            try:
                manifest = build_engine(bundle, item)
            except OSError as error:
                raise BundleError(f"{bundle} cannot be written ({error})") from None
    _prepare_stdout(as_json)
    built = {item.name for item in chosen}
    engines = [it.engine for it in manifest.variants if it.engine and it.name in built]
    if as_json:
        click.echo(json.dumps({"engines": [asdict(engine) for engine in engines]}))
    else:
        for engine in engines:
            click.echo(f"{bundle / engine.file}: TensorRT {engine.tensorrt}, {engine.gpu}")


main.add_command(serve)


def _records(
    texts: tuple[str, ...], file: Path | None, column: str | None
) -> Iterator[Line | BadLine]:
    """The texts to classify, from wherever the command line says they are."""
    if file is None and column is not None:
        raise click.UsageError("--column names a column of --file; give --file too.")
    if file is not None:
        if texts:
            raise click.UsageError("Give texts or --file, not both.")
        return read_file(file, column)
    if not texts:
        raise click.UsageError("No texts: give TEXT arguments, --file FILE, or - to read stdin.")
    if "-" in texts:
        if len(texts) > 1:
            raise click.UsageError("- reads texts from stdin and must stand alone.")
        if sys.stdin is None:
            raise InputError("standard input is closed; give texts as arguments or with --file")
        return _stdin(sys.stdin.buffer)
    return (Line(number, text) for number, text in enumerate(texts, start=1))


def _stdin(stream: BinaryIO) -> Iterator[Line | BadLine]:
    try:
        yield from read_lines(stream)
    except OSError as error:
        raise InputError(
            f"standard input cannot be read ({error.strerror or error}); give texts as arguments "
            "or with --file"
        ) from None


def _load(bundle: Path, variant: str | None, backend: str, threads: int | None) -> Classifier:
    with Progress("loading the model") as progress:
        if choose(read_manifest(bundle), variant, backend).bytes > _LARGE:
            progress.show()
        try:
            return Classifier.load(bundle, variant=variant, backend=backend, threads=threads)
        except OSError as error:  # left to the end, it would be taken for standard output's
            raise BundleError(
                f"{bundle} cannot be loaded ({error}); check it with `trimexport-run info --check`"
            ) from None


def _answers(classifier: Classifier, records: Iterator[Line | BadLine]) -> Iterator[Answer]:
    """Each record's answer, in the order of the records."""
    index = 0
    for window in windows(records, lambda record: len(getattr(record, "text", ""))):
        results = classifier.classify_each(r.text for r in window if isinstance(r, Line))
        for record in window:
            yield _answer(index, record, results)
            index += 1


def _answer(
    index: int, record: Line | BadLine, results: Iterator[Prediction | InputError]
) -> Answer:
    if isinstance(record, BadLine):
        return Answer(index, record.number, "", record)
    result = next(results)
    if isinstance(result, InputError):
        return Answer(index, record.number, record.text, BadLine(record.number, str(result)))
    return Answer(index, record.number, record.text, result)


def _print(answer: Answer, classifier: Classifier, *, as_json: bool, numbered: bool) -> None:
    if isinstance(answer.result, BadLine):
        if as_json:
            click.echo(bad_json(answer, answer.result, numbered=numbered))
        else:
            what = "line" if numbered else "text"
            click.echo(f"{what} {answer.result.number}: {answer.result.reason}", err=True)
    elif as_json:
        click.echo(answer_json(answer, answer.result, classifier, numbered=numbered))
    else:
        click.echo(answer_line(answer, answer.result))


def _prepare_stdout(as_json: bool) -> None:
    """JSON is UTF-8 whatever the locale; other output escapes what the locale cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if as_json:
            sys.stdout.reconfigure(encoding="utf-8")
        else:
            sys.stdout.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Send what standard output still holds nowhere, so that exiting does not fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # not a real file, as under a test runner
        sys.stdout = io.StringIO()
