"""The prompt: a template with fields, cut into segments that are tokenised separately.

A field is `{text}`, or of any other name. What stands before the first is the prefix, what stands
behind the last the suffix. Tokenizers take a word together with the space before it. So the spaces
that end what stands before a field are moved to the start of its text, and the spaces that end the
suffix to the start of the label.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimexport.errors import SpecError
from trimexport_runtime.bundle import Field

_PIECE = re.compile(r"\{\{|\}\}|\{[A-Za-z_][A-Za-z0-9_]*(?:=[^{}]*)?\}|\{|\}|[^{}]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
# Signs that a word follows without a space: `("positive`.
_OPENING = "([{<\"'`«“‘„"


@dataclass(frozen=True)
class TemplateField:
    """A place for a text. `before` is what stands between the field before and this one, the empty
    string for the first; `default` the text that stands here where none is given, if there is one.
    """

    name: str
    before: str = ""
    default: str | None = None

    @property
    def source(self) -> str:
        """The field as a template writes it."""
        return "{" + self.name + ("" if self.default is None else f"={self.default}") + "}"


ONE_FIELD = (TemplateField("text"),)
"""The fields of a prompt with one text."""


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed template: its source, the parts before and after its fields, and these.

    `rendered` says that a chat template wrote it, bos included, up to the answer's first word (see
    `chat`). `lead` is what stands between the suffix and a label's word, if that was said.
    """

    source: str
    prefix: str
    suffix: str
    rendered: bool = False
    fields: tuple[TemplateField, ...] = ONE_FIELD
    lead: str | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the fields without a default."""
        return tuple(field.name for field in self.fields if field.default is None)

    @property
    def places(self) -> tuple[Field, ...]:
        """The fields as a bundle's manifest has them, without what stands between them."""
        return tuple(Field(field.name, default=field.default) for field in self.fields)

    @property
    def pieces(self) -> tuple[str, ...]:
        """What stands before each field."""
        return (self.prefix, *(field.before for field in self.fields[1:]))

    @property
    def label_lead(self) -> str:
        """The spaces before a label's word, if they were not said: those at the end of the suffix.
        Without any, it is one space, unless a chat template wrote the suffix or it ends in other
        white space or in a sign that a word follows without a space."""
        if self.lead is not None:
            return self.lead
        trailing = self.suffix[len(self.suffix.rstrip(" ")) :]
        if self.rendered or trailing or (self.suffix and self.suffix[-1] in _OPENING):
            return trailing
        return "" if self.suffix[-1:].isspace() else " "


def unescape(text: str) -> str:
    r"""The text with the escapes `\n`, `\t`, `\r` and `\\` replaced by their characters."""
    return re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match.group(1)], text)


def shell_prompt(source: str) -> str:
    r"""The option that gives a template's source in a shell: `--prompt "{text} \nIs:"`."""
    escaped = source.replace("\\", "\\\\")
    for letter in "ntr":
        escaped = escaped.replace(_ESCAPES[letter], "\\" + letter)
    plain = not set(source) & set('"$`!\\')
    return "--prompt " + (f'"{escaped}"' if plain else shlex.quote(escaped))


def parse_template(source: str) -> PromptTemplate:
    """Parse a template. `{name}` is a field, `{name=a text}` one with a default, which may contain
    anything but braces; `{{` and `}}` are literal braces.

    Raises:
        SpecError: no field without a default, one that is named twice, or another brace that is
            not doubled.
    """
    parts, fields = [""], []
    for piece in _PIECE.findall(source):
        if piece in ("{", "}"):
            raise SpecError(
                f"the prompt {source!r} has a single {piece!r} that is not part of a field such as "
                f"{{text}} or {{text=a default}}; write {piece * 2!r} for a literal brace"
            )
        if piece[0] == "{" and piece != "{{":
            name, equals, default = piece[1:-1].partition("=")
            fields.append(TemplateField(name, default=default if equals else None))
            parts.append("")
        else:
            parts[-1] += {"{{": "{", "}}": "}"}.get(piece, piece)
    _check_fields(source, fields)
    return _template(source, parts, fields)


def _template(source: str, parts: Sequence[str], fields: Sequence[TemplateField]) -> PromptTemplate:
    """The template whose fields stand between `parts`, of which there is one more."""
    prefix, *between, suffix = parts
    placed = (
        replace(field, before=before) for field, before in zip(fields, ("", *between), strict=True)
    )
    return PromptTemplate(source, prefix, suffix, fields=tuple(placed))


def _check_fields(source: str, fields: Sequence[TemplateField]) -> None:
    """Raise SpecError unless there is a field that has to be given, and each has its own name."""
    names = [field.name for field in fields]
    if not fields:
        raise SpecError(
            f"the prompt {source!r} has no field: write {{text}} where the text to classify goes, "
            "or several of other names"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise SpecError(
            f"the prompt {source!r} has the field {{{twice[0]}}} {names.count(twice[0])} times; "
            "write it once, and give another text another name"
        )
    if all(field.default is not None for field in fields):
        raise SpecError(
            f"every field of the prompt {source!r} has a default, so there is nothing to classify; "
            "write one without, such as {text}"
        )


def places_of(prompt: str | None) -> tuple[Field, ...]:
    """The fields of a prompt's source, and of none the single one of a default prompt.

    Raises:
        SpecError: see `parse_template`.
    """
    return (Field("text"),) if prompt is None else parse_template(prompt).places


def literal_template(
    parts: Sequence[str], fields: Sequence[TemplateField] = ONE_FIELD
) -> PromptTemplate:
    """The template that has the fields between these texts, of which there is one more, and whose
    braces are doubled in its source."""
    doubled = [part.replace("{", "{{").replace("}", "}}") for part in parts]
    written = zip(doubled, (*(field.source for field in fields), ""), strict=True)
    source = "".join(part + field for part, field in written)
    return _template(source, parts, fields)


def with_suffix(template: PromptTemplate, suffix: str) -> PromptTemplate:
    """The template with another suffix."""
    return literal_template((*template.pieces, suffix), template.fields)


def without_suffix(template: PromptTemplate) -> PromptTemplate:
    """The template that ends with its last field; the label's lead stays what it was."""
    bare = with_suffix(template, "")
    return replace(bare, rendered=template.rendered, lead=template.label_lead)


def filled(template: PromptTemplate, texts: Sequence[str]) -> str:
    """The whole prompt with the fields' texts in it."""
    written = zip(template.pieces, texts, strict=True)
    return "".join(piece + text for piece, text in written) + template.suffix


def join(template: PromptTemplate, texts: Sequence[str]) -> str:
    """The whole prompt as one string, as a person would send it to the model, without the spaces
    before the label."""
    return filled(replace(template, suffix=template.suffix.rstrip(" ")), texts)
