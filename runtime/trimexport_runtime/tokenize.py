"""From texts to the token ids that the graph takes: the bundle's tokenizer, the ids between the
fields of its prompt, and its limit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .bundle import Field, Manifest, TextLimit
from .errors import BundleError, InputError, NoRoomError
from .inputs import Input, texts_of
from .long_text import Reach, Tokenise, first_ids, first_part, last_ids, reach_of

TOKENIZER, CONFIG = "tokenizer.json", "config.json"
_NORMALISED = 4  # characters that a normaliser makes into one, at most


@dataclass(frozen=True)
class Encoded:
    """The token ids of a text, or of all fields and what stands between them, int64 `[tokens]`; and
    whether some were cut off."""

    ids: npt.NDArray[np.int64]
    truncated: bool


@contextmanager
def panics_caught() -> Iterator[None]:
    """Makes a ValueError of a panic of `tokenizers`, with which it meets some damaged files, and
    which is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # it cannot be imported
            raise
        raise ValueError(f"tokenizers fails on it: {error}") from None


def _tokens_known(path: Path) -> int | None:
    """The `vocab_size` of a bundle's config.json, or None if it does not say."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error}); copy the bundle again") from None
    rows = config.get("vocab_size") if isinstance(config, dict) else None
    if rows is not None and (type(rows) is not int or rows < 1):  # a bool is an instance of int
        raise BundleError(
            f"{path} says vocab_size {str(rows)[:60]!r}, which is no number of tokens; copy the "
            "bundle again"
        )
    return rows


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and how many tokens the model has a row for, if that is known. The encoders of
    several prompts may share it."""

    tokenizer: Tokenizer
    known: int | None

    @classmethod
    def load(cls, directory: Path) -> Vocabulary:
        """Read `tokenizer.json` of a bundle or a backbone, and from its `config.json` how many
        tokens the model knows.

        Raises:
            BundleError: the tokenizer is missing, or one of the two cannot be read.
        """
        path = directory / TOKENIZER
        try:
            with panics_caught():
                tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(
                f"{path} cannot be read as a tokenizer ({error}); "
                "copy the bundle again or upgrade `tokenizers`"
            ) from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # "<eos>" in a text is these five characters
        return cls(tokenizer, _tokens_known(directory / CONFIG))

    @cached_property
    def reach(self) -> Reach:
        """How far the tokens reach, which takes a moment to find."""
        return reach_of(self.tokenizer)

    def encoder(self, manifest: Manifest) -> TextEncoder:
        """The encoder of texts for the prompt of a manifest."""
        prompt = manifest.prompt
        return TextEncoder(
            self.tokenizer,
            manifest.text_limit,
            allow_empty=bool(prompt.prefix_ids or prompt.suffix_ids or manifest.questions),
            known=self.known,
            fields=prompt.places,
            reach=lambda: self.reach,
        )


class TextEncoder:
    """Tokenises texts for one bundle. It never changes once made, so threads may share it.

    Of a text that is much longer than the limit, only the part that is kept is tokenised, where
    `long_text` can say which that is. Otherwise time is near to linear in the text's length: a
    million characters take one to four seconds.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        limit: TextLimit,
        *,
        allow_empty: bool,
        known: int | None = None,
        fields: tuple[Field, ...] = (Field("text"),),
        reach: Callable[[], Reach] | None = None,
    ) -> None:
        """Args:
        allow_empty: take a row without tokens, because there are some around it.
        known: how many tokens the model's embedding has a row for, if that is known.
        fields: the prompt's.
        reach: gives the tokenizer's where that is shared.
        """
        self._tokenizer = tokenizer
        self._limit = limit
        self._allow_empty = allow_empty
        self._known = known
        self._fields = fields
        self._find_reach = reach or partial(reach_of, tokenizer)
        self._cut = fields[-1].name if limit.field is None else limit.field

    @classmethod
    def load(cls, bundle: Path, manifest: Manifest) -> TextEncoder:
        """Read the bundle's `tokenizer.json`, and from its `config.json` how many tokens the model
        knows.

        Raises:
            BundleError: the tokenizer is missing, or one of the two cannot be read.
        """
        return Vocabulary.load(bundle).encoder(manifest)

    @cached_property
    def most_characters(self) -> int:
        """The most characters that a text within the limit can have, whatever its tokens are."""
        return _NORMALISED * self._reach.characters * self._limit.tokens

    def encode(self, given: Input, *, aside: bool = False, bounded: bool = False) -> Encoded:
        """The token ids of an input, cut to the bundle's limit at the end or the start of the one
        field that is cut.

        Args:
            given: a text, or one for each field.
            aside: let other Python threads run meanwhile. Then `tokenizers` starts threads of its
                own, unless TOKENIZERS_PARALLELISM is false.
            bounded: refuse a text of which more than `most_characters` would be tokenised at once.

        Raises:
            InputError: it is no input of this bundle, a text is no str, has a lone surrogate or a
                token that the model does not know, there is nothing to classify, or it is refused
                as `bounded` says.
            NoRoomError: fields that are not cut leave no room for the one that is.
        """
        tokenise = partial(self._ids, aside=aside, bounded=bounded)
        parts = [
            self._field_ids(field, text, tokenise)
            for field, text in zip(self._fields, texts_of(self._fields, given), strict=True)
        ]
        truncated = self._cut_to_room(parts)
        befores = (field.before for field in self._fields)
        ids = [it for pair in zip(befores, parts, strict=True) for part in pair for it in part]
        if not ids and not self._allow_empty:
            raise InputError(
                "the text has no tokens and this bundle's prompt has none either, so there is "
                "nothing to classify; leave empty texts out"
            )
        self._check_known(ids)
        return Encoded(np.asarray(ids, dtype=np.int64), truncated)

    def _field_ids(self, field: Field, text: str, tokenise: Tokenise) -> list[int]:
        """The ids of a field's text; if they are more than the limit, enough of them to see that,
        at the end that is kept."""
        try:
            return self._kept_and_more(field.lead + text if text else text, tokenise)
        except InputError as error:
            if len(self._fields) == 1:
                raise
            raise InputError(f"{field.name}: {error}") from None

    def _cut_to_room(self, parts: list[list[int]]) -> bool:
        """Cut the ids of the field that is cut to the room that the others leave; whether there was
        something to cut."""
        place = next(at for at, field in enumerate(self._fields) if field.name == self._cut)
        taken = sum(len(field.before) for field in self._fields) + sum(map(len, parts))
        room = self._limit.tokens - (taken - len(parts[place]))
        excess = len(parts[place]) - room
        if excess <= 0:
            return False
        if room < 1:
            others = [field.name for field in self._fields if field.name != self._cut]
            raise NoRoomError(
                f"{' and '.join(others)} with what the prompt has between the fields: "
                f"{self._limit.tokens - room:,} tokens or more, of {self._limit.tokens:,} for all, "
                f"which leave no room for {self._cut}, the field that is cut; shorten "
                f"{'it' if len(others) == 1 else 'them'}"
            )
        kept = parts[place]
        parts[place] = kept[:-excess] if self._limit.truncate == "end" else kept[excess:]
        return True

    def _check_known(self, ids: Sequence[int]) -> None:
        """Refuse a token that the embedding has no row for. Builds leave such tokens out of the
        tokenizer; earlier ones did not."""
        if self._known is None or max(ids, default=0) < self._known:
            return
        token = next(it for it in ids if it >= self._known)
        raise InputError(
            f"the text has the token {self._tokenizer.id_to_token(token)!r} ({token}), and the "
            f"model knows {self._known:,}; leave it out of the text, or build the bundle again, so "
            "that it is read as characters"
        )

    def _kept_and_more(self, text: str, tokenise: Tokenise) -> list[int]:
        """The ids of a text, or more of them than the limit, from the end that is kept."""
        if len(text) < 2 * first_part(self._limit.tokens):
            return tokenise(text)
        find = first_ids if self._limit.truncate == "end" else last_ids
        return find(text, self._limit.tokens, tokenise, self._reach)

    @cached_property
    def _reach(self) -> Reach:
        return self._find_reach()

    def _ids(self, text: str, *, aside: bool, bounded: bool) -> list[int]:
        if bounded and len(text) > self.most_characters:
            raise InputError(
                f"the text is much longer than {self._limit.tokens:,} tokens and has no words by "
                "which it could be cut, so all of it would be tokenised; shorten it"
            )
        if aside:
            return self._tokenizer.encode_batch([text], add_special_tokens=False)[0].ids
        return self._tokenizer.encode(text, add_special_tokens=False).ids
