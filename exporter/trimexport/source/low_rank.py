"""What an adapter changes of a checkpoint: LoRA's changes of tensors, which are read when they are
needed, tensors in place of others, and a trained prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from trimexport.errors import CheckpointError

from .adapter_config import CONFIG
from .tensor_files import TensorEntry, read_entry
from .trained_prompt import TrainedPrompt

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class LowRank:
    """The change of one matrix: `scale` B A, with A [r, inputs] and B [outputs, r]. It is [outputs,
    inputs], or [inputs, outputs] for a matrix that is stored `transposed`."""

    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of the change of the tensor `name`, as float32 [rows, columns]."""
        a = read_entry(self.a, f"lora_A of {name}")
        if self.transposed:
            return self.scale * (a[:, start:stop].T @ read_entry(self.b, f"lora_B of {name}").T)
        return self.scale * (read_entry(self.b, f"lora_B of {name}", start, stop) @ a)


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits its checkpoint. Holds no weights.

    `name` is the adapter's name in the manifest: a hub id, or the directory. `base` is the name
    that its configuration gives for the model that it was trained on. `changes` are to be added to
    the parameters of these names, and the tensors in `whole` take their places. `prompt` stands
    before every prompt.
    """

    directory: Path
    name: str
    base: str | None
    changes: Mapping[str, LowRank]
    whole: Mapping[str, TensorEntry]
    prompt: TrainedPrompt | None = None

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the parameters that the adapter changes or replaces."""
        return frozenset((*self.changes, *self.whole))

    @property
    def sha256(self) -> str:
        """The hash of the adapter's configuration and weights."""
        return adapter_sha256(self.directory)


def adapter_sha256(directory: Path) -> str:
    """The hash of adapter_config.json and adapter_model.safetensors, one after the other.

    Raises:
        CheckpointError: one of the two is missing.
    """
    digest = hashlib.sha256()
    for path in (directory / CONFIG, weights_file(directory)):
        try:
            with path.open("rb") as stream:
                while block := stream.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read ({error.strerror}); --adapter takes the directory that "
                "peft's `save_pretrained` wrote"
            ) from None
    return digest.hexdigest()


def weights_file(directory: Path) -> Path:
    """The path of the adapter's weights.

    Raises:
        CheckpointError: there are none, or only as adapter_model.bin.
    """
    path = directory / WEIGHTS
    if path.is_file():
        return path
    if (directory / "adapter_model.bin").is_file():
        raise CheckpointError(
            f"{directory} has its weights only as adapter_model.bin, which can run code when it "
            "is loaded; where you trust it, load it with peft (PeftModel.from_pretrained) and "
            f"write {WEIGHTS} with save_pretrained"
        )
    raise CheckpointError(
        f"{directory} has no {WEIGHTS}; --adapter takes the directory that peft's "
        "`save_pretrained` wrote"
    )
