"""The model's tokenizer, and the two that are derived from it.

- The **source** tokenizer is for a whole string: it adds bos, and the model's dummy prefix if it
  has one.
- The **inside** tokenizer is for a segment that continues a string: it adds neither. Control tokens
  still work, so that the author of a prompt can use them.
- The **text** tokenizer goes into the bundle. It is the inside tokenizer, except that control
  tokens in a text are characters, and that it writes the white space that ends the prefix before
  the text (see `text_lead`).
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trimexport.errors import CheckpointError, UnsupportedError, reason_of
from trimexport.source.gguf_place import is_named_gguf
from trimexport_runtime.tokenize import panics_caught

from .gguf_tokenizer import gguf_tokenizer
from .merges import needed_merges
from .text_lead import lead_normalizers
from .tokenizer_json import (
    dummy_prefix,
    normalizers,
    parts,
    special_ids_around,
    without_start,
)

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class SourceTokenizer:
    """The tokenizer as transformers loads it. `definition` is its tokenizer.json, `whole` tokenises
    a whole string, and `inside` continues one. `padding` are the tokens that may be padding, the
    best first, with their ids."""

    definition: dict[str, Any] = field(repr=False)
    whole: Tokenizer = field(repr=False)
    inside: Tokenizer = field(repr=False)
    padding: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, definition: dict[str, Any], padding: tuple[tuple[str, int], ...]) -> Self:
        """The tokenizer with this tokenizer.json."""
        return cls(
            definition=definition,
            whole=Tokenizer.from_str(json.dumps(definition, allow_nan=False)),
            inside=Tokenizer.from_str(json.dumps(without_start(definition), allow_nan=False)),
            padding=padding,
        )

    @property
    def pad_token(self) -> str:
        """The token for padding."""
        return self.padding[0][0]

    @property
    def pad_token_id(self) -> int:
        """The id of the token for padding."""
        return self.padding[0][1]

    @cached_property
    def merges(self) -> list[Any] | None:
        """The merges that texts can need, which may take seconds; None if the model has none."""
        model = self.definition["model"]
        return needed_merges(model) if "merges" in model else None

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer writes after a string."""
        return special_ids_around(self.definition)[1]

    def lead(self, prefix: str, spaces: str, *, inside: bool = False) -> tuple[str, bool]:
        """The white space before a text that follows `prefix` and then `spaces`, and whether it is
        the tokenizer's own dummy prefix.

        A dummy prefix is written at the start of the string and, by tokenizers that write one
        before each piece, behind an added token.

        Args:
            prefix: does not end in a space.
            inside: other text stands before the prefix.
        """
        added = self._added_at_end(prefix)
        if added and added["rstrip"]:
            spaces = ""
        dummy = dummy_prefix(self.definition)
        started = inside or bool(prefix)
        if not dummy or (started and not (added and dummy.every)):
            return spaces, False
        if not spaces:
            return " ", True
        return (spaces if dummy.unless else " " + spaces), False

    def encode_start(self, text: str, *, rendered: bool = False) -> tuple[int, ...]:
        """The ids of the segment that starts a string, with bos and dummy prefix, if the model has
        them, and without end tokens.

        Args:
            rendered: a chat template wrote the text, bos included, so bos is not added.
        """
        ids = self.whole.encode(text, add_special_tokens=False).ids
        start = () if rendered else special_ids_around(self.definition)[0]
        return (*start, *ids)

    def encode_inside(self, text: str) -> tuple[int, ...]:
        """The ids of a segment that continues a string. If the tokenizer writes a dummy prefix
        before every piece, it is written behind the segment's first added token and later ones."""
        dummy = dummy_prefix(self.definition)
        start = self._first_added(text) if dummy and dummy.every else len(text)
        before = self.inside.encode(text[:start], add_special_tokens=False).ids
        return (*before, *self.whole.encode(text[start:], add_special_tokens=False).ids)

    def _first_added(self, text: str) -> int:
        """The place in the text where its first added token starts, with the white space that the
        token takes before it; the text's length if there is none."""
        added = {token["id"] for token in self.definition["added_tokens"]}
        encoding = self.inside.encode(text, add_special_tokens=False)
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        return next((start for token, (start, _) in spans if token in added), len(text))

    def _added_at_end(self, text: str) -> dict[str, Any] | None:
        """The added token that ends the text, with the white space that the token takes behind it,
        or None."""
        encoding = self.whole.encode(text, add_special_tokens=False)
        if not encoding.ids or encoding.offsets[-1][1] < len(text):
            return None
        added = {token["id"]: token for token in self.definition["added_tokens"]}
        return added.get(encoding.ids[-1])

    def token(self, token_id: int) -> str:
        """The vocabulary's spelling of a token: `▁positive`."""
        return str(self.whole.id_to_token(token_id))


def load_tokenizer(directory: Path) -> SourceTokenizer:
    """Load the tokenizer of a checkpoint, or that of a single file, as transformers does.

    Raises:
        CheckpointError: there is none, or one that the `tokenizers` library cannot express.
    """
    if directory.is_dir() and not any((directory / name).is_file() for name in FILES):
        raise CheckpointError(
            f"{directory} has no tokenizer: none of {', '.join(FILES)}; copy the model's own "
            "tokenizer files beside its weights, or name their directory with --tokenizer"
        )
    try:
        with panics_caught():
            loaded = transformers_tokenizer(directory)
            return SourceTokenizer.of(_definition(loaded), _padding(loaded, directory))
    except CheckpointError:
        raise
    except Exception as error:  # `tokenizers` raises no other, transformers many
        raise CheckpointError(
            f"the tokenizer of {directory} cannot be loaded ({reason_of(error)}); the directory "
            "needs a tokenizer.json, as `AutoTokenizer.from_pretrained(...).save_pretrained(...)` "
            "writes"
        ) from None


def _definition(loaded: Any) -> dict[str, Any]:
    """The tokenizer.json of a tokenizer of transformers, which cuts and pads nothing."""
    numbers = loaded.backend_tokenizer.get_vocab(with_added_tokens=False)
    if len(set(numbers.values())) < len(numbers):  # `to_str` would write one of them, by chance
        raise ValueError("its vocabulary gives two tokens one id")
    definition: dict[str, Any] = json.loads(loaded.backend_tokenizer.to_str())
    definition["truncation"] = definition["padding"] = None
    for token in definition["added_tokens"]:  # Phi-3's end of text is special by name alone
        token["special"] = token["special"] or token["content"] in loaded.all_special_tokens
    special_ids_around(definition)  # which refuses tokens that are none
    return definition


def _padding(loaded: Any, directory: Path) -> tuple[tuple[str, int], ...]:
    """The tokens that may be padding, with their ids: the tokenizer's own, its end token, its
    unknown token and the vocabulary's first one.

    Raises:
        CheckpointError: it has none of them.
    """
    backend = loaded.backend_tokenizer
    tokens = (loaded.pad_token, loaded.eos_token, loaded.unk_token, backend.id_to_token(0))
    ids = {str(it): backend.token_to_id(it) for it in tokens if it is not None}
    padding = tuple((token, number) for token, number in ids.items() if number is not None)
    if not padding:
        raise CheckpointError(
            f"the tokenizer of {directory} has no token that could be padding: neither a pad, an "
            "end nor an unknown token, and no token 0; name one in tokenizer_config.json"
        )
    return padding


def transformers_tokenizer(directory: Path) -> Any:
    """The tokenizer of a checkpoint, or of a file, as a transformers object. A file of a well-known
    name is read with the settings beside it.

    Transformers 5 writes a new class name for the plain kind into tokenizer_config.json, and a list
    of special tokens that tokenizer.json marks as well. Transformers 4 knows neither: it gets the
    class by its old name, and its warning about the two names is silenced.
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
    source: SourceTokenizer, lead: str, *, is_dummy: bool = False, control: Container[int] = ()
) -> dict[str, Any]:
    """The bundle's tokenizer.json. It is for texts only, and writes `lead` before each that is not
    empty.

    For every text of one character or more the ids are those that the source gives for
    `lead + text` with control tokens taken as characters. With a lead there are two exceptions: a
    text that is a single kept added token (`<b>`) does not get it, and runs of a literal U+2581 are
    tokenised like the spaces that the vocabulary writes with it.

    Args:
        lead: white space, from `SourceTokenizer.lead`.
        is_dummy: the lead is the tokenizer's own dummy prefix, which is left out before a text that
            begins with an added token or, in some tokenizers, with a space.
        control: ids of added tokens that are control tokens besides those marked special.

    Raises:
        UnsupportedError: a lead cannot be written with this tokenizer's added tokens.
    """
    definition = without_start(source.definition)
    added = definition["added_tokens"]
    kept = [token for token in added if not (token["id"] in control or _is_dropped(token, lead))]
    definition["added_tokens"] = kept
    _keep_ids(definition["model"], added, kept)
    if source.merges is not None:
        definition["model"]["merges"] = source.merges
    first = lead_normalizers(source.definition, kept, lead, is_dummy)
    definition["normalizer"] = normalizers([*first, *parts(definition["normalizer"])])
    return definition


def _keep_ids(
    model: dict[str, Any], added: list[dict[str, Any]], kept: list[dict[str, Any]]
) -> None:
    """Write the added tokens into the model's vocabulary, so that they keep their ids. Tokens that
    it lacks are numbered when the tokenizer is read, so leaving some out would renumber others.
    The vocabulary is sorted as `tokenizers` sorts it when it reads it, which is quicker then.

    Raises:
        UnsupportedError: the vocabulary is a list, which gives ids by position.
    """
    if isinstance(model["vocab"], dict):
        own = {token["content"]: token["id"] for token in added}
        model["vocab"] = dict(sorted({**model["vocab"], **own}.items()))
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
    """The bundle's tokenizer_config.json, for clients that build the tokenizer from it."""
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
    """Whether the text tokenizer has to do without an added token.

    That is so for control tokens, which must not work in a text, and, with a lead, for tokens of
    U+2581 alone: matched after normalisation they would take the text's spaces, which the source
    leaves to the merges.
    """
    return bool(token["special"]) or (bool(lead) and set(token["content"]) == {"\u2581"})
