"""Options of commands that answer texts with a bundle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import click

from .backends import DEFAULT, PROVIDERS

TASK = click.option(
    "--task",
    type=click.Path(path_type=Path),
    help="The file of a task pack, where BUNDLE is a backbone.",
)
_ANSWERING = (
    TASK,
    click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line."),
    click.option(
        "--variant", help="Which variant of the bundle to run.  [default: the backend's fastest]"
    ),
    click.option(
        "--backend",
        type=click.Choice(tuple(PROVIDERS)),
        default=DEFAULT,
        help="What runs it; none stands in for another.  [default: onnxruntime, on the CPU]",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads to use.  [default: all cores]"
    ),
)


def answers_texts(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what answers, and in which form."""
    return functools.reduce(lambda inner, option: option(inner), reversed(_ANSWERING), command)
