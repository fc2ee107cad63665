"""The prompt: a template with one `{text}`, cut into the segments that are compiled.

A segment is tokenised by itself, so the cut is made where a tokenizer of words-with-their-space
would make it: the spaces that end the prefix become the start of the text, the spaces that end
the suffix become the start of the label.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimexport.errors import SpecError

if TYPE_CHECKING:  # a wrong prompt is refused without loading transformers
    from .tokenizer import SourceTokenizer

_PIECE = re.compile(r"\{\{|\}\}|\{text\}|\{|\}|[^{}]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
# A word follows these without a space of its own: `("positive`, `\npositive`.
_OPENING = "([{<\"'`«“‘„"


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed template. `prefix` and `suffix` are what stands before and after the text.

    `rendered` says that a chat template wrote it: bos and all, to the answer's first word (`chat`).
    """

    source: str
    prefix: str
    suffix: str
    rendered: bool = False

    @property
    def text_lead(self) -> str:
        """The spaces that end the prefix and are written before the text instead."""
        return self.prefix[len(self.prefix.rstrip(" ")) :]

    @property
    def label_lead(self) -> str:
        """What stands before a label's word: the spaces that end the suffix, or one space where a
        word would need it, as it does right after a text. A chat template says it itself."""
        trailing = self.suffix[len(self.suffix.rstrip(" ")) :]
        if self.rendered or trailing or (self.suffix and self.suffix[-1] in _OPENING):
            return trailing
        return "" if self.suffix[-1:].isspace() else " "


@dataclass(frozen=True)
class PromptIds:
    """The prompt as token ids. `prefix_ids` begin with the tokenizer's own start tokens (bos);
    `text_lead` is written before each text by the bundle's tokenizer; `opens` says that it is the
    tokenizer's own dummy prefix (see `tokenizer.text_tokenizer`). `examples` are the texts that it
    gives as examples."""

    template: PromptTemplate
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    text_lead: str
    opens: bool = False
    examples: tuple[str, ...] = ()


def unescape(text: str) -> str:
    r"""Read `\n`, `\t`, `\r` and `\\` as a command line's way of writing those characters."""
    return re.sub(r"\\([ntr\\])", lambda match: _ESCAPES[match.group(1)], text)


def shell_prompt(source: str) -> str:
    r"""A template's source as an option to paste into a shell: `--prompt "{text} \nIs:"`."""
    escaped = source.replace("\\", "\\\\")
    for letter in "ntr":
        escaped = escaped.replace(_ESCAPES[letter], "\\" + letter)
    plain = not set(source) & set('"$`!\\')
    return "--prompt " + (f'"{escaped}"' if plain else shlex.quote(escaped))


def parse_template(source: str) -> PromptTemplate:
    """Parse a template with exactly one `{text}`; `{{` and `}}` are literal braces.

    Raises:
        SpecError: no `{text}`, more than one, or another brace that is not doubled.
    """
    parts = [""]
    for piece in _PIECE.findall(source):
        if piece == "{text}":
            parts.append("")
        elif piece in ("{", "}"):
            raise SpecError(
                f"the prompt {source!r} has a single {piece!r} that is not part of {{text}}; "
                f"write {piece * 2!r} for a literal brace"
            )
        else:
            parts[-1] += {"{{": "{", "}}": "}"}.get(piece, piece)
    if len(parts) != 2:
        count = len(parts) - 1
        raise SpecError(
            f"the prompt {source!r} has {count or 'no'} {{text}}, it needs exactly one: "
            "write {text} once, where the text to classify goes"
        )
    return PromptTemplate(source=source, prefix=parts[0], suffix=parts[1])


def literal_template(prefix: str, suffix: str) -> PromptTemplate:
    """The template of two texts as they are: their braces are doubled in its source."""
    doubled = [part.replace("{", "{{").replace("}", "}}") for part in (prefix, suffix)]
    return parse_template("{text}".join(doubled))


def tokenise_prompt(
    template: PromptTemplate, tokenizer: SourceTokenizer, *, ended: bool = False
) -> PromptIds:
    """Tokenise the segments around the text, each by itself.

    Args:
        ended: the tokenizer's end tokens follow the suffix, as after a whole string.
    """
    prefix = template.prefix.rstrip(" ")
    lead, opens = tokenizer.lead(prefix, template.text_lead)
    suffix_ids = tokenizer.encode_inside(template.suffix.rstrip(" "))
    return PromptIds(
        template=template,
        prefix_ids=tokenizer.encode_start(prefix, rendered=template.rendered),
        suffix_ids=(*suffix_ids, *tokenizer.end_ids) if ended else suffix_ids,
        text_lead=lead,
        opens=opens,
    )


def join(template: PromptTemplate, text: str) -> str:
    """The whole prompt as one string, as a person would send it to the model, up to the spaces
    before the label, which are the label's."""
    return template.prefix + text + template.suffix.rstrip(" ")
