"""`trimexport-run serve`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trimexport_runtime.backbone import Backbone
from trimexport_runtime.backbone_manifest import read_backbone_manifest
from trimexport_runtime.backends import DEFAULT, PROVIDERS
from trimexport_runtime.batching import SMALL_BYTES
from trimexport_runtime.bundle import read_manifest
from trimexport_runtime.choice import choose
from trimexport_runtime.classifier import Classifier
from trimexport_runtime.cores import threads_beside
from trimexport_runtime.errors import BackendError, BundleError
from trimexport_runtime.inputs import problem_of

from .key import checked, read_key
from .settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def _option(name: str, text: str, default: object, **settings: Any) -> Callable[[F], F]:
    """An option that an environment variable sets too: TRIMEXPORT_MAX_BODY is --max-body."""
    variable = "TRIMEXPORT_" + name.removeprefix("--").replace("-", "_").upper()
    shown = "" if default is None else f"  [default: {default}]"
    if default is not None:
        settings["default"] = default
    return click.option(name, envvar=variable, show_envvar=True, help=text + shown, **settings)


def _number(context: click.Context, option: click.Parameter, value: float) -> float:
    """A number of an option, which by click's ranges may be NaN."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number; leave the option out for its default")
    return value


_COUNT = click.IntRange(min=1)
_SECONDS: dict[str, Any] = {"type": click.FloatRange(0.1, 86_400), "callback": _number}
_WAIT: dict[str, Any] = {"type": click.FloatRange(0, 60_000), "callback": _number}
_USUAL = Settings()
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(:[0-9]{1,5})?")
_USUAL_PORTS = {"http": ":80", "https": ":443"}


def _origins(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> list[str]:
    """The origins of --cors-origin as browsers send them: in lower case, without a usual port."""
    origins = []
    for origin in given:
        found = _ORIGIN.fullmatch(origin.lower())
        if found is None and origin != "*":
            raise click.BadParameter(
                f"{origin!r} is no origin; give its scheme, its host (one beyond ASCII as xn--) "
                "and, if it has one, its port, and nothing behind them (https://example.com, "
                "http://localhost:3000), or * for all"
            )
        usual = _USUAL_PORTS.get(found[1], "") if found else ""
        origins.append(origin.lower().removesuffix(usual))
    return origins


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE | NAME=BUNDLE ...")
@_option(
    "--packs",
    "A directory of task packs, which are served on the backbone and followed as they change.",
    None,
    type=click.Path(path_type=Path),
)
@_option("--host", "Address to listen on; 0.0.0.0 is every one.", "127.0.0.1")
@_option("--port", "Port; 0 takes a free one.", 8080, type=click.IntRange(0, 65535))
@_option("--variant", "Which variant to run.", None)
@_option("--backend", "What runs it.", DEFAULT, type=click.Choice(tuple(PROVIDERS)))
@_option("--threads", "Threads of a batch.", None, type=_COUNT)
@_option("--workers", "Batches of a bundle that may run at once.", _USUAL.workers, type=_COUNT)
@_option("--max-body", "Bytes of a request's body.", _USUAL.max_body, type=_COUNT)
@_option("--max-texts", "Texts of a request.", _USUAL.max_texts, type=_COUNT)
@_option("--max-queue", "Tokens that may wait.", _USUAL.max_queue, type=_COUNT)
@_option("--wait", "Milliseconds a text may wait for others.", 0.0, **_WAIT)
@_option("--timeout", "Seconds for a request to come.", _USUAL.timeout, **_SECONDS)
@_option("--drain", "Seconds to answer what was accepted, at the end.", _USUAL.drain, **_SECONDS)
@_option("--api-key", "What clients send: Authorization: Bearer KEY.", None)
@_option("--api-key-file", "The same, from a file.", None, type=click.Path(path_type=Path))
@_option(
    "--cors-origin",
    "An origin whose pages may ask from a browser, or *; again for more.",
    None,
    multiple=True,
    callback=_origins,
)
@_option("--log-texts", "Write the texts into the log.", None, is_flag=True)
def serve(
    bundles: tuple[str, ...],
    packs: Path | None,
    host: str,
    port: int,
    variant: str | None,
    backend: str,
    threads: int | None,
    workers: int,
    max_body: int,
    max_texts: int,
    max_queue: int,
    wait: float,
    timeout: float,
    drain: float,
    api_key: str | None,
    api_key_file: Path | None,
    cors_origin: list[str],
    log_texts: bool,
) -> None:
    """Serve bundles over HTTP: /classify, /predict as text-embeddings-inference, and the Open
    Inference Protocol under /v2; /rerank, /v1/rerank and /v2/rerank as text-embeddings-inference,
    Jina and Cohere, /score as vLLM, /v1/moderations as OpenAI.

    A bundle is named after its directory, or NAME=BUNDLE names it. With --packs, the one BUNDLE is
    a backbone, and every NAME.pack of the directory is served as NAME: new and changed ones within
    seconds, and removed ones no more once they have answered what they were asked.

    Texts that are too long are refused here unless a request says truncate; the log is a JSON
    object a line on standard error. Every option can be set by an environment variable.

    \b
    Example:
      trimexport-run serve build/sentiment --port 8080
      trimexport-run serve reviews=build/sentiment news=build/topics
      trimexport-run serve build/backbone --packs tasks/
    """
    settings = Settings(
        max_body=max_body,
        max_texts=max_texts,
        max_queue=max_queue,
        wait=wait / 1000,
        workers=workers,
        timeout=timeout,
        drain=drain,
        api_key=_key(api_key, api_key_file),
        cors_origins=tuple(cors_origin),
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
    if packs is not None:
        from .packs import PackFolder

        if workers > 1:
            raise click.UsageError("Packs run in turn, a batch at a time; leave --workers out.")
        backbone = _backbone(bundles, variant, backend, threads)
        run({}, settings, host, port, PackFolder(backbone, packs))
        return
    if workers > 1 and threads is None:
        threads = threads_beside(workers)
    classifiers = {}
    for name, directory in _named(bundles):
        size = choose(read_manifest(directory), variant, backend).bytes
        classifiers[name] = Classifier.load(
            directory, variant=variant, backend=backend, threads=threads, spin=size >= SMALL_BYTES
        )
    run(classifiers, settings, host, port)


def _backbone(
    bundles: tuple[str, ...], variant: str | None, backend: str, threads: int | None
) -> Backbone:
    """The backbone that packs are served on."""
    if len(bundles) > 1:
        raise click.UsageError("--packs are for one backbone; give one BUNDLE, and not several.")
    directory = Path(bundles[0])
    size = choose(read_backbone_manifest(directory), variant, backend).bytes
    return Backbone.load(
        directory, variant=variant, backend=backend, threads=threads, spin=size >= SMALL_BYTES
    )


def _named(bundles: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The names and directories of bundles that are given as BUNDLE or NAME=BUNDLE.

    Raises:
        BundleError: two have the same name, or one has none or none that a request can give.
    """
    named = []
    for item in bundles:
        name, equals, directory = item.partition("=")
        if equals and not os.path.exists(item):
            named.append((name, Path(directory)))
        else:
            named.append((Path(item).resolve().name, Path(item)))
    names = [name for name, _ in named]
    if len(set(names)) < len(names) or not all(names):
        raise BundleError(
            f"the bundles are named {', '.join(names)}; give each a name of its own: NAME=BUNDLE"
        )
    for name in names:
        if "/" in name or problem_of(name):
            raise BundleError(
                f"a bundle cannot be served as {name!r}, which cannot be a part of a path; give it "
                "a name without / and of characters: NAME=BUNDLE"
            )
    return named


def _key(key: str | None, file: Path | None) -> str | None:
    """The key that clients must send, from its option or from a file; None if they need none."""
    if file is None:
        return None if key is None else checked(key, "--api-key")
    if key is not None:
        raise click.UsageError("Give --api-key or --api-key-file, not both.")
    return read_key(file)
