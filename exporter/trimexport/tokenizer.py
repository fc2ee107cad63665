"""The model's tokenizer, and the two that are derived from it.

- the **source** tokenises a whole string: it adds bos, and a dummy prefix where the model has one;
- the **inside** tokenizer continues a string: no bos, no dummy prefix; control tokens still work,
  for they are the prompt author's to use;
- the **text** tokenizer goes into the bundle: as inside, but control tokens in a text are only
  characters, and the white space that ends the prefix is written before the text.

How the text tokenizer writes that white space: a normaliser that replaces the empty string at the
start of the text. Normalisers run on each piece between added tokens, unless the added tokens are
matched after normalisation, so the added tokens that stay are marked `normalized`. An added
token's own content is normalised too, hence the look-ahead that spares a string that is one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from .errors import CheckpointError

_SPACES = set("\n\r\t \u2581")
_SYNTAX = set("\\^$.|?*+()[]{}")
_START = r"(?<![\s\S])"
_END = r"(?![\s\S])"


@dataclass(frozen=True)
class SourceTokenizer:
    """The tokenizer as transformers loads it, by value: `definition` is its tokenizer.json."""

    definition: dict[str, Any]
    whole: Tokenizer
    inside: Tokenizer
    pad_token: str
    pad_token_id: int

    @property
    def dummy_prefix(self) -> str:
        """`" "` where the tokenizer writes a space before every string (Llama 2), else `""`."""
        adds = _walk(self.definition, "normalizer", "Prepend")
        adds += [
            part
            for part in _walk(self.definition, "pre_tokenizer", "Metaspace")
            if part.get("prepend_scheme", "always") != "never"
        ]
        adds += [
            part
            for part in _walk(self.definition, "pre_tokenizer", "ByteLevel")
            if part.get("add_prefix_space")
        ]
        return " " if adds else ""

    def encode_start(self, text: str) -> tuple[int, ...]:
        """Ids of what opens the string: bos (where the model has one), dummy prefix and all.
        End tokens that a tokenizer would add are left out, for the string goes on."""
        ids = self.whole.encode(text, add_special_tokens=False).ids
        return (*_start_ids(self.definition), *ids)

    def encode_inside(self, text: str) -> tuple[int, ...]:
        """Ids of a segment that continues the string."""
        return tuple(self.inside.encode(text, add_special_tokens=False).ids)

    def token(self, token_id: int) -> str:
        """The vocabulary's spelling of a token: `▁positive`."""
        return str(self.whole.id_to_token(token_id))


def load_tokenizer(directory: Path) -> SourceTokenizer:
    """Load the tokenizer of a checkpoint the way transformers does.

    Raises:
        CheckpointError: none there, or one that the `tokenizers` library cannot express.
    """
    try:
        loaded = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        backend = loaded.backend_tokenizer
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(
            f"the tokenizer of {directory} cannot be loaded ({first}); the directory needs a "
            "tokenizer.json, as `AutoTokenizer.from_pretrained(...).save_pretrained(...)` writes"
        ) from None
    definition = json.loads(backend.to_str())
    definition["truncation"] = definition["padding"] = None
    pad = loaded.pad_token or loaded.eos_token or loaded.unk_token
    if pad is None or backend.token_to_id(pad) is None:
        pad = backend.id_to_token(0)
    return SourceTokenizer(
        definition=definition,
        whole=Tokenizer.from_str(json.dumps(definition)),
        inside=Tokenizer.from_str(json.dumps(_inside(definition))),
        pad_token=pad,
        pad_token_id=backend.token_to_id(pad),
    )


def text_tokenizer(source: SourceTokenizer, lead: str) -> dict[str, Any]:
    """The bundle's tokenizer.json: texts only, `lead` written before each that is not empty.

    Requires an inside tokenizer; ensures that for every text of one character or more the ids are
    those of `lead + text` without control tokens. One exception: a text that is nothing but one
    kept added token (`<b>`) does not get the lead.
    """
    definition = _inside(source.definition)
    kept = [token for token in definition["added_tokens"] if not _is_dropped(token)]
    for token in kept:
        token["normalized"] = True
    definition["added_tokens"] = kept
    if lead:
        spared = "|".join(_escape(token["content"]) for token in kept)
        pattern = _START + (f"(?!(?:{spared}){_END})" if spared else "")
        first = {"type": "Replace", "pattern": {"Regex": pattern}, "content": lead}
        rest = definition["normalizer"]
        definition["normalizer"] = _sequence([first] + ([rest] if rest else []))
    return definition


def tokenizer_config(source: SourceTokenizer, limit: int, truncate: str) -> dict[str, Any]:
    """The bundle's tokenizer_config.json, for clients that build the tokenizer themselves."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": source.pad_token,
        "padding_side": "right",
        "truncation_side": "left" if truncate == "start" else "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": limit,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }


def _is_dropped(token: dict[str, Any]) -> bool:
    """Control tokens must not work in a text; runs of white space the merges rebuild."""
    return bool(token["special"]) or set(token["content"]) <= _SPACES


def _inside(source: dict[str, Any]) -> dict[str, Any]:
    """The definition without what is done once to a whole string: bos and dummy prefix."""
    definition = copy.deepcopy(source)
    definition["post_processor"] = None
    parts = [p for p in _parts(definition["normalizer"]) if p["type"] != "Prepend"]
    definition["normalizer"] = _sequence(parts)
    for part in _walk(definition, "pre_tokenizer", "Metaspace"):
        part["prepend_scheme"] = "never"
        part.pop("add_prefix_space", None)
    for part in _walk(definition, "pre_tokenizer", "ByteLevel"):
        part["add_prefix_space"] = False
    return definition


def _parts(stage: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The members of a stage, which may be none, one, or a (nested) sequence."""
    if stage is None:
        return []
    if stage["type"] == "Sequence":
        members: Sequence[dict[str, Any]] = stage.get("normalizers") or stage["pretokenizers"]
        return [part for member in members for part in _parts(member)]
    return [stage]


def _walk(definition: dict[str, Any], stage: str, kind: str) -> list[dict[str, Any]]:
    return [part for part in _parts(definition[stage]) if part["type"] == kind]


def _sequence(parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return {"type": "Sequence", "normalizers": parts}


def _escape(text: str) -> str:
    """Escape for regular expressions of both Oniguruma and JavaScript (whose `u` flag forbids
    needless backslashes, which `re.escape` writes)."""
    return "".join("\\" + c if c in _SYNTAX else c for c in text)


def _start_ids(definition: dict[str, Any]) -> list[int]:
    """The special tokens that the post-processor writes before a string."""
    ids: list[int] = []
    for processor in _processors(definition["post_processor"]):
        if processor["type"] != "TemplateProcessing":
            continue
        for item in processor["single"]:
            if "Sequence" in item:
                break
            ids += processor["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    return ids


def _processors(stage: dict[str, Any] | None) -> list[dict[str, Any]]:
    if stage is None:
        return []
    return list(stage["processors"]) if stage["type"] == "Sequence" else [stage]
