"""The prompt as token ids: the segments of a template, each tokenised apart."""

from __future__ import annotations

from dataclasses import dataclass

from trimexport.errors import SpecError, UnsupportedError
from trimexport_runtime.bundle import Field

from .template import PromptTemplate, TemplateField
from .tokenizer import SourceTokenizer

_WORDS = ("the", "and", "in")
"""Words that are tokens of nearly every vocabulary."""


@dataclass(frozen=True)
class PromptIds:
    """The prompt as token ids.

    `prefix_ids` begin with the tokenizer's own start tokens (bos). `text_lead` is the white space
    that the bundle's tokenizer writes before each text, and `lead_is_dummy` says that it is the
    tokenizer's own dummy prefix (see `tokenizer.text_tokenizer`); where fields need different ones,
    the tokenizer writes none, and `fields` have their own. `examples` are the texts of the examples
    in the prompt.
    """

    template: PromptTemplate
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    text_lead: str
    lead_is_dummy: bool = False
    fields: tuple[Field, ...] = (Field("text"),)
    examples: tuple[str, ...] = ()

    @property
    def leads_differ(self) -> bool:
        """Whether fields have white space before them that the tokenizer does not write."""
        return any(field.lead for field in self.fields)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for the user where clients that know pairs cannot make the bundle's ids."""
        if not self.leads_differ or len(self.template.required) > 2:
            return ()
        return (
            "some fields have a space before them and others none, which the tokenizer files of a "
            "bundle cannot say: transformers and other clients would leave out what stands between "
            "the fields, and trimexport-runtime alone writes it; end what stands before each field "
            "in a space, or none, to have both",
        )


def tokenise_prompt(
    template: PromptTemplate, tokenizer: SourceTokenizer, *, ended: bool = False
) -> PromptIds:
    """Tokenise the segments around the fields, each separately.

    Args:
        ended: write the tokenizer's end tokens behind the suffix, as it does after a string.

    Raises:
        SpecError: two fields have nothing between them, and their texts would fuse.
        UnsupportedError: fields need different white space before them, of which one is a dummy
            prefix.
    """
    _check_apart(template, tokenizer)
    leads = _leads(template, tokenizer)
    alike = len(set(leads)) == 1
    lead, is_dummy = leads[0] if alike else ("", False)
    own = [""] * len(leads) if alike else [lead for lead, _ in leads]
    fields = zip(template.fields, own, strict=True)
    suffix_ids = tokenizer.encode_inside(template.suffix.rstrip(" "))
    return PromptIds(
        template=template,
        prefix_ids=tokenizer.encode_start(template.prefix.rstrip(" "), rendered=template.rendered),
        suffix_ids=(*suffix_ids, *tokenizer.end_ids) if ended else suffix_ids,
        text_lead=lead,
        lead_is_dummy=is_dummy,
        fields=tuple(_field(field, lead, tokenizer) for field, lead in fields),
    )


def _field(field: TemplateField, lead: str, tokenizer: SourceTokenizer) -> Field:
    before = tokenizer.encode_inside(field.before.rstrip(" "))
    return Field(field.name, before=before, lead=lead, default=field.default)


def _leads(template: PromptTemplate, tokenizer: SourceTokenizer) -> list[tuple[str, bool]]:
    """The white space before each field, and whether it is the tokenizer's dummy prefix.

    Raises:
        UnsupportedError: they differ, and one is a dummy prefix, which is not before every text.
    """
    leads = []
    for place, piece in enumerate(template.pieces):
        bare = piece.rstrip(" ")
        leads.append(tokenizer.lead(bare, piece[len(bare) :], inside=place > 0))
    if len(set(leads)) > 1 and any(is_dummy for _, is_dummy in leads):
        dummy = next(
            field.name
            for field, (_, is_dummy) in zip(template.fields, leads, strict=True)
            if is_dummy
        )
        raise UnsupportedError(
            f"this tokenizer writes a space of its own before the field {{{dummy}}} and not before "
            "each other, which a bundle cannot do; write a word or sign before every field, and "
            "begin the prompt with one"
        )
    return leads


def _check_apart(template: PromptTemplate, tokenizer: SourceTokenizer) -> None:
    """Raise SpecError where two fields have nothing at all between them and the tokenizer makes one
    token of the end of a text and the start of another: the model would never have read the tokens
    of the two apart."""
    before = template.fields[0].name
    for field in template.fields[1:]:
        if not field.before:
            for word in _WORDS:
                parts = word[:1], word[1:]
                apart = [token for part in parts for token in tokenizer.encode_inside(part)]
                if list(tokenizer.encode_inside(word)) != apart:
                    raise SpecError(
                        f"the fields {{{before}}} and {{{field.name}}} have nothing between them, "
                        f"and this tokenizer fuses texts that meet ({parts[0]!r} and {parts[1]!r} "
                        f"to {word!r}); write a space, a line break or a word between them"
                    )
        before = field.name


def control_tokens(template: PromptTemplate, tokenizer: SourceTokenizer) -> frozenset[int]:
    """The added tokens that a text must not contain, besides those marked special: those that the
    prompt has itself, where it is a chat, which they steer, marked or not (Qwen3's `</think>` is
    not marked). A chat is what a chat template wrote, or what has a special token in it; in the
    latter, tokens of white space alone stay what they are.
    """
    added = {token["id"]: token for token in tokenizer.definition["added_tokens"]}
    found = {
        token: added[token]
        for piece in (*template.pieces, template.suffix)
        for token in tokenizer.encode_inside(piece.rstrip(" "))
        if token in added
    }
    if template.rendered:
        return frozenset(found)
    if not any(token["special"] for token in found.values()):
        return frozenset()
    return frozenset(number for number, token in found.items() if not _is_blank(token["content"]))


def _is_blank(content: str) -> bool:
    return not content.replace("\u2581", " ").strip()
