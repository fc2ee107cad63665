"""The words that may stand for a label: its name, the user's synonyms, other spellings of both, and
words that the model itself would say.

Taking words from what the model says on examples is the dynamic vocabulary selection of decoder
trimming (Thomas 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimexport.errors import SpecError
from trimexport.planning import Setting
from trimexport.prompt.verbalizer import LabelWord, refuse_fragment, tokenise_word

PREFERRED = 10  # the most words of the model's own for a label
LEAST = 1e-3  # by so much such a word is likelier for the label's examples than for the others'
_LOOKED_AT = 300  # tokens, the likeliest first, among which such words are sought

NAME, SYNONYM, FORM, MODEL = "name", "synonym", "form", "model"


@dataclass(frozen=True)
class Candidate:
    """A word as a verbalizer writes it, the token that is read for it, and its origin: `NAME`,
    `SYNONYM`, `FORM` (another spelling of one of these) or `MODEL`."""

    word: str
    token: str
    token_id: int
    origin: str


def candidates_of(
    label: str,
    synonyms: Sequence[str],
    preference: npt.NDArray[np.float32],
    setting: Setting,
) -> tuple[Candidate, ...]:
    """The label's candidates, each with a token of its own, its name first if it can be read.

    The name and the synonyms may be several tokens, of which the first is read, as in a build. The
    other words are one token each.

    Args:
        preference: by how much each token is likelier for this label's examples than for the
            others', float32 [tokens].

    Raises:
        SpecError: a synonym that cannot be read after this prompt.
    """
    by_token: dict[int, Candidate] = {}

    def add(word: LabelWord, origin: str) -> None:
        first = word.token_ids[0]
        by_token.setdefault(first, Candidate(word.word, word.tokens[0], first, origin))

    if written := _readable(label, label, setting):
        add(written, NAME)
    for word in synonyms:
        add(_tokenised(label, word, setting), SYNONYM)
    for word in (label, *synonyms):
        for form in _forms(word):
            written = _readable(label, form, setting)
            if written and len(written.token_ids) == 1:
                add(written, FORM)
    for written in _preferred(label, preference, setting):
        add(written, MODEL)
    return tuple(by_token.values())


def _forms(word: str) -> Iterator[str]:
    """The word's spellings as given, in lower case, Capitalised and in UPPER case, each with and
    without a space before it."""
    bare = word.strip()
    for form in dict.fromkeys((bare, bare.lower(), bare.capitalize(), bare.upper())):
        yield form
        yield " " + form


def _preferred(
    label: str, preference: npt.NDArray[np.float32], setting: Setting
) -> Iterator[LabelWord]:
    """The words of one token that the model prefers for the label, the most preferred first."""
    added = setting.tokenizer.definition["added_tokens"]
    control = {token["id"] for token in added if token["special"]}
    count = 0
    for token in np.argsort(-preference, kind="stable")[:_LOOKED_AT].tolist():
        if preference[token] < LEAST or count == PREFERRED:
            return
        word = None if token in control else _word_of(label, token, setting)
        if word is not None:
            count += 1
            yield word


def _word_of(label: str, token: int, setting: Setting) -> LabelWord | None:
    """The word that becomes this token after the prompt, or None."""
    text = setting.tokenizer.whole.decode([token], skip_special_tokens=False).strip()
    plain = text.isprintable() and not any(map(str.isspace, text))
    if not plain or not any(map(str.isalnum, text)):
        return None
    for word in (text, " " + text):
        written = _readable(label, word, setting)
        if written and written.token_ids == (token,):
            return written
    return None


def _readable(label: str, word: str, setting: Setting) -> LabelWord | None:
    """The word with its tokens after the prompt, or None if it cannot be read there."""
    try:
        return _tokenised(label, word, setting)
    except SpecError:
        return None


def _tokenised(label: str, word: str, setting: Setting) -> LabelWord:
    """The word with its tokens after the prompt.

    Raises:
        SpecError: it cannot be read there.
    """
    template, option = setting.prompt.template, "--synonyms"
    tokenised = tokenise_word(label, word, template, setting.tokenizer, option)
    refuse_fragment(label, tokenised, option)
    return tokenised


def check_synonyms(synonyms: Mapping[str, Sequence[str]], labels: Sequence[str]) -> None:
    """Raise SpecError if synonyms are given for something that is no label."""
    for label in synonyms:
        if label not in labels:
            raise SpecError(
                f'--synonyms names "{label}", which is no label; the labels are {", ".join(labels)}'
            )
