"""The command reference is what the commands say, and the commands say enough."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]


def _generator() -> ModuleType:
    path = ROOT / "docs" / "generate_commands.py"
    spec = importlib.util.spec_from_file_location("generate_commands", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()
COMMANDS = dict(GENERATOR.commands())


def test_the_reference_is_not_stale() -> None:
    written = GENERATOR.TARGET.read_text(encoding="utf-8")
    assert written == GENERATOR.reference(), "docs/commands.md is stale: run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text_and_an_example_of_itself(name: str) -> None:
    command = COMMANDS[name]
    assert command.get_short_help_str()
    assert name in GENERATOR.example(command)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    options = [item for item in COMMANDS[name].params if isinstance(item, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_names_options_that_exist(name: str) -> None:
    known = {option for item in COMMANDS[name].params for option in item.opts}
    for command in COMMANDS.values():
        if " " not in name:
            known |= {option for item in command.params for option in item.opts}
    words = shlex.split(GENERATOR.example(COMMANDS[name]).replace("\\\n", " "))
    assert [word for word in words if word.startswith("-") and word != "-"] == [
        word for word in words if word in known and word.startswith("-")
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str) -> None:
    program, *rest = name.split()
    result = CliRunner().invoke(GENERATOR.PROGRAMS[program], [*rest, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.output
