"""The model's tokenizer, and the two that are derived from it.

- the **source** tokenises a whole string: it adds bos, and a dummy prefix where the model has one;
- the **inside** tokenizer continues a string: no bos, no dummy prefix; control tokens still work,
  for they are the prompt author's to use;
- the **text** tokenizer goes into the bundle: as inside, but control tokens in a text are only
  characters, and the white space that ends the prefix is written before the text.

How the text tokenizer writes that white space: by a `Prepend` normaliser, where it keeps no added
token. Where it does, normalisers run on each piece between added tokens, and `Prepend` would write
before each piece. So the added tokens are marked `normalized`, which makes them matched after the
normalisers, and because their own content is normalised too, the lead is written by a `Replace`
of the empty string at the start of every string that is not itself an added token.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from .errors import CheckpointError, UnsupportedError

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_SYNTAX = set("\\^$.|?*+()[]{}")
_START = r"(?<![\s\S])"
_END = r"(?![\s\S])"


@dataclass(frozen=True)
class SourceTokenizer:
    """The tokenizer as transformers loads it, by value: `definition` is its tokenizer.json."""

    definition: dict[str, Any] = field(repr=False)
    whole: Tokenizer = field(repr=False)
    inside: Tokenizer = field(repr=False)
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
    if not any((directory / name).is_file() for name in _FILES):
        raise CheckpointError(
            f"{directory} has no tokenizer: none of {', '.join(_FILES)}; copy the model's own "
            "tokenizer files beside its weights"
        )
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
    candidates = (loaded.pad_token, loaded.eos_token, loaded.unk_token, backend.id_to_token(0))
    known = (token for token in candidates if token is not None)
    pad = next((str(t) for t in known if backend.token_to_id(t) is not None), None)
    if pad is None:
        raise CheckpointError(
            f"the tokenizer of {directory} has no token that could be padding: neither a pad, an "
            "end nor an unknown token, and no token 0; name one in tokenizer_config.json"
        )
    return SourceTokenizer(
        definition=definition,
        whole=Tokenizer.from_str(json.dumps(definition)),
        inside=Tokenizer.from_str(json.dumps(_inside(definition))),
        pad_token=pad,
        pad_token_id=backend.get_vocab(with_added_tokens=True)[pad],
    )


def text_tokenizer(source: SourceTokenizer, lead: str) -> dict[str, Any]:
    """The bundle's tokenizer.json: texts only, `lead` written before each that is not empty.

    Ensures that for every text of one character or more the ids are those that the source gives
    for `lead + text`, control tokens taken as characters. With a lead there are two exceptions: a
    text that is nothing but one kept added token (`<b>`) does not get it, and runs of a literal
    U+2581 are tokenised like the spaces that the vocabulary writes with it.
    """
    definition = _inside(source.definition)
    added = definition["added_tokens"]
    definition["added_tokens"] = kept = [token for token in added if not _is_dropped(token, lead)]
    if lead:
        rest = _parts(definition["normalizer"])
        first = _spare_added(kept, lead, definition) if kept else _prepend(lead)
        definition["normalizer"] = _sequence([first, *rest])
    return definition


def _prepend(lead: str) -> dict[str, Any]:
    return {"type": "Prepend", "prepend": lead}


def _spare_added(
    kept: list[dict[str, Any]], lead: str, definition: dict[str, Any]
) -> dict[str, Any]:
    """A normaliser that writes the lead unless the whole string is an added token.

    Raises:
        UnsupportedError: what follows is more than replacing strings. `tokenizers` loses count
            after an insertion by pattern and stops with an internal error.
    """
    after = _parts(definition["normalizer"]) + _parts(definition["pre_tokenizer"])
    if any(part["type"] not in ("Replace", "Split", "Metaspace") for part in after):
        names = ", ".join(token["content"] for token in kept[:5])
        raise UnsupportedError(
            f"this tokenizer has added tokens that are no control tokens ({names}) and works on "
            "bytes, so white space before a text cannot be compiled; end the prompt's part before "
            "{text} without a space"
        )
    for token in kept:
        token["normalized"] = True
    spared = "|".join(_escape(token["content"]) for token in kept)
    pattern = f"{_START}(?!(?:{spared}){_END})"
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": lead}


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


def _is_dropped(token: dict[str, Any], lead: str) -> bool:
    """Control tokens must not work in a text. Matched after normalisation, runs of U+2581 would
    take the text's spaces, which the source leaves to the merges."""
    return bool(token["special"]) or (bool(lead) and set(token["content"]) == {"\u2581"})


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
