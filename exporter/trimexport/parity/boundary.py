"""Where a text and the prompt around it fuse: how often, and a prompt that avoids it.

A tokenizer that splits by regular expression takes a full stop and the line break behind it for one
piece (Llama 3, Qwen). With a space between them it does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from trimexport.prompt.template import PromptTemplate, join, literal_template, tokenise_prompt
from trimexport.prompt.tokenizer import SourceTokenizer, text_tokenizer

from .report import GAP_WARNING

_MOST_TEXTS = 500
_Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Boundary:
    """The template to propose, or None, and whether the part before the text is at fault."""

    proposal: PromptTemplate | None
    at_prefix: bool


def examine(template: PromptTemplate, tokenizer: SourceTokenizer, texts: Sequence[str]) -> Boundary:
    """Look for what fuses, on at most 500 of the texts, evenly spread."""
    sample = texts[:: max(1, -(-len(texts) // _MOST_TEXTS))]
    own = _text_ids(template, tokenizer, sample)
    at_prefix = gap_share(with_suffix(template, ""), tokenizer, sample, own) > GAP_WARNING
    return Boundary(clean_suffix(template, tokenizer, sample, own), at_prefix)


def clean_suffix(
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
    texts: Sequence[str],
    own: _Ids | None = None,
) -> PromptTemplate | None:
    """The template with other white space behind `{text}` whose gap is zero on the texts, or else
    at most GAP_WARNING and smaller than now: of several equal ones the nearest to what stands
    there. None where there is none, as in a template without a suffix. `own` as in `gap_share`."""
    if not template.suffix:
        return None
    own = _text_ids(template, tokenizer, texts) if own is None else own
    least, best = gap_share(template, tokenizer, texts, own), None
    for candidate in _rewrites(template):
        share = gap_share(candidate, tokenizer, texts, own)
        if share <= GAP_WARNING and share < least:
            least, best = share, candidate
        if best and not least:
            break
    return best


def gap_share(
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
    texts: Sequence[str],
    own: _Ids | None = None,
) -> float:
    """Share of the texts whose ids differ between segments and the joined string. `own` are the
    texts' own ids where they are known: they take a tokenizer of their own, slow to make."""
    own = _text_ids(template, tokenizer, texts) if own is None else own
    prompt = tokenise_prompt(template, tokenizer)
    different = sum(
        (*prompt.prefix_ids, *ids, *prompt.suffix_ids)
        != tokenizer.encode_start(join(template, text))
        for text, ids in zip(texts, own, strict=True)
    )
    return different / max(len(texts), 1)


def with_suffix(template: PromptTemplate, suffix: str) -> PromptTemplate:
    """The template with another suffix."""
    return literal_template(template.prefix, suffix)


def _rewrites(template: PromptTemplate) -> list[PromptTemplate]:
    """The template with other white space behind the text, the nearest first."""
    body = template.suffix.lstrip()
    blank = template.suffix[: len(template.suffix) - len(body)]
    tried = (" " + blank, blank.lstrip(" "), "\n", " \n", "\n\n", " \n\n", " ", "")
    kept = [item for item in dict.fromkeys(tried) if item != blank and item + body]
    return [with_suffix(template, item + body) for item in kept]


def _text_ids(
    template: PromptTemplate, tokenizer: SourceTokenizer, texts: Sequence[str]
) -> list[list[int]]:
    """The texts' own ids, which do not depend on the suffix."""
    prompt = tokenise_prompt(template, tokenizer)
    definition = text_tokenizer(tokenizer, prompt.text_lead, opens=prompt.opens)
    own = Tokenizer.from_str(json.dumps(definition))
    return [own.encode(text, add_special_tokens=False).ids for text in texts]
