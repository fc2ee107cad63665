"""What to build, as a value: from the command line, from a recipe, or from Python."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from trimexport.errors import SpecError

from .question import QuestionSpec, check_questions, is_questions, read_questions
from .toml_values import is_text, is_texts, is_words, read_words

PRECISIONS = ("fp32", "fp16", "int8", "int4")
TENSORRT = ("fp16", "int8")
TRUNCATE = ("end", "start")
SCORES = SOFTMAX, LOG_ODDS, LOGIT = ("softmax", "log-odds", "logit")
POOLS = LAST, MEAN = ("last", "mean")
_CUT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::(end|start))?")


@dataclass(frozen=True)
class BuildSpec:
    """Everything that a build is made of.

    Args:
        model: directory, GGUF file or hub id.
        labels: in the order of the logits. A fine-tuned classifier has its own; given, they name
            those that are only numbered there.
        prompt: template with one `{text}`, or several fields of other names. None is the one that
            the checkpoint's card gives for the labels, and for a fine-tuned classifier the text
            alone.
        revision: of a hub id; None is the hub's default branch.
        verbalizers: label -> words, for labels that do not stand for themselves.
        label_lead: the spaces between the prompt and a label's word, none or some; None is what
            the prompt's end asks for.
        precision: variants to build, the first being the default one.
        tensorrt: precisions, of `TENSORRT`, of variants for TensorRT that are built besides.
        max_tokens: most tokens of prefix, text and suffix together; None is the model's context.
        truncate: which end of a longer text is cut off. Of several fields, one alone is cut:
            `document` or `document:start` names it, otherwise it is the last without a default.
        notice: terms that the bundle has to carry, besides what is known of the model.
        chat: the prompt is the user's turn in the tokenizer's chat template.
        system: what the system turn says before the user's; None is no such turn.
        adapter: directory or hub id of an adapter in peft's format: LoRA, which is merged into the
            model, or a trained prompt, which stands before the prompt; None is the model as it is.
        tokenizer: directory or file of the tokenizer; None is the model's own.
        few_shot: a file of texts with labels, of which examples are written into the prompt.
        shots: how many examples of each label.
        seed: decides which examples are taken, and in which order.
        score: what the graph returns: a logit for each label (`softmax`), the first label's less
            the second's (`log-odds`), or that of the only label (`logit`). A fine-tuned classifier
            has its own.
        score_scale: what log-odds or the logit are multiplied with.
        score_shift: what is added to them then.
        questions: what is asked about each text, each in the prompt's `{question}`; none where the
            prompt asks one thing only. Those without labels have the build's.
        layers: how many of the model's first layers run; None is all. Behind fewer, the labels'
            words are a poor head: fit one (see `trimexport.fit_depth`).
        pool: what the head reads: the last hidden state of the prompt (`last`), or the mean of
            those of the text's own tokens (`mean`), which leaves out what the prompt has behind
            the text.
    """

    model: str
    labels: tuple[str, ...] = ()
    prompt: str | None = None
    revision: str | None = None
    verbalizers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label_lead: str | None = None
    precision: tuple[str, ...] = ("int8",)
    tensorrt: tuple[str, ...] = ()
    max_tokens: int | None = None
    truncate: str = "end"
    notice: str | None = None
    chat: bool = False
    system: str | None = None
    adapter: str | None = None
    tokenizer: str | None = None
    few_shot: Path | None = None
    shots: int | None = None
    seed: int = 0
    score: str = SOFTMAX
    score_scale: float = 1.0
    score_shift: float = 0.0
    questions: tuple[QuestionSpec, ...] = ()
    layers: int | None = None
    pool: str = LAST

    def __post_init__(self) -> None:
        _check_names("precision", self.precision, PRECISIONS)
        if self.tensorrt:
            _check_names("tensorrt", self.tensorrt, TENSORRT)
        parse_truncate(self.truncate)
        if (self.label_lead or "").strip(" "):
            raise SpecError(
                f"the label lead {self.label_lead!r} holds more than spaces; write the rest at the "
                "end of the prompt"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SpecError(f"max-tokens is {self.max_tokens}; give 1 or more")
        if self.system is not None and not self.chat:
            raise SpecError("a system turn is given without --chat, whose template writes it")
        self._check_shots()
        self._check_score()
        check_questions(self.questions, self.score, SOFTMAX)
        self._check_pool()
        for label, words in self.verbalizers.items():
            if not words:
                raise SpecError(
                    f'label "{label}" is given no words; name one at least, or leave it out of the '
                    "verbalizers and its own name stands for it"
                )

    def _check_shots(self) -> None:
        if self.few_shot is None and (self.shots is not None or self.seed != 0):
            name = "shots" if self.shots is not None else "seed"
            raise SpecError(
                f"{name} is given without a file of examples; name one with --few-shot, or drop "
                f"--{name}"
            )
        if self.few_shot is not None and self.shots is None:
            raise SpecError(
                f"the examples of {self.few_shot} are given without how many to take of each "
                "label; say it with --shots"
            )
        if self.shots is not None and self.shots < 1:
            raise SpecError(f"shots is {self.shots}; give 1 or more")

    def _check_pool(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise SpecError(f"layers is {self.layers}; give 1 or more")
        if self.pool not in POOLS:
            raise SpecError(f'pool is "{self.pool}"; give one of {", ".join(POOLS)}')
        if self.pool == MEAN and self.questions:
            why = "several questions are answered behind the text, a mean is over its own tokens"
            raise SpecError(f"{why}; drop the questions, or --pool {MEAN}")

    def _check_score(self) -> None:
        if self.score not in SCORES:
            raise SpecError(f'score is "{self.score}"; give one of {", ".join(SCORES)}')
        for name, value in (("scale", self.score_scale), ("shift", self.score_shift)):
            if not math.isfinite(value) or (name == "scale" and value == 0):
                raise SpecError(
                    f"score-{name} is {value:g}, with which every score would be the same or none; "
                    f"give a finite number{' other than 0' if name == 'scale' else ''}"
                )
        if self.score == SOFTMAX and (self.score_scale, self.score_shift) != (1, 0):
            raise SpecError(
                "score-scale and score-shift change a single score, and a softmax has one logit "
                f"for each label; drop them, or give --score {LOG_ODDS} or {LOGIT}"
            )

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of the variants to build, in their order."""
        return (*self.precision, *(f"tensorrt-{name}" for name in self.tensorrt))


def parse_truncate(text: str) -> tuple[str | None, str]:
    """The name of the field that is cut, None where it is not named, and which end is cut off:
    `end`, `start`, `document` or `document:start`.

    Raises:
        SpecError: it is none of these.
    """
    if text in TRUNCATE:
        return None, text
    match = _CUT.fullmatch(text)
    if match is None:
        raise SpecError(
            f'truncate is "{text}"; give one of {", ".join(TRUNCATE)}, or a field of the prompt, '
            "such as document or document:start"
        )
    return match[1], match[2] or TRUNCATE[0]


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    if not names or not set(names) <= set(known) or len(set(names)) < len(names):
        raise SpecError(
            f"{what} {','.join(names) or '(none)'} cannot be built; give each of "
            f"{', '.join(known)} once at most"
        )


def check_keep(keep: Sequence[str], spec: BuildSpec) -> None:
    """Refuse to keep variants that the spec does not build.

    Raises:
        SpecError: there are some.
    """
    if unknown := [name for name in keep if name not in spec.variants]:
        raise SpecError(
            f"{', '.join(map(repr, unknown))} cannot be kept, for it is not built; the build's "
            f"variants are {', '.join(spec.variants)}"
        )


def read_recipe(path: Path) -> BuildSpec:
    """Read a recipe: a TOML file that names a build completely.

    A relative `model`, `adapter` or `tokenizer` that is beside the recipe is found there, and so is
    a relative `few_shot`.

    Raises:
        SpecError: not TOML, an unknown or missing key, or a value of the wrong type.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SpecError(f"the recipe {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise SpecError(f"the recipe {path} is not a TOML file: {error}") from None
    for key, value in raw.items():
        if key not in _KINDS:
            raise SpecError(f"{path}: unknown key {key!r}; known are {', '.join(_KINDS)}")
        if not _KINDS[key].fits(value):
            raise SpecError(f"{path}: {key} is {value!r}, it has to be {_KINDS[key].said}")
    if "model" not in raw:
        raise SpecError(
            f"{path}: model missing; a recipe names model, prompt and labels, or the model alone "
            "if it was fine-tuned as a classifier"
        )
    for key, is_there in _BESIDE.items():
        if raw.get(key) and is_there(path.parent / raw[key]):
            raw[key] = str(path.parent / raw[key])
    return BuildSpec(**{key: _KINDS[key].read(value) for key, value in raw.items()})


_BESIDE = {
    "model": os.path.exists,
    "adapter": os.path.isdir,
    "tokenizer": os.path.exists,
    "few_shot": os.path.isfile,
}
"""The fields that may name a directory or a file beside the recipe."""


@dataclass(frozen=True)
class _Kind:
    """How a recipe writes a type of field: whether a value of TOML `fits` it, what the value has to
    be, `said` in words, and how it is `read`."""

    fits: Callable[[Any], bool]
    said: str
    read: Callable[[Any], Any] = lambda value: value


def _kinds() -> dict[str, _Kind]:
    """How a recipe writes each field of a spec, by the type of the field. A field that may be None
    is written as the type it may have besides, and left out for None."""
    by_type = {
        str: _Kind(is_text, "a string"),
        Path: _Kind(is_text, "a string", Path),
        bool: _Kind(lambda value: isinstance(value, bool), "true or false"),
        int: _Kind(lambda value: type(value) is int, "a whole number"),
        float: _Kind(lambda value: type(value) in (int, float), "a number", float),
        tuple[str, ...]: _Kind(is_texts, "a list of strings", tuple),
        Mapping[str, tuple[str, ...]]: _Kind(
            is_words, 'a table such as {positive = ["good", "great"]}', read_words
        ),
        tuple[QuestionSpec, ...]: _Kind(
            is_questions,
            'a table of questions such as {toxic = "Is it insulting?"}, or of tables with text, '
            "labels and verbalizers",
            read_questions,
        ),
    }
    hints = get_type_hints(BuildSpec)
    optional = {name: hint for name, hint in hints.items() if isinstance(hint, UnionType)}
    hints |= {name: get_args(hint)[0] for name, hint in optional.items()}
    return {name: by_type[hint] for name, hint in hints.items()}


_KINDS = _kinds()


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a text such as `positive, negative`. An empty name is kept, for whoever checks
    the names to refuse."""
    return tuple(label.strip() for label in text.split(","))


def parse_verbalizers(
    items: Sequence[str], option: str = "--verbalize"
) -> dict[str, tuple[str, ...]]:
    """The words of each label, of items such as `positive=good,great`. A space before a word is
    kept. `option` is the option that the items were given with.

    Raises:
        SpecError: no `=`, or a label given twice.
    """
    words_of: dict[str, tuple[str, ...]] = {}
    for item in items:
        label, equals, words = item.partition("=")
        if not equals or not label.strip():
            raise SpecError(f"{option} {item!r} has no label and words; write label=word,word")
        if label.strip() in words_of:
            raise SpecError(
                f'{option} names "{label.strip()}" twice; give its words in one: label=word,word'
            )
        words_of[label.strip()] = tuple(word.rstrip() for word in words.split(","))
    return words_of
