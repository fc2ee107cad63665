"""`trimexport-run serve`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trimexport_runtime.backends import DEFAULT, PROVIDERS
from trimexport_runtime.batching import SMALL_BYTES
from trimexport_runtime.bundle import read_manifest
from trimexport_runtime.choice import choose
from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import BackendError, BundleError

from .settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def _option(name: str, text: str, default: object, **settings: Any) -> Callable[[F], F]:
    """An option that an environment variable sets too: TRIMEXPORT_MAX_BODY is --max-body."""
    variable = "TRIMEXPORT_" + name.removeprefix("--").replace("-", "_").upper()
    shown = "" if default is None else f"  [default: {default}]"
    if default is not None:
        settings["default"] = default
    return click.option(name, envvar=variable, show_envvar=True, help=text + shown, **settings)


_COUNT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0.1)
_USUAL = Settings()


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE | NAME=BUNDLE ...")
@_option("--host", "Address to listen on; 0.0.0.0 is every one.", "127.0.0.1")
@_option("--port", "Port; 0 takes a free one.", 8080, type=click.IntRange(0, 65535))
@_option("--variant", "Which variant to run.", None)
@_option("--backend", "What runs it.", DEFAULT, type=click.Choice(tuple(PROVIDERS)))
@_option("--threads", "Threads of a batch.", None, type=_COUNT)
@_option("--max-body", "Bytes of a request's body.", _USUAL.max_body, type=_COUNT)
@_option("--max-texts", "Texts of a request.", _USUAL.max_texts, type=_COUNT)
@_option("--max-queue", "Tokens that may wait.", _USUAL.max_queue, type=_COUNT)
@_option("--wait", "Milliseconds a text may wait for others.", 0.0, type=click.FloatRange(min=0))
@_option("--timeout", "Seconds for a request to come.", _USUAL.timeout, type=_SECONDS)
@_option("--drain", "Seconds to answer what was accepted, at the end.", _USUAL.drain, type=_SECONDS)
@_option("--api-key", "What clients send: Authorization: Bearer KEY.", None)
@_option("--api-key-file", "The same, from a file.", None, type=click.Path(path_type=Path))
@_option("--log-texts", "Write the texts into the log.", None, is_flag=True)
def serve(
    bundles: tuple[str, ...],
    host: str,
    port: int,
    variant: str | None,
    backend: str,
    threads: int | None,
    max_body: int,
    max_texts: int,
    max_queue: int,
    wait: float,
    timeout: float,
    drain: float,
    api_key: str | None,
    api_key_file: Path | None,
    log_texts: bool,
) -> None:
    """Serve bundles over HTTP: /classify, /predict as text-embeddings-inference, and the Open
    Inference Protocol under /v2.

    A bundle is named after its directory, or NAME=BUNDLE names it. Texts that are too long are
    refused here unless a request says truncate; the log is a JSON object a line on standard error.
    Every option can be set by an environment variable.

    \b
    Example:
      trimexport-run serve build/sentiment --port 8080
      trimexport-run serve reviews=build/sentiment news=build/topics
    """
    settings = Settings(
        max_body=max_body,
        max_texts=max_texts,
        max_queue=max_queue,
        wait=wait / 1000,
        timeout=timeout,
        drain=drain,
        api_key=_key(api_key, api_key_file),
        log_texts=log_texts,
    )
    try:
        from .lifecycle import serve as run
    except ImportError as error:
        raise BackendError(
            f"the server is not installed ({error}); install `trimexport-runtime[server]`"
        ) from None
    # The server tokenises several requests side by side, so each gets one thread.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    classifiers = {}
    for name, directory in _named(bundles):
        size = choose(read_manifest(directory), variant, backend).bytes
        classifiers[name] = Classifier.load(
            directory, variant=variant, backend=backend, threads=threads, spin=size >= SMALL_BYTES
        )
    run(classifiers, settings, host, port)


def _named(bundles: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The names and directories of bundles that are given as BUNDLE or NAME=BUNDLE.

    Raises:
        BundleError: two have the same name, or one has none.
    """
    named = []
    for item in bundles:
        name, equals, directory = item.partition("=")
        if equals and not Path(item).exists():
            named.append((name, Path(directory)))
        else:
            named.append((Path(item).resolve().name, Path(item)))
    names = [name for name, _ in named]
    if len(set(names)) < len(names) or not all(names):
        raise BundleError(
            f"the bundles are named {', '.join(names)}; give each a name of its own: NAME=BUNDLE"
        )
    return named


def _key(key: str | None, file: Path | None) -> str | None:
    """The key that clients must send, from its option or from a file; None if they need none."""
    if file is None:
        return key
    if key is not None:
        raise click.UsageError("Give --api-key or --api-key-file, not both.")
    try:
        content = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"the key file {file} cannot be read: {error}") from None
    if not content:
        raise BundleError(f"the key file {file} is empty; write the key into it")
    return content
