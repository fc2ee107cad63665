"""Write docs/commands.md from the commands themselves.

    python docs/generate_commands.py

A test compares the file with what this module makes, so that it cannot grow stale.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from trimexport.cli import main as trimexport
from trimexport_runtime.cli import main as trimexport_run

TARGET = Path(__file__).with_name("commands.md")
PROGRAMS = {"trimexport": trimexport, "trimexport-run": trimexport_run}

_INTRODUCTION = """# Commands

<!-- Written by docs/generate_commands.py (make docs). Do not edit. -->

Results go to standard output, everything else to standard error. Exit status of both programs: 0
done, 1 an expected failure, 2 wrong usage, 130 interrupted.
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of both programs with its full name, groups before their members."""
    for program, group in PROGRAMS.items():
        yield program, group
        for name, command in sorted(group.commands.items()):
            yield f"{program} {name}", command


def example(command: click.Command) -> str:
    """The lines under `Example:` in a command's help, or nothing."""
    return _split(command)[1]


def reference() -> str:
    """The whole page."""
    sections = [_INTRODUCTION, *(_section(name, command) for name, command in commands())]
    return "\n".join(sections)


def _section(name: str, command: click.Command) -> str:
    """One command: usage, what it does, an example, its options."""
    level = "###" if " " in name else "##"
    context = click.Context(command, help_option_names=["-h", "--help"])
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    text, shown = _split(command)
    lines = [f"{level} {name}", "", f"```\n{usage}\n```", "", text, ""]
    if shown:
        lines += [f"```\n{shown}\n```", ""]
    return "\n".join([*lines, "| option | meaning |", "| --- | --- |", *_rows(context), ""])


def _split(command: click.Command) -> tuple[str, str]:
    """A command's help without its example, and the example without its indent."""
    text, _, shown = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
    return text.strip(), inspect.cleandoc(shown)


def _rows(context: click.Context) -> Iterator[str]:
    """A table row for every option."""
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            names, meaning = (cell.replace("|", "\\|") for cell in record)
            yield f"| `{names}` | {' '.join(meaning.split())} |"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
