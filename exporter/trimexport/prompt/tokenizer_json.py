"""Read and cut a tokenizer.json: its stages, what it writes around a string, its dummy prefix.

A *dummy prefix* is a space that a tokenizer writes by itself. Three stages write one, and they
differ in where: the `Prepend` normaliser before every piece between added tokens, whatever it
begins with; `Metaspace` and `ByteLevel` before every piece (or, `prepend_scheme="first"`, the piece
that opens the string) that does not begin with a space.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Definition = dict[str, Any]
_MEMBERS = ("normalizers", "pretokenizers", "processors")


@dataclass(frozen=True)
class DummyPrefix:
    """Where a tokenizer writes a space by itself.

    `every` is False where only the piece that opens the string gets it. `unless` are the characters
    that take its place when a piece begins with one of them.
    """

    every: bool
    unless: str


def dummy_prefix(definition: Definition) -> DummyPrefix | None:
    """The tokenizer's dummy prefix, or None where it has none."""
    if walk(definition, "normalizer", "Prepend"):
        return DummyPrefix(every=True, unless="")
    for part in walk(definition, "pre_tokenizer", "Metaspace"):
        scheme = part.get("prepend_scheme", "always")
        if scheme != "never":
            return DummyPrefix(every=scheme == "always", unless=" " + part["replacement"])
    if any(part.get("add_prefix_space") for part in walk(definition, "pre_tokenizer", "ByteLevel")):
        return DummyPrefix(every=True, unless=" ")
    return None


def without_start(source: Definition) -> Definition:
    """A copy without what is done to a whole string: start and end tokens, dummy prefix."""
    definition = copy.deepcopy(source)
    definition["post_processor"] = None
    rest = [part for part in parts(definition["normalizer"]) if part["type"] != "Prepend"]
    definition["normalizer"] = normalizers(rest)
    for part in walk(definition, "pre_tokenizer", "Metaspace"):
        part["prepend_scheme"] = "never"
        part.pop("add_prefix_space", None)
    for part in walk(definition, "pre_tokenizer", "ByteLevel"):
        part["add_prefix_space"] = False
    return definition


def parts(stage: Definition | None) -> list[Definition]:
    """The members of a stage, which may be none, one, or a (nested) sequence."""
    if stage is None:
        return []
    if stage["type"] != "Sequence":
        return [stage]
    members: Sequence[Definition] = next(stage[key] for key in _MEMBERS if key in stage)
    return [part for member in members for part in parts(member)]


def walk(definition: Definition, stage: str, kind: str) -> list[Definition]:
    """The members of a stage that are of one type."""
    return [part for part in parts(definition[stage]) if part["type"] == kind]


def normalizers(members: list[Definition]) -> Definition | None:
    """The normaliser that applies these in turn."""
    if len(members) < 2:
        return members[0] if members else None
    return {"type": "Sequence", "normalizers": members}


def around(definition: Definition) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the post-processor writes before a string, and after it."""
    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    for processor in parts(definition["post_processor"]):
        if processor["type"] == "TemplateProcessing":
            before, after = _of_template(processor)
        elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
            before, after = (processor["cls"][1],), (processor["sep"][1],)
        else:
            continue
        start, end = (*before, *start), (*end, *after)
    return start, end


def _of_template(processor: Definition) -> tuple[tuple[int, ...], tuple[int, ...]]:
    found: tuple[list[int], list[int]] = ([], [])
    side = 0
    for item in processor["single"]:
        if "Sequence" in item:
            side = 1
        else:
            found[side].extend(processor["special_tokens"][item["SpecialToken"]["id"]]["ids"])
    return tuple(found[0]), tuple(found[1])
