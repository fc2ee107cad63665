"""The model's tokenizer, and the two that are derived from it.

- the **source** tokenises a whole string: it adds bos, and a dummy prefix where the model has one;
- the **inside** tokenizer continues a string: no bos, no dummy prefix; control tokens still work,
  for they are the prompt author's to use;
- the **text** tokenizer goes into the bundle: as inside, but control tokens in a text are only
  characters, and the white space that ends the prefix is written before the text.

How the white space is written is in `text_lead`.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trimexport.errors import CheckpointError, UnsupportedError
from trimexport.source.gguf_place import is_named_gguf

from .gguf_tokenizer import gguf_tokenizer
from .text_lead import lead_normalizers
from .tokenizer_json import around, dummy_prefix, normalizers, parts, without_start

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class SourceTokenizer:
    """The tokenizer as transformers loads it, by value: `definition` is its tokenizer.json."""

    definition: dict[str, Any] = field(repr=False)
    whole: Tokenizer = field(repr=False)
    inside: Tokenizer = field(repr=False)
    pad_token: str
    pad_token_id: int

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer writes after a string."""
        return around(self.definition)[1]

    def lead(self, prefix: str, spaces: str) -> tuple[str, bool]:
        """What stands before a text that follows `prefix` and then `spaces`, and whether it is the
        tokenizer's own dummy prefix: at the start of the string and, for tokenizers that write one
        before each piece, behind an added token. `prefix` must not end in a space."""
        behind = self._added_at_end(prefix)
        if behind and behind["rstrip"]:
            spaces = ""
        dummy = dummy_prefix(self.definition)
        if not dummy or (prefix and not (behind and dummy.every)):
            return spaces, False
        if not spaces:
            return " ", True
        return (spaces if dummy.unless else " " + spaces), False

    def encode_start(self, text: str, *, rendered: bool = False) -> tuple[int, ...]:
        """Ids of what opens the string: bos (where the model has one), dummy prefix and all.
        End tokens that a tokenizer would add are left out, for the string goes on.

        Args:
            rendered: the text was written by a chat template, bos included, so none is put before.
        """
        ids = self.whole.encode(text, add_special_tokens=False).ids
        return (*(() if rendered else around(self.definition)[0]), *ids)

    def encode_inside(self, text: str) -> tuple[int, ...]:
        """Ids of a segment that continues the string. Behind an added token the string is as good
        as new, for that is where dummy prefixes are written."""
        dummy = dummy_prefix(self.definition)
        at = self._first_added(text) if dummy and dummy.every else len(text)
        before = self.inside.encode(text[:at], add_special_tokens=False).ids
        return (*before, *self.whole.encode(text[at:], add_special_tokens=False).ids)

    def _first_added(self, text: str) -> int:
        """Where the first added token begins, the white space that it takes included."""
        added = {token["id"] for token in self.definition["added_tokens"]}
        found = self.inside.encode(text, add_special_tokens=False)
        spans = zip(found.ids, found.offsets, strict=True)
        return next((start for token, (start, _) in spans if token in added), len(text))

    def _added_at_end(self, text: str) -> dict[str, Any] | None:
        """The added token that ends the text, the white space that it takes included."""
        found = self.whole.encode(text, add_special_tokens=False)
        if not found.ids or found.offsets[-1][1] < len(text):
            return None
        added = {token["id"]: token for token in self.definition["added_tokens"]}
        return added.get(found.ids[-1])

    def token(self, token_id: int) -> str:
        """The vocabulary's spelling of a token: `▁positive`."""
        return str(self.whole.id_to_token(token_id))


def load_tokenizer(directory: Path) -> SourceTokenizer:
    """Load the tokenizer of a checkpoint, or that of a single file, the way transformers does.

    Raises:
        CheckpointError: none there, or one that the `tokenizers` library cannot express.
    """
    if directory.is_dir() and not any((directory / name).is_file() for name in FILES):
        raise CheckpointError(
            f"{directory} has no tokenizer: none of {', '.join(FILES)}; copy the model's own "
            "tokenizer files beside its weights, or name their directory with --tokenizer"
        )
    try:
        loaded = transformers_tokenizer(directory)
        backend = loaded.backend_tokenizer
    except CheckpointError:
        raise
    except Exception as error:  # `tokenizers` raises no other, transformers many
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(
            f"the tokenizer of {directory} cannot be loaded ({first}); the directory needs a "
            "tokenizer.json, as `AutoTokenizer.from_pretrained(...).save_pretrained(...)` writes"
        ) from None
    definition = json.loads(backend.to_str())
    definition["truncation"] = definition["padding"] = None
    for token in definition["added_tokens"]:  # Phi-3's end of text is special by name alone
        token["special"] = token["special"] or token["content"] in loaded.all_special_tokens
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
        inside=Tokenizer.from_str(json.dumps(without_start(definition))),
        pad_token=pad,
        pad_token_id=backend.get_vocab(with_added_tokens=True)[pad],
    )


def transformers_tokenizer(directory: Path) -> Any:
    """The tokenizer of a checkpoint, or of a file, as transformers has it. A file of a well-known
    name is read with the settings beside it.

    Transformers 5 writes a new name for the plain kind into tokenizer_config.json, and a list of
    special tokens that tokenizer.json marks too. Transformers 4 knows neither, and would remark
    that it loads the kind it is asked for.
    """
    if directory.is_file() and is_named_gguf(directory):
        return gguf_tokenizer(directory)
    if directory.name in FILES and directory.is_file():
        directory = directory.parent
    if directory.is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(directory))
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    renamed = settings.get("tokenizer_class") == "TokenizersBackend"
    listed = isinstance(settings.get("extra_special_tokens"), list)
    if not (renamed or listed) or hasattr(transformers, "TokenizersBackend"):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        return PreTrainedTokenizerFast.from_pretrained(directory, extra_special_tokens={})
    finally:
        transformers.logging.set_verbosity(level)


def text_tokenizer(
    source: SourceTokenizer, lead: str, *, opens: bool = False, control: Container[int] = ()
) -> dict[str, Any]:
    """The bundle's tokenizer.json: texts only, `lead` written before each that is not empty.

    Ensures that for every text of one character or more the ids are those that the source gives
    for `lead + text`, control tokens taken as characters. With a lead there are two exceptions: a
    text that is nothing but one kept added token (`<b>`) does not get it, and runs of a literal
    U+2581 are tokenised like the spaces that the vocabulary writes with it.

    Args:
        lead: white space; `SourceTokenizer.lead` says which.
        opens: the lead is the tokenizer's own dummy prefix, which yields to a text that begins
            with an added token or, where the tokenizer has it so, with a space.
        control: ids of added tokens that are control tokens besides those marked special.

    Raises:
        UnsupportedError: a lead cannot be written with this tokenizer's added tokens.
    """
    definition = without_start(source.definition)
    added = definition["added_tokens"]
    kept = [t for t in added if not (t["id"] in control or _is_dropped(t, lead))]
    definition["added_tokens"] = kept
    _keep_ids(definition["model"], added, kept)
    first = lead_normalizers(source.definition, kept, lead, opens)
    definition["normalizer"] = normalizers([*first, *parts(definition["normalizer"])])
    return definition


def _keep_ids(
    model: dict[str, Any], added: list[dict[str, Any]], kept: list[dict[str, Any]]
) -> None:
    """Write the added tokens into the model's vocabulary: those that it lacks are numbered anew
    whenever the tokenizer is read, which would renumber them when others are left out.

    Raises:
        UnsupportedError: a vocabulary by position, which has no place for them.
    """
    if isinstance(model["vocab"], dict):
        model["vocab"] |= {token["content"]: token["id"] for token in added}
        return
    pieces = {piece for piece, _ in model["vocab"]}
    lacking = [token["content"] for token in kept if token["content"] not in pieces]
    if lacking and len(kept) < len(added):
        raise UnsupportedError(
            f"this tokenizer's added token {lacking[0]!r} is not in its {model['type']} "
            "vocabulary, so the text's tokenizer cannot keep its id; mark it special in "
            "tokenizer.json"
        )


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
