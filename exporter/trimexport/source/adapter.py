"""The merge of a LoRA adapter in peft's format into a checkpoint whose weights stream.

The merged weight is W + s B A (Hu et al. 2021, https://arxiv.org/abs/2106.09685). It is computed in
float32 for the rows that are read, whatever the checkpoint's dtype, so neither the model nor the
adapter is ever in memory. A tensor that the adapter stores whole, such as a bias or one of
`modules_to_save`, takes the place of the checkpoint's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers.pytorch_utils import Conv1D

from trimexport.errors import CheckpointError, UnsupportedError

from .adapter_config import CONFIG, MERGE, AdapterConfig, read_adapter_config, read_settings
from .adapter_target import Target, check_finite
from .checkpoint import Checkpoint
from .empty_model import is_tied, output_layer
from .low_rank import Adapter, LowRank, weights_file
from .prompt_adapter import put_before
from .tensor_files import TensorEntry, read_header
from .trained_prompt import TRAINED_PROMPTS

_PREFIX = "base_model.model."
_PAIR = re.compile(r"(.+)\.lora_([AB])\.weight")
# Tensors that are ignored: those of a multimodal model's part for images, which is not built, and
# two kinds that peft stores needlessly, the modules that others replace and GPT-2's causal masks,
# which it takes for biases.
_UNUSED = re.compile(
    r"(^|\.)(vision_tower|multi_modal_projector|original_module)\.|\.attn\.(masked_)?bias$"
)


def merge_adapter(checkpoint: Checkpoint, directory: Path, name: str) -> Checkpoint:
    """The checkpoint with an adapter: the tensors that are read from it have the adapter's changes
    added, or a trained prompt stands before every prompt.

    Args:
        directory: the adapter's.
        name: the user's name for the adapter: a directory or a hub id.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor holds NaN or infinity, or the
            adapter is for another model.
        UnsupportedError: the adapter is no trained prompt, and more than plain LoRA on linear
            layers.
    """
    full_name = str(directory.resolve()) if Path(name).is_dir() else name
    settings = read_settings(directory)
    if settings.get("peft_type") in TRAINED_PROMPTS:
        return put_before(checkpoint, directory, full_name, settings)
    config = read_adapter_config(settings, directory)
    _check_task(config, directory, checkpoint)
    target = Target(directory, config.base, checkpoint, MERGE)
    entries = {
        key.removeprefix(_PREFIX): entry
        for key, entry in read_header(weights_file(directory)).items()
        if not _UNUSED.search(key)
    }
    pairs, stored = _pairs_and_whole(entries, directory)
    changes = dict(_change(target, config, module, sides) for module, sides in pairs.items())
    whole = dict(target.replacement(own, entry) for own, entry in stored.items())
    if not changes and not whole:
        raise CheckpointError(
            f"the adapter {directory} changes nothing of the language model; {target.trained_on}"
        )
    for key, entry in entries.items():
        check_finite(key, entry)
    adapter = Adapter(directory, full_name, config.base, changes, whole)
    merged = replace(checkpoint, tensors={**checkpoint.tensors, **whole}, adapter=adapter)
    target.refuse_half_of_a_tie(merged, adapter)
    return merged


def _check_task(config: AdapterConfig, directory: Path, checkpoint: Checkpoint) -> None:
    """Raise UnsupportedError if adapter and checkpoint have different output layers."""
    if config.task in (None, "SEQ_CLS" if checkpoint.is_classifier else "CAUSAL_LM"):
        return
    problem = (
        f"the adapter {directory} was trained for {config.task} (task_type in {CONFIG}), and "
        f"{checkpoint.model} is a {checkpoint.architecture}"
    )
    if config.task == "SEQ_CLS":
        raise UnsupportedError(
            f"{problem}, which has no output layer for the adapter's labels; load the base with "
            f"AutoModelForSequenceClassification and its id2label, {MERGE}"
        )
    raise UnsupportedError(f"{problem}; give the model that it was trained on with --model")


def _pairs_and_whole(
    entries: Mapping[str, TensorEntry], directory: Path
) -> tuple[dict[str, dict[str, TensorEntry]], dict[str, TensorEntry]]:
    """The matrices A and B of each module, and the tensors that are stored whole by the names of
    their parameters.

    Raises:
        CheckpointError: a module lacks A or B.
        UnsupportedError: a tensor that plain LoRA on linear layers does not have.
    """
    pairs: dict[str, dict[str, TensorEntry]] = {}
    whole = {}
    for key, entry in entries.items():
        if match := _PAIR.fullmatch(key):
            pairs.setdefault(match[1], {})[match[2]] = entry
        elif "lora_embedding_" in key:
            raise _on_an_embedding(directory, key)
        elif "lora_" in key:
            raise UnsupportedError(
                f"the adapter {directory} holds {key}, which plain LoRA has not; {MERGE}"
            )
        else:
            whole[key.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = entry
    for module, sides in pairs.items():
        if len(sides) < 2:
            missing = "B" if "A" in sides else "A"
            raise CheckpointError(
                f"the adapter {directory} has one half of {module}: lora_{missing} is missing; "
                "copy the adapter again"
            )
    return pairs, whole


def _change(
    target: Target, config: AdapterConfig, module: str, sides: Mapping[str, TensorEntry]
) -> tuple[str, LowRank]:
    """The parameter that a module's A and B change, and the change."""
    a, b = sides["A"], sides["B"]
    name = target.parameter(module + ".weight")
    layer = target.model.get_submodule(name.removesuffix(".weight"))
    if not isinstance(layer, nn.Linear | Conv1D):
        raise _on_an_embedding(target.directory, module)
    if is_tied(target.checkpoint) and layer is output_layer(target.model):
        raise UnsupportedError(
            f"the adapter {target.directory} changes {module}, which is tied to the embedding; "
            f"{MERGE}"
        )
    transposed = isinstance(layer, Conv1D)  # as peft decides it
    shape = target.shapes[name][::-1] if transposed else target.shapes[name]
    rank = a.shape[0] if a.shape else 0
    target.refuse_more_tokens(name, b.shape)
    if rank < 1 or (a.shape, b.shape) != ((rank, shape[1]), (shape[0], rank)):
        raise target.another_shape(name, f"{list(b.shape)} times {list(a.shape)}")
    return name, LowRank(a, b, config.scale(module, rank), transposed)


def _on_an_embedding(directory: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"the adapter {directory} changes an embedding ({what}); only linear layers can be merged "
        f"here; {MERGE}"
    )
