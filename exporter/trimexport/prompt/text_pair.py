"""The pair of texts that a fine-tuned classifier was trained on: `tokenizer(text, text_pair)`.

`{text}{text_pair}` alone, with nothing around, stands for it. Each of the two is tokenised as a
string of its own, and what the tokenizer writes before, between and behind them (its separators,
where it has some) is what stands there in the compiled prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimexport_runtime.bundle import Field

from .prompt_ids import PromptIds, tokenise_prompt
from .template import PromptTemplate
from .tokenizer import SourceTokenizer

PAIR = ("text", "text_pair")


def is_text_pair(template: PromptTemplate) -> bool:
    """Whether a template is the pair alone."""
    names = tuple(field.name for field in template.fields)
    return names == PAIR and not any((*template.pieces, template.suffix))


def tokenise_trained(template: PromptTemplate, tokenizer: SourceTokenizer) -> PromptIds:
    """The prompt of a fine-tuned classifier as ids: as `tokenise_prompt` makes them, or around a
    pair, with the tokenizer's end tokens behind it.

    Raises: as `tokenise_prompt`.
    """
    if not is_text_pair(template):
        return tokenise_prompt(template, tokenizer, ended=True)
    around = _around(tokenizer, ("a", "b"))
    lead, is_dummy = tokenizer.lead("", "")
    first, second = (field.default for field in template.fields)
    return PromptIds(
        template=template,
        prefix_ids=around.before,
        suffix_ids=around.behind,
        text_lead=lead,
        lead_is_dummy=is_dummy,
        fields=(Field(PAIR[0], default=first), Field(PAIR[1], around.between, default=second)),
    )


def pair_ids(
    tokenizer: SourceTokenizer, texts: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of a pair as the tokenizer writes them, and its end tokens behind them."""
    around = _around(tokenizer, texts)
    return around.whole[: len(around.whole) - len(around.behind)], around.behind


@dataclass(frozen=True)
class _Around:
    """The ids of a pair, and those that are of neither text."""

    whole: tuple[int, ...]
    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]


def _around(tokenizer: SourceTokenizer, texts: Sequence[str]) -> _Around:
    first_text, second_text = texts
    encoded = tokenizer.whole.encode(first_text, second_text)
    places = range(len(encoded.ids))
    text, pair = ([at for at in places if encoded.sequence_ids[at] == it] for it in (0, 1))
    added = [at for at in places if encoded.sequence_ids[at] is None]
    first = text[0] if text else (pair[0] if pair else len(places))
    last = pair[-1] if pair else (text[-1] if text else first)
    ids = tuple(encoded.ids)
    return _Around(
        whole=ids,
        before=tuple(ids[at] for at in added if at < first),
        between=tuple(ids[at] for at in added if first < at < last),
        behind=tuple(ids[at] for at in added if at > last),
    )
