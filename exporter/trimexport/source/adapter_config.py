"""The settings in an adapter's adapter_config.json, and those of LoRA that matter to merging it.

If a setting were overlooked, the merge would be wrong and look right, because the reference reads
the same merged weights. So an adapter is refused unless all its settings are known to leave
W + s B A as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimexport.errors import CheckpointError, UnsupportedError

from .json_file import read_json_object
from .trained_prompt import TRAINED_PROMPTS

CONFIG = "adapter_config.json"
MERGE = (
    "merge it with peft (PeftModel.merge_and_unload), save the model and its tokenizer, and give "
    "that directory with --model"
)
# Settings of every kind of adapter, which name the model and what was done with it.
NAMING = {
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "peft_version",
    "modules_to_save",
    "runtime_config",
}
# Settings that do not change the merge besides: they are for training or loading.
_HARMLESS = NAMING | {
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "lora_dropout",
    "ensure_weight_tying",
    "megatron_core",
    "qalora_group_size",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",
}
# Settings that are read here, or that follow from something else: ranks from the tensors' shapes,
# biases from their presence, and whether a matrix is stored transposed from the kind of layer.
_READ = {
    "peft_type",
    "r",
    "rank_pattern",
    "lora_alpha",
    "alpha_pattern",
    "use_rslora",
    "fan_in_fan_out",
    "bias",
    "init_lora_weights",
}
# Ways to initialise an adapter that leave the base's weights alone, unlike PiSSA, OLoRA, LoftQ ...
_STARTS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class AdapterConfig:
    """The settings by which an adapter is merged.

    Args:
        base: the name of the model that the adapter was trained on, or None.
        task: peft's name of the task, `CAUSAL_LM` or `SEQ_CLS`, or None.
        alpha: the numerator of the scale.
        alpha_pattern: other numerators, by regular expressions for the ends of modules' names.
        stabilised: divide by the rank's square root instead of the rank.
    """

    base: str | None
    task: str | None
    alpha: float
    alpha_pattern: Mapping[str, float]
    stabilised: bool

    def scale(self, module: str, rank: int) -> float:
        """The factor before B A: alpha / r (Hu et al. 2021, https://arxiv.org/abs/2106.09685), or
        alpha / sqrt(r), rank-stabilised (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).

        Args:
            module: the name of the changed layer in the adapter's own model.
            rank: r, the rows of A.
        """
        matching = (
            alpha
            for pattern, alpha in self.alpha_pattern.items()
            if re.match(rf"(.*\.)?({pattern})$", module)
        )
        alpha = next(matching, self.alpha)
        return float(alpha / (rank**0.5 if self.stabilised else rank))


def read_adapter_config(raw: Mapping[str, Any], directory: Path) -> AdapterConfig:
    """The settings of a LoRA adapter in `directory`, of what its adapter_config.json says.

    Raises:
        CheckpointError: the strength is missing or is none.
        UnsupportedError: the adapter is no LoRA, or does more than W + s B A.
    """
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(
            f"the adapter {directory} is of the kind {kind} (peft_type in {CONFIG}); LORA can be "
            f"merged here, and {', '.join(TRAINED_PROMPTS)} put before the prompt; if peft can "
            f"merge it, {MERGE}"
        )
    for key, value in raw.items():
        if key not in _HARMLESS | _READ and value not in (None, False, {}, []):
            _refuse_setting(directory, key, value)
    if raw.get("init_lora_weights", True) not in _STARTS:
        _refuse_setting(directory, "init_lora_weights", raw["init_lora_weights"])
    try:
        return AdapterConfig(
            base=raw.get("base_model_name_or_path") or None,
            task=raw.get("task_type") or None,
            alpha=_number(raw["lora_alpha"]),
            alpha_pattern={
                _pattern(key): _number(value)
                for key, value in (raw.get("alpha_pattern") or {}).items()
            },
            stabilised=raw.get("use_rslora") is True,
        )
    except (KeyError, TypeError, AttributeError, re.error) as error:
        raise CheckpointError(
            f"{directory / CONFIG} does not say how strong the adapter is (lora_alpha, "
            f"alpha_pattern: {error}); copy the adapter again"
        ) from None


def read_settings(directory: Path) -> dict[str, Any]:
    """The contents of adapter_config.json.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return read_json_object(directory / CONFIG, "copy the adapter again")
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory} has no {CONFIG}; --adapter takes the directory that peft's "
            "`save_pretrained` wrote"
        ) from None


def _refuse_setting(directory: Path, key: str, value: object) -> None:
    written = json.dumps(value, allow_nan=False)
    raise UnsupportedError(
        f"the adapter {directory} has {key} = {written} in {CONFIG}, with which it is "
        f"more than plain LoRA; {MERGE}"
    )


def _number(value: object) -> float:
    """The value as a float; TypeError if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _pattern(text: str) -> str:
    """The text, if it is a regular expression; re.error otherwise."""
    re.compile(text)
    return text
