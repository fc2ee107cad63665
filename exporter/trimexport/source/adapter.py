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
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimexport.errors import CheckpointError, UnsupportedError

from .adapter_config import CONFIG, MERGE, AdapterConfig, read_adapter_config
from .checkpoint import Checkpoint, read_config
from .empty_model import equal_tensors, is_tied, make_skeleton, module_name, output_layer
from .families import family_of, reference_attention
from .low_rank import Adapter, LowRank, weights_file
from .tensor_files import TensorEntry, read_entry, read_header, require_finite

_PREFIX = "base_model.model."
_PAIR = re.compile(r"(.+)\.lora_([AB])\.weight")
_BLOCK = 2**22  # bytes that are checked together
# Tensors that are ignored: those of a multimodal model's part for images, which is not built, and
# two kinds that peft stores needlessly, the modules that others replace and GPT-2's causal masks,
# which it takes for biases.
_UNUSED = re.compile(
    r"(^|\.)(vision_tower|multi_modal_projector|original_module)\.|\.attn\.(masked_)?bias$"
)


def merge_adapter(checkpoint: Checkpoint, directory: Path, name: str) -> Checkpoint:
    """The checkpoint with an adapter: the tensors that are read from it have the adapter's changes
    added.

    Args:
        directory: the adapter's.
        name: the user's name for the adapter: a directory or a hub id.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor holds NaN or infinity, or the
            adapter is for another model.
        UnsupportedError: the adapter is more than plain LoRA on linear layers.
    """
    config = read_adapter_config(directory)
    _check_task(config, directory, checkpoint)
    target = _Target(directory, config, checkpoint)
    entries = {
        key.removeprefix(_PREFIX): entry
        for key, entry in read_header(weights_file(directory)).items()
        if not _UNUSED.search(key)
    }
    pairs, stored = _pairs_and_whole(entries, directory)
    changes = dict(target.change(module, sides) for module, sides in pairs.items())
    whole = dict(target.replacement(own, entry) for own, entry in stored.items())
    if not changes and not whole:
        raise CheckpointError(
            f"the adapter {directory} changes nothing of the language model; {target.trained_on}"
        )
    for key, entry in entries.items():
        _check_finite(key, entry)
    full_name = str(directory.resolve()) if Path(name).is_dir() else name
    adapter = Adapter(directory, full_name, config.base, changes, whole)
    merged = replace(checkpoint, tensors={**checkpoint.tensors, **whole}, adapter=adapter)
    _refuse_half_of_a_tie(merged, adapter, target.model)
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


class _Target:
    """The parameters of a checkpoint to which an adapter's tensors belong."""

    def __init__(self, directory: Path, config: AdapterConfig, checkpoint: Checkpoint) -> None:
        self.directory = directory
        self.config = config
        self.checkpoint = checkpoint
        self.model = make_skeleton(checkpoint, reference_attention(checkpoint.config))
        self.trained_on = (
            f"it was trained on {config.base or 'a model that it does not name'}, the checkpoint "
            f"is {checkpoint.model} ({checkpoint.architecture}); give the adapter's own model with "
            "--model"
        )
        _, self._family = family_of(read_config(checkpoint.directory), checkpoint.model)
        parameters = self.model.named_parameters(remove_duplicate=False)
        self._shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
        self._tied = is_tied(checkpoint)

    def change(self, module: str, sides: Mapping[str, TensorEntry]) -> tuple[str, LowRank]:
        """The parameter that a module's A and B change, and the change."""
        a, b = sides["A"], sides["B"]
        name = self._parameter(module + ".weight")
        layer = self.model.get_submodule(name.removesuffix(".weight"))
        if not isinstance(layer, nn.Linear | Conv1D):
            raise _on_an_embedding(self.directory, module)
        if self._tied and layer is output_layer(self.model):
            raise UnsupportedError(
                f"the adapter {self.directory} changes {module}, which is tied to the embedding; "
                f"{MERGE}"
            )
        transposed = isinstance(layer, Conv1D)  # as peft decides it
        shape = self._shapes[name][::-1] if transposed else self._shapes[name]
        rank = a.shape[0] if a.shape else 0
        self._refuse_more_tokens(name, b.shape)
        if rank < 1 or (a.shape, b.shape) != ((rank, shape[1]), (shape[0], rank)):
            raise self._another_shape(name, f"{list(b.shape)} times {list(a.shape)}")
        return name, LowRank(a, b, self.config.scale(module, rank), transposed)

    def replacement(self, stored: str, entry: TensorEntry) -> tuple[str, TensorEntry]:
        """The parameter that a tensor replaces, and the tensor's place."""
        name = self._parameter(stored)
        self._refuse_more_tokens(name, entry.shape)
        if entry.shape != self._shapes[name]:
            raise self._another_shape(name, str(list(entry.shape)))
        return name, entry

    def _parameter(self, stored: str) -> str:
        """The parameter that the adapter calls `stored`.

        Raises:
            CheckpointError: there is none.
        """
        name = stored if stored in self._shapes else self._family.parameter_name(stored)
        if name is None or name not in self._shapes:
            raise CheckpointError(
                f"the adapter {self.directory} is for another model: there is no {stored}; "
                f"{self.trained_on}"
            )
        return name

    def _refuse_more_tokens(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise UnsupportedError if an embedding or output layer has more rows than the
        checkpoint's."""
        layers = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        if self.model.get_submodule(name.rpartition(".")[0]) not in layers or not shape:
            return
        rows = self._shapes[name][0]
        if shape[0] > rows:
            raise UnsupportedError(
                f"the adapter {self.directory} was trained with {shape[0] - rows:,} more tokens "
                f"than the {rows:,} that {self.checkpoint.model} has ({name}); resize the model's "
                f"embedding as the training did (resize_token_embeddings), {MERGE}"
            )

    def _another_shape(self, name: str, shape: str) -> CheckpointError:
        return CheckpointError(
            f"the adapter {self.directory} is for another model: its {name} is {shape}, the "
            f"checkpoint's {list(self._shapes[name])}; {self.trained_on}"
        )


def _on_an_embedding(directory: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"the adapter {directory} changes an embedding ({what}); only linear layers can be merged "
        f"here; {MERGE}"
    )


def _check_finite(key: str, entry: TensorEntry) -> None:
    """Raise CheckpointError if a tensor holds NaN or infinity."""
    rows = entry.shape[0] if entry.shape else 1
    step = max(1, _BLOCK * rows // max(entry.bytes, 1))
    for start in range(0, rows, step):
        block = read_entry(entry, key, start, start + step)
        require_finite(block, key, entry, start, "take an earlier state of the adapter")


def _refuse_half_of_a_tie(checkpoint: Checkpoint, adapter: Adapter, model: PreTrainedModel) -> None:
    """Raise UnsupportedError if output layer and embedding are one in the checkpoint, and the
    adapter stores one of them alone or two that differ."""
    head = module_name(model, output_layer(model)) + ".weight"
    embedding = module_name(model, model.get_input_embeddings()) + ".weight"
    stored = {head, embedding} & adapter.whole.keys()
    if not is_tied(checkpoint) or not stored:
        return
    if len(stored) < 2 or not equal_tensors(checkpoint, head, embedding):
        raise UnsupportedError(
            f"the adapter {adapter.directory} stores {' and '.join(sorted(stored))}, which its "
            "training parted from the other: the model ties output layer and embedding; set "
            f"tie_word_embeddings to false in its configuration, {MERGE}"
        )
