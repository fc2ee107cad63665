"""The prompt: a template with one `{text}`, cut into segments that are tokenised separately.

Tokenizers take a word together with the space before it. So the spaces that end the prefix are
moved to the start of the text, and the spaces that end the suffix to the start of the label.
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
# Signs that a word follows without a space: `("positive`.
_OPENING = "([{<\"'`«“‘„"


@dataclass(frozen=True)
class PromptTemplate:
    """A parsed template: its source, and the parts before and after the text.

    `rendered` says that a chat template wrote it, bos included, up to the answer's first word (see
    `chat`).
    """

    source: str
    prefix: str
    suffix: str
    rendered: bool = False

    @property
    def text_lead(self) -> str:
        """The spaces at the end of the prefix, which are tokenised with the text."""
        return self.prefix[len(self.prefix.rstrip(" ")) :]

    @property
    def label_lead(self) -> str:
        """The spaces before a label's word: those at the end of the suffix. Without any, it is one
        space, unless a chat template wrote the suffix or it ends in other white space or in a sign
        that a word follows without a space."""
        trailing = self.suffix[len(self.suffix.rstrip(" ")) :]
        if self.rendered or trailing or (self.suffix and self.suffix[-1] in _OPENING):
            return trailing
        return "" if self.suffix[-1:].isspace() else " "


@dataclass(frozen=True)
class PromptIds:
    """The prompt as token ids.

    `prefix_ids` begin with the tokenizer's own start tokens (bos). `text_lead` is the white space
    that the bundle's tokenizer writes before each text, and `lead_is_dummy` says that it is the
    tokenizer's own dummy prefix (see `tokenizer.text_tokenizer`). `examples` are the texts of the
    examples in the prompt.
    """

    template: PromptTemplate
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    text_lead: str
    lead_is_dummy: bool = False
    examples: tuple[str, ...] = ()


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
    """The template with these texts as its two parts, whose braces are doubled in its source."""
    doubled = [part.replace("{", "{{").replace("}", "}}") for part in (prefix, suffix)]
    return parse_template("{text}".join(doubled))


def tokenise_prompt(
    template: PromptTemplate, tokenizer: SourceTokenizer, *, ended: bool = False
) -> PromptIds:
    """Tokenise the segments before and after the text, each separately.

    Args:
        ended: write the tokenizer's end tokens behind the suffix, as it does after a string.
    """
    prefix = template.prefix.rstrip(" ")
    lead, lead_is_dummy = tokenizer.lead(prefix, template.text_lead)
    suffix_ids = tokenizer.encode_inside(template.suffix.rstrip(" "))
    return PromptIds(
        template=template,
        prefix_ids=tokenizer.encode_start(prefix, rendered=template.rendered),
        suffix_ids=(*suffix_ids, *tokenizer.end_ids) if ended else suffix_ids,
        text_lead=lead,
        lead_is_dummy=lead_is_dummy,
    )


def join(template: PromptTemplate, text: str) -> str:
    """The whole prompt as one string, as a person would send it to the model, without the spaces
    before the label."""
    return template.prefix + text + template.suffix.rstrip(" ")
