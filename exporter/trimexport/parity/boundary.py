"""The boundary between a text and its prompt: how often they fuse, and a prompt that avoids it.

A tokenizer that splits by regular expression takes a full stop and the line break behind it for one
piece (Llama 3, Qwen). With a space between them it does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from trimexport.prompt.prompt_ids import tokenise_prompt
from trimexport.prompt.template import PromptTemplate, join, with_suffix
from trimexport.prompt.tokenizer import SourceTokenizer, text_tokenizer
from trimexport_runtime.bundle import TextLimit
from trimexport_runtime.tokenize import TextEncoder

from .warnings import GAP_WARNING

_MOST_TEXTS = 500
_Ids = Sequence[Sequence[int]]
_Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class GapCause:
    """Why prompt and texts fuse. `proposal` is a template that avoids it, or None; `at_prefix` says
    that the part before the only text is at fault."""

    proposal: PromptTemplate | None
    at_prefix: bool


def find_gap_cause(template: PromptTemplate, tokenizer: SourceTokenizer, rows: _Rows) -> GapCause:
    """Find out why the prompt fuses with texts, from at most 500 rows of them, evenly spread.

    Args:
        rows: the texts of all fields, for each row.
    """
    sample = rows[:: max(1, -(-len(rows) // _MOST_TEXTS))]
    text_ids = _text_ids(template, tokenizer, sample)
    before = gap_share(with_suffix(template, ""), tokenizer, sample, text_ids) > GAP_WARNING
    proposal = with_clean_suffix(template, tokenizer, sample, text_ids)
    return GapCause(proposal, at_prefix=before and len(template.fields) == 1)


def with_clean_suffix(
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
    rows: _Rows,
    text_ids: _Ids | None = None,
) -> PromptTemplate | None:
    """The template with the white space behind its last field that fuses with the fewest texts.

    Its gap is zero, or else at most GAP_WARNING and smaller than the template's own; of equal ones
    it is the nearest to the template. None if there is none, or no suffix.

    Args:
        text_ids: as in `gap_share`.
    """
    if not template.suffix:
        return None
    text_ids = _text_ids(template, tokenizer, rows) if text_ids is None else text_ids
    least, best = gap_share(template, tokenizer, rows, text_ids), None
    for candidate in _rewrites(template):
        share = gap_share(candidate, tokenizer, rows, text_ids)
        if share <= GAP_WARNING and share < least:
            least, best = share, candidate
        if best and not least:
            break
    return best


def gap_share(
    template: PromptTemplate,
    tokenizer: SourceTokenizer,
    rows: _Rows,
    text_ids: _Ids | None = None,
) -> float:
    """The share of rows whose ids differ between segments and the joined string.

    Args:
        rows: the texts of all fields, for each row.
        text_ids: the ids of the fields and of what stands between them, where the caller has them.
            They take a tokenizer that is slow to make.
    """
    text_ids = _text_ids(template, tokenizer, rows) if text_ids is None else text_ids
    prompt = tokenise_prompt(template, tokenizer)
    different = sum(
        (*prompt.prefix_ids, *ids, *prompt.suffix_ids)
        != tokenizer.encode_start(join(template, row))
        for row, ids in zip(rows, text_ids, strict=True)
    )
    return different / max(len(rows), 1)


def _rewrites(template: PromptTemplate) -> list[PromptTemplate]:
    """The template with other white space behind the text, the nearest to its own first."""
    body = template.suffix.lstrip()
    own = template.suffix[: len(template.suffix) - len(body)]
    blanks = (" " + own, own.lstrip(" "), "\n", " \n", "\n\n", " \n\n", " ", "")
    others = [blank for blank in dict.fromkeys(blanks) if blank != own and blank + body]
    return [with_suffix(template, blank + body) for blank in others]


def _text_ids(template: PromptTemplate, tokenizer: SourceTokenizer, rows: _Rows) -> list[list[int]]:
    """The ids of each row's fields and of what stands between them, which do not depend on the
    suffix."""
    prompt = tokenise_prompt(template, tokenizer)
    definition = text_tokenizer(tokenizer, prompt.text_lead, is_dummy=prompt.lead_is_dummy)
    texts_tokenizer = Tokenizer.from_str(json.dumps(definition, allow_nan=False))
    limit = TextLimit(sys.maxsize, "end")
    encoder = TextEncoder(texts_tokenizer, limit, allow_empty=True, fields=prompt.fields)
    names = [field.name for field in prompt.fields]
    return [encoder.encode(dict(zip(names, row, strict=True))).ids.tolist() for row in rows]
