"""The supported model families, and their peculiarities.

A family is a row of `FAMILIES` and a row in the tests, if its attention goes through transformers'
attention interface and its tensors have the names of its parameters. Other peculiarities are
functions here, which are called where they matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trimexport.errors import UnsupportedError

_CLASSIFIER = "ForSequenceClassification"
_SOFTCAPPED = frozenset(("Gemma2ForCausalLM", "Gemma3ForCausalLM"))
_DIVIDED = frozenset(("GraniteForCausalLM",))

GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)


def _same_name(name: str) -> str | None:
    """The name of a tensor that is called as its parameter is."""
    return name


def _gpt2_name(name: str) -> str | None:
    """The parameter of a GPT-2 tensor. The original checkpoints leave out `transformer.` and store
    the causal mask as `attn.bias`."""
    if re.search(r"(^|\.)attn\.(masked_)?bias$", name):
        return None
    own = name.startswith(("transformer.", "lm_head.", "score."))
    return name if own else "transformer." + name


def _text_part_name(name: str) -> str | None:
    """The parameter of a multimodal Gemma 3's tensor, by its name in a language model that stands
    alone. The hub's checkpoints call it `language_model.model.*`, transformers
    `model.language_model.*`."""
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    if name.startswith("language_model."):
        return name.removeprefix("language_model.")
    return name if name.startswith(("lm_head.", "score.")) else None


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Args:
        name: the family's name as its makers write it.
        causal: the language model's architecture in config.json.
        classifiers: the architectures of classifiers that were fine-tuned from it, as far as
            transformers has one.
        parameter_name: the name of the parameter that a checkpoint's tensor belongs to, from the
            tensor's name; None if the language model has none.
    """

    name: str
    causal: str
    classifiers: tuple[str, ...]
    parameter_name: Callable[[str], str | None] = _same_name


def _family(name: str, stem: str) -> Family:
    """The row of a family whose architectures all begin with `stem`."""
    return Family(name, stem + "ForCausalLM", (stem + _CLASSIFIER,))


FAMILIES = (
    _family("Gemma", "Gemma"),
    _family("Gemma 2", "Gemma2"),
    Family("Gemma 3, text", "Gemma3ForCausalLM", ("Gemma3Text" + _CLASSIFIER,)),
    Family(
        "Gemma 3, multimodal",
        "Gemma3ForConditionalGeneration",
        ("Gemma3" + _CLASSIFIER,),
        _text_part_name,
    ),
    Family("Granite", "GraniteForCausalLM", ()),
    _family("Llama", "Llama"),
    _family("Mistral", "Mistral"),
    _family("OLMo 2", "Olmo2"),
    _family("Phi-3", "Phi3"),
    _family("Qwen2", "Qwen2"),
    _family("Qwen3", "Qwen3"),
    _family("SmolLM3", "SmolLM3"),
    Family("GPT-2", "GPT2LMHeadModel", ("GPT2" + _CLASSIFIER,), _gpt2_name),
)
SUPPORTED = tuple(family.causal for family in FAMILIES)


def family_of(raw: dict[str, Any], model: str) -> tuple[str, Family]:
    """The architecture that config.json names, and its family.

    Args:
        raw: the contents of config.json.
        model: the user's name for the model, for messages.

    Raises:
        UnsupportedError: the architecture is not in the table, or its attention is not causal.
    """
    names = raw.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else None
    what = f"is a {architecture}" if architecture else "names no architecture in config.json"
    family = _family_named(architecture, f"{model} {what}")
    _refuse_other_attention(raw, model)
    return str(architecture), family


def _family_named(architecture: str | None, wrong: str, advice: str = "") -> Family:
    """The family that an architecture is of; where it is of none in the table, UnsupportedError,
    whose message begins with what is wrong and ends with the advice."""
    for family in FAMILIES:
        if architecture in (family.causal, *family.classifiers):
            return family
    raise UnsupportedError(
        f"{wrong}; supported are {', '.join(SUPPORTED)}, and classifiers that were "
        f"fine-tuned from them (*{_CLASSIFIER}), where transformers has one{advice}"
    )


def is_classifier(architecture: str) -> bool:
    """Whether an architecture is a classifier's, which has an output layer for labels."""
    return architecture.endswith(_CLASSIFIER)


def holds_classifier(directory: Path) -> bool:
    """Whether a directory holds a fine-tuned classifier, by its config.json alone; False if that
    cannot be read."""
    try:
        raw = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        return is_classifier(str(raw["architectures"][0]))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return False


def _refuse_other_attention(raw: dict[str, Any], model: str) -> None:
    """Raise UnsupportedError unless attention goes back only, and only to the same sequence: a
    prefix could not be compiled otherwise."""
    inner = raw.get("text_config")
    parts = [raw, inner if isinstance(inner, dict) else {}]
    for key, refused, what in (
        ("use_bidirectional_attention", True, "attends in both directions"),
        ("is_causal", False, "attends in both directions"),
        ("add_cross_attention", True, "attends to another model's output"),
    ):
        if any(part.get(key) is refused for part in parts):
            raise UnsupportedError(
                f"{model} {what} ({key} in config.json); only causal decoders can be compiled"
            )


def text_config(config: Any) -> Any:
    """The language model's configuration: the whole one, or the text part of a multimodal one with
    the settings that stand outside that part."""
    part = config.get_text_config()
    if part is not config:
        part.tie_word_embeddings = config.tie_word_embeddings
        part.id2label, part.label2id = config.id2label, config.label2id
        part.problem_type = config.problem_type
    return part


def read_rope_parameters(config: Any) -> None:
    """Copy the rotary settings that transformers 5 writes into config.json to the names that
    transformers 4 reads. Without that, transformers 4 takes its defaults."""
    settings = getattr(config, "rope_parameters", None)
    if not isinstance(settings, dict):
        return
    if "full_attention" in settings:  # Gemma 3: one for each kind of layer
        config.rope_local_base_freq = settings["sliding_attention"]["rope_theta"]
        settings = settings["full_attention"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in settings:
            setattr(config, key, settings[key])
    scaled = settings.get("rope_type", "default") != "default"
    config.rope_scaling = dict(settings) if scaled else None


def context_of(config: Any) -> int:
    """The longest sequence, in tokens, for which the rotary frequencies are constants.

    With longrope that is the length before extension, because longer texts change the frequencies
    of every position. `dynamic` scaling begins at `max_position_embeddings`.
    """
    longest = int(config.max_position_embeddings)
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    scaling = scaling if isinstance(scaling, dict) else {}
    if (scaling.get("rope_type") or scaling.get("type")) != "longrope":
        return longest
    before = scaling.get("original_max_position_embeddings")
    before = before or getattr(config, "original_max_position_embeddings", None)
    return min(longest, int(before or longest))


def fix_rope(model: Any) -> None:
    """Make the model keep the rotary frequencies that hold up to `context_of`. By itself it asks
    in every call whether the sequence needs others."""
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, dict):  # Gemma 3: one for each kind of layer
            module.rope_type = dict.fromkeys(kind, "default")
        elif kind is not None:
            module.rope_type = "default"


def reference_attention(config: Any) -> str:
    """The name of transformers' attention for the reference: `sdpa`, which takes less memory, or
    `eager` for what `sdpa` leaves out: Gemma 2's soft-cap and, in transformers 4, GPT-2's
    scalings."""
    odd_scale = getattr(config, "scale_attn_by_inverse_layer_idx", False)
    unscaled = not getattr(config, "scale_attn_weights", True)
    softcap = config.model_type == "gemma2" and config.attn_logit_softcapping is not None
    return "eager" if softcap or odd_scale or unscaled else "sdpa"


class Finish(NamedTuple):
    """What a model does to the logits of its output layer: it divides them by `divisor` (Granite),
    and caps them (Gemma 2) to c * tanh(logits / c), c being `softcap`, if that is not None."""

    divisor: float = 1.0
    softcap: float | None = None


def finish_of(model: Any) -> Finish:
    """What follows the output layer of a transformers model; nothing behind a classifier's.

    Raises:
        UnsupportedError: the model is of no family in the table. What such a model does to its
            logits is not known: Cohere, say, multiplies them.
    """
    architecture = type(model).__name__
    _family_named(
        architecture,
        f"what a {architecture} does to its logits behind the output layer is not known",
        "; for another model copy the rows of its output layer, and do to their logits what its "
        "forward does",
    )
    config = model.config.get_text_config()  # of which other families pass over what is read here
    divisor = config.logits_scaling if architecture in _DIVIDED else 1.0
    softcapped = architecture in _SOFTCAPPED
    softcap = getattr(config, "final_logit_softcapping", None) if softcapped else None
    return Finish(divisor, softcap)


def attention_scale(module: Any, head: int) -> float:
    """The scale of GPT-2's attention scores, which transformers 4 does not pass on.

    Args:
        module: the attention.
        head: the size of a head.
    """
    scale = head**-0.5 if getattr(module, "scale_attn_weights", True) else 1.0
    if getattr(module, "scale_attn_by_inverse_layer_idx", False):
        scale /= module.layer_idx + 1
    return float(scale)


def notice_for(architecture: str, vocab_size: int) -> str | None:
    """The terms that a bundle made from this model has to carry, or None.

    Google's Gemma checkpoints are recognised by a vocabulary of 256,000 tokens or more. Their terms
    do not apply to a model of Gemma's architecture that was trained from scratch.
    """
    is_google = architecture.startswith("Gemma") and vocab_size >= 256_000
    return GEMMA_NOTICE if is_google else None
