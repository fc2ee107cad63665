"""The model without its weights, and the checkpoint's tensor of each of its parameters.

The parameters of this skeleton are on PyTorch's meta device, so it takes no memory. Buffers that
checkpoints do not hold (rotary frequencies, embedding scale) are real: the model's own constructor
computes them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from trimexport.errors import CheckpointError, UnsupportedError, reason_of

from .checkpoint import Checkpoint
from .families import fix_rope
from .gguf_blocks import GgufEntry
from .tensor_files import check_dtype

Part = TypeVar("Part")

_NEEDLESS = re.compile(r"(^|\.)rotary_emb\.|^lm_head\.")
_ROWS = 8192  # rows of an embedding that are compared at once


class _ParametersOnMeta(TorchFunctionMode):
    """A mode in which `torch.empty`, with which torch.nn allocates parameters, is on the meta
    device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


def make_skeleton(checkpoint: Checkpoint, attention: str) -> PreTrainedModel:
    """The checkpoint's model in float32 with parameters on the meta device, in eval mode.

    Args:
        attention: the name of an attention implementation that transformers has, or that is
            registered there.

    Raises:
        UnsupportedError: transformers cannot build the configuration.
    """
    kind = AutoModelForSequenceClassification if checkpoint.is_classifier else AutoModelForCausalLM
    try:
        with _ParametersOnMeta():
            model: PreTrainedModel = cast(Any, kind).from_config(
                copy.deepcopy(checkpoint.config),  # the model writes the attention into it
                attn_implementation=attention,
                dtype=torch.float32,
            )
    except Exception as error:  # a wrong configuration may raise anything
        raise UnsupportedError(
            f"transformers cannot build the model of {checkpoint.directory}: {reason_of(error)}"
        ) from None
    fix_rope(model)
    model.eval()
    return model.requires_grad_(False)


def body_of(model: PreTrainedModel) -> Any:
    """The decoder without its output layer: the module that holds the list of layers. In some
    families and versions `base_model` is the whole model instead."""
    holders = (module for module in model.modules() if _module_lists(module))
    return _first(holders, model, "list of layers")


def layers_of(body: nn.Module) -> nn.ModuleList:
    """The layers of a decoder, which are its only list of modules."""
    return _module_lists(body)[layers_name(body)]


def final_norm_of(body: nn.Module) -> nn.Module:
    """The norm behind a decoder's last layer: its only other module with weights that is no table
    of embeddings."""
    others = (
        child
        for child in body.children()
        if not isinstance(child, (nn.ModuleList, nn.Embedding)) and list(child.parameters())
    )
    return _first(others, body, "final norm")


def layers_name(body: nn.Module) -> str:
    """The family's name for the list of layers: `layers`, or `h` in GPT-2."""
    return _first(iter(_module_lists(body)), body, "list of layers")


def _module_lists(module: nn.Module) -> dict[str, nn.ModuleList]:
    """The children of a module that are lists of modules, by name."""
    children = module.named_children()
    return {name: child for name, child in children if isinstance(child, nn.ModuleList)}


def attention_of(layer: nn.Module) -> nn.Module:
    """A layer's self-attention, which is its only module with `is_causal`."""
    causal = (module for module in layer.modules() if getattr(module, "is_causal", False))
    return _first(causal, layer, "causal attention")


def _first(parts: Iterator[Part], whole: nn.Module, what: str) -> Part:
    """The first of a module's parts.

    Raises:
        UnsupportedError: there is none, so transformers writes the family in another way.
    """
    for part in parts:
        return part
    raise UnsupportedError(
        f"{type(whole).__name__} of transformers {transformers.__version__} has no {what}; install "
        "a version that this release was tested with"
    )


def output_layer(model: PreTrainedModel) -> nn.Module:
    """The layer that reads the last hidden state: `lm_head`, or a fine-tuned classifier's
    `score`."""
    head: nn.Module | None = model.get_output_embeddings()
    return model.get_submodule("score") if head is None else head


def parameter_names(model: PreTrainedModel, checkpoint: Checkpoint) -> dict[str, str]:
    """The name of the checkpoint's tensor for each parameter, by the parameter's name. A tied
    output layer and the embedding have one tensor, which may be stored by either name.

    Raises:
        CheckpointError: the checkpoint lacks a tensor, holds it in another shape or dtype, or
            holds an output layer of its own although its configuration ties it to the embedding.
    """
    names = {}
    embedding = module_name(model, model.get_input_embeddings()) + ".weight"
    head = module_name(model, output_layer(model)) + ".weight"
    tied = (head, embedding) if is_tied(checkpoint) else ()
    if tied:
        _refuse_another_head(head, embedding, checkpoint)
    table = (
        head if head in checkpoint.tensors and embedding not in checkpoint.tensors else embedding
    )
    for name, parameter in model.named_parameters(remove_duplicate=False):
        source = table if name in tied else name
        entry = checkpoint.tensors.get(source)
        if entry is None:
            raise CheckpointError(
                f"{checkpoint.directory} lacks the tensor {name} that a "
                f"{checkpoint.architecture} needs; it holds {len(checkpoint.tensors)} tensors"
            )
        if entry.shape != tuple(parameter.shape):
            raise CheckpointError(
                f"tensor {source} of {entry.file} is {list(entry.shape)}, the configuration makes "
                f"it {list(parameter.shape)}; the two do not belong together"
            )
        if not isinstance(entry, GgufEntry):  # whose types are known since it was opened
            check_dtype(source, entry)
        names[name] = source
    return names


def unread_tensors(names: Iterable[str], checkpoint: Checkpoint) -> list[str]:
    """The checkpoint's tensors that are no parameter of the model, but for those that are known to
    be needless: tables of rotary angles, and an output layer that the model has not or shares with
    the embedding.

    Args:
        names: those that are, by `parameter_names`.
    """
    others = checkpoint.tensors.keys() - set(names)
    return sorted(name for name in others if not _NEEDLESS.search(name))


def module_name(model: nn.Module, wanted: nn.Module) -> str:
    """The dotted name of a submodule."""
    for name, module in model.named_modules():
        if module is wanted:
            return str(name)
    raise AssertionError("the module is not part of the model")


def set_tensor(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Replace the parameter or buffer at a dotted name."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        module._buffers[leaf] = value


def _refuse_another_head(head: str, embedding: str, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if a tied output layer is stored too and differs from the embedding:
    versions of transformers differ in which one they take."""
    stored, table = checkpoint.tensors.get(head), checkpoint.tensors.get(embedding)
    if stored is None or table is None or stored.shape != table.shape:
        return
    if not equal_tensors(checkpoint, head, embedding):
        raise CheckpointError(
            f"config.json of {checkpoint.directory} ties the output layer to the embedding, "
            f"but {head} is stored and differs from it; set tie_word_embeddings to false if "
            "the stored one is meant, or remove it"
        )


def equal_tensors(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors of one shape hold the same numbers. They are read some rows at a time."""
    rows = checkpoint.tensors[one].shape[0]
    return all(
        torch.equal(*(checkpoint.read(name, start, start + _ROWS) for name in (one, other)))
        for start in range(0, rows, _ROWS)
    )


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output layer is the embedding, which a classifier's never is."""
    tied = bool(getattr(checkpoint.config, "tie_word_embeddings", False))
    return tied and not checkpoint.is_classifier
