"""The parts of a tokenizer.json: its stages, the tokens that it adds around a string, and its dummy
prefix.

A *dummy prefix* is a space that a tokenizer adds to a text. One of three parts adds it. The
`Prepend` normaliser adds it before every piece between added tokens. `Metaspace` and `ByteLevel`
add it before every piece that does not begin with a space; `Metaspace` with
`prepend_scheme="first"` only before the piece at the start of the string.
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
    """The places where a tokenizer adds a space.

    `every` says that each piece gets it, and not just the one at the start of the string. A piece
    that begins with one of the characters `unless` does not get it.
    """

    every: bool
    unless: str


def dummy_prefix(definition: Definition) -> DummyPrefix | None:
    """The tokenizer's dummy prefix, or None."""
    if parts_of_type(definition, "normalizer", "Prepend"):
        return DummyPrefix(every=True, unless="")
    for part in parts_of_type(definition, "pre_tokenizer", "Metaspace"):
        scheme = part.get("prepend_scheme", "always")
        if scheme != "never":
            return DummyPrefix(every=scheme == "always", unless=" " + part["replacement"])
    if any(
        part.get("add_prefix_space")
        for part in parts_of_type(definition, "pre_tokenizer", "ByteLevel")
    ):
        return DummyPrefix(every=True, unless=" ")
    return None


def without_start(source: Definition) -> Definition:
    """A copy for segments that continue a string: it adds no start and end tokens and no dummy
    prefix. Vocabulary and merges are shared with the source: copying them would take seconds."""
    definition = {key: copy.deepcopy(it) for key, it in source.items() if key != "model"}
    definition["model"] = dict(source["model"])
    definition["post_processor"] = None
    rest = [part for part in parts(definition["normalizer"]) if part["type"] != "Prepend"]
    definition["normalizer"] = normalizers(rest)
    for part in parts_of_type(definition, "pre_tokenizer", "Metaspace"):
        part["prepend_scheme"] = "never"
        part.pop("add_prefix_space", None)
    for part in parts_of_type(definition, "pre_tokenizer", "ByteLevel"):
        part["add_prefix_space"] = False
    return definition


def parts(stage: Definition | None) -> list[Definition]:
    """The parts of a stage, which may be null, a single part, or a (nested) sequence."""
    if stage is None:
        return []
    if stage["type"] != "Sequence":
        return [stage]
    members: Sequence[Definition] = next(stage[key] for key in _MEMBERS if key in stage)
    return [part for member in members for part in parts(member)]


def parts_of_type(definition: Definition, stage: str, kind: str) -> list[Definition]:
    """The parts of a stage that have one type."""
    return [part for part in parts(definition[stage]) if part["type"] == kind]


def normalizers(members: list[Definition]) -> Definition | None:
    """The normaliser that applies these in turn; None if there are none."""
    if len(members) < 2:
        return members[0] if members else None
    return {"type": "Sequence", "normalizers": members}


def special_ids_around(definition: Definition) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of the special tokens that the post-processor adds before a string, and behind it.

    Raises:
        ValueError: it has no ids for one.
    """
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
    """The same of a TemplateProcessing."""
    before: list[int] = []
    after: list[int] = []
    side = before
    for item in processor["single"]:
        if "Sequence" in item:
            side = after
        else:
            name = item["SpecialToken"]["id"]
            if name not in processor["special_tokens"]:
                raise ValueError(f"its post_processor writes {name!r}, of which it has no ids")
            side += processor["special_tokens"][name]["ids"]
    return tuple(before), tuple(after)
