"""From a text to the token ids that the graph takes: the bundle's tokenizer and its limit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from .bundle import Manifest, TextLimit
from .errors import BundleError, InputError
from .long_text import Reach, Tokenise, first_ids, first_part, last_ids, reach_of

TOKENIZER, CONFIG = "tokenizer.json", "config.json"
_NORMALISED = 4  # characters that a normaliser makes into one, at most


@dataclass(frozen=True)
class Encoded:
    """A text's own token ids, int64 `[tokens]`, and whether some were cut off."""

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


_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # how Python keeps bytes that are not UTF-8
_OF_BYTES = 'the text comes from bytes that are not UTF-8: decode those with errors="replace"'
_OF_HALVES = (
    "it is half of a character that was cut in two: write both halves, in JSON as "
    r"\ud83d\ude00, or leave it out"
)


def problem_of(text: object) -> str | None:
    """Why `text` cannot be tokenised, or None when it can: it must be a str of characters."""
    if not isinstance(text, str):
        return f"a text must be a str, this is {type(text).__name__}; convert it first"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return (
            f"character {error.start} is the lone surrogate U+{code:04X}, which is no character; "
            + (_OF_BYTES if code in _ESCAPED_BYTES else _OF_HALVES)
        )
    return None


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
    ) -> None:
        """Args:
        known: how many tokens the model's embedding has a row for, if that is known.
        """
        self._tokenizer = tokenizer
        self._limit = limit
        self._allow_empty = allow_empty
        self._known = known

    @classmethod
    def load(cls, bundle: Path, manifest: Manifest) -> TextEncoder:
        """Read the bundle's `tokenizer.json`, and from its `config.json` how many tokens the model
        knows.

        Raises:
            BundleError: the tokenizer is missing, or one of the two cannot be read.
        """
        path = bundle / TOKENIZER
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
        prompt = manifest.prompt
        return cls(
            tokenizer,
            manifest.text_limit,
            allow_empty=bool(prompt.prefix_ids or prompt.suffix_ids),
            known=_tokens_known(bundle / CONFIG),
        )

    @cached_property
    def most_characters(self) -> int:
        """The most characters that a text within the limit can have, whatever its tokens are."""
        return _NORMALISED * self._reach.characters * self._limit.tokens

    def encode(self, text: str, *, aside: bool = False, bounded: bool = False) -> Encoded:
        """The text's token ids, cut to the bundle's limit at its end or its start.

        Args:
            aside: let other Python threads run meanwhile. Then `tokenizers` starts threads of its
                own, unless TOKENIZERS_PARALLELISM is false.
            bounded: refuse a text of which more than `most_characters` would be tokenised at once.

        Raises:
            InputError: the text is no str, has a lone surrogate or a token that the model does not
                know, leaves nothing to classify, or is refused as `bounded` says.
        """
        if problem := problem_of(text):
            raise InputError(problem)
        ids = self._kept_and_more(text, partial(self._ids, aside=aside, bounded=bounded))
        if not ids and not self._allow_empty:
            raise InputError(
                "the text has no tokens and this bundle's prompt has none either, so there is "
                "nothing to classify; leave empty texts out"
            )
        excess = len(ids) - self._limit.tokens
        if excess > 0:
            ids = ids[:-excess] if self._limit.truncate == "end" else ids[excess:]
        self._check_known(ids)
        return Encoded(np.asarray(ids, dtype=np.int64), excess > 0)

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
        """The ids of a text, or if these are more than the limit, enough of them to see that, at
        the end that is kept."""
        if len(text) < 2 * first_part(self._limit.tokens):
            return tokenise(text)
        find = first_ids if self._limit.truncate == "end" else last_ids
        return find(text, self._limit.tokens, tokenise, self._reach)

    @cached_property
    def _reach(self) -> Reach:
        return reach_of(self._tokenizer)

    def _ids(self, text: str, *, aside: bool, bounded: bool) -> list[int]:
        if bounded and len(text) > self.most_characters:
            raise InputError(
                f"the text is much longer than {self._limit.tokens:,} tokens and has no words by "
                "which it could be cut, so all of it would be tokenised; shorten it"
            )
        if aside:
            return self._tokenizer.encode_batch([text], add_special_tokens=False)[0].ids
        return self._tokenizer.encode(text, add_special_tokens=False).ids
