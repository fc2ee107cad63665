"""The post-processor of a bundle's tokenizer.json, by which clients that know pairs of texts write
what a prompt has between its fields: `tokenizer(query, document)`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from .prompt_ids import PromptIds
from .tokenizer import SourceTokenizer
from .tokenizer_json import Definition

_PAIR = ("A", "B")


def processor_for(
    prompt: PromptIds, definition: Mapping[str, Any], source: SourceTokenizer
) -> Definition | None:
    """The post-processor that writes the ids between two fields that have to be given, or around
    one, the defaults of others among them. None where there is nothing to write, where there are
    more such fields, and where fields have white space of their own before them, which no
    post-processor writes.

    With two such fields, a text without a second one has an empty one behind it: transformers takes
    `tokenizer(query, "")` for that.

    Args:
        definition: the bundle's tokenizer.json.
    """
    required = prompt.template.required
    if len(prompt.fields) < 2 or len(required) > len(_PAIR) or prompt.leads_differ:
        return None
    row: list[Definition] = []
    tokens: dict[str, Definition] = {}
    letters = iter(_PAIR)
    for part in _with_defaults(prompt, definition):
        if part is None:
            row.append({"Sequence": {"id": next(letters), "type_id": 0}})
            continue
        token = source.token(part)
        tokens[token] = {"id": token, "ids": [part], "tokens": [token]}
        row.append({"SpecialToken": {"id": token, "type_id": 0}})
    second: Definition = {"Sequence": {"id": _PAIR[1], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [part for part in row if part != second],
        "pair": row if second in row else [*row, second],
        "special_tokens": tokens,
    }


def fixed_ids(prompt: PromptIds, definition: Mapping[str, Any]) -> list[int]:
    """The ids between a prompt's first field and its last that do not depend on what is given: the
    pieces between fields, and the defaults."""
    return [token for token in _with_defaults(prompt, definition) if token is not None]


def _with_defaults(prompt: PromptIds, definition: Mapping[str, Any]) -> list[int | None]:
    """The ids of all fields and between them, with None in the place of one that has to be given.

    Args:
        definition: the bundle's tokenizer.json.
    """
    defaults = [field.default for field in prompt.fields if field.default]
    tokenizer = Tokenizer.from_str(json.dumps(definition, allow_nan=False)) if defaults else None
    row: list[int | None] = []
    for field in prompt.fields:
        row += field.before
        if field.default is None:
            row.append(None)
        elif field.default and tokenizer is not None:
            row += tokenizer.encode(field.lead + field.default, add_special_tokens=False).ids
    return row
