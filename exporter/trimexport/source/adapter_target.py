"""The parameters of a checkpoint, to which an adapter's tensors are held."""

from __future__ import annotations

from pathlib import Path

from trimexport.errors import CheckpointError, UnsupportedError

from .checkpoint import Checkpoint, read_config
from .empty_model import equal_tensors, is_tied, make_skeleton, module_name, output_layer
from .families import family_of, reference_attention
from .low_rank import Adapter
from .tensor_files import TensorEntry, read_entry, require_finite

_BLOCK = 2**22  # bytes that are checked together


class Target:
    """The parameters of a checkpoint to which an adapter's tensors belong.

    Args:
        directory: the adapter's.
        base: the name of the model that it was trained on, if it says so.
        otherwise: what to do where a tensor cannot be taken, for messages.
    """

    def __init__(
        self, directory: Path, base: str | None, checkpoint: Checkpoint, otherwise: str
    ) -> None:
        self.directory = directory
        self.otherwise = otherwise
        self.checkpoint = checkpoint
        self.model = make_skeleton(checkpoint, reference_attention(checkpoint.config))
        self.trained_on = (
            f"it was trained on {base or 'a model that it does not name'}, the checkpoint "
            f"is {checkpoint.model} ({checkpoint.architecture}); give the adapter's own model with "
            "--model"
        )
        _, self._family = family_of(read_config(checkpoint.directory), checkpoint.model)
        parameters = self.model.named_parameters(remove_duplicate=False)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in parameters}

    def replacement(self, stored: str, entry: TensorEntry) -> tuple[str, TensorEntry]:
        """The parameter that a tensor replaces, and the tensor's place."""
        name = self.parameter(stored)
        self.refuse_more_tokens(name, entry.shape)
        if entry.shape != self.shapes[name]:
            raise self.another_shape(name, str(list(entry.shape)))
        return name, entry

    def parameter(self, stored: str) -> str:
        """The parameter that the adapter calls `stored`.

        Raises:
            CheckpointError: there is none.
        """
        name = stored if stored in self.shapes else self._family.parameter_name(stored)
        if name is None or name not in self.shapes:
            raise CheckpointError(
                f"the adapter {self.directory} is for another model: there is no {stored}; "
                f"{self.trained_on}"
            )
        return name

    def refuse_more_tokens(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise UnsupportedError if an embedding or output layer has more rows than the
        checkpoint's."""
        layers = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        if self.model.get_submodule(name.rpartition(".")[0]) not in layers or not shape:
            return
        rows = self.shapes[name][0]
        if shape[0] > rows:
            raise UnsupportedError(
                f"the adapter {self.directory} was trained with {shape[0] - rows:,} more tokens "
                f"than the {rows:,} that {self.checkpoint.model} has ({name}); resize the model's "
                f"embedding as the training did (resize_token_embeddings), {self.otherwise}"
            )

    def refuse_half_of_a_tie(self, merged: Checkpoint, adapter: Adapter) -> None:
        """Raise UnsupportedError if output layer and embedding are one in the checkpoint, and the
        adapter stores one of them alone or two that differ."""
        head = module_name(self.model, output_layer(self.model)) + ".weight"
        embedding = module_name(self.model, self.model.get_input_embeddings()) + ".weight"
        stored = {head, embedding} & adapter.whole.keys()
        if not is_tied(merged) or not stored:
            return
        if len(stored) < 2 or not equal_tensors(merged, head, embedding):
            raise UnsupportedError(
                f"the adapter {self.directory} stores {' and '.join(sorted(stored))}, which its "
                "training parted from the other: the model ties output layer and embedding; set "
                f"tie_word_embeddings to false in its configuration, {self.otherwise}"
            )

    def another_shape(self, name: str, shape: str) -> CheckpointError:
        return CheckpointError(
            f"the adapter {self.directory} is for another model: its {name} is {shape}, the "
            f"checkpoint's {list(self.shapes[name])}; {self.trained_on}"
        )


def check_finite(key: str, entry: TensorEntry) -> None:
    """Raise CheckpointError if a tensor holds NaN or infinity."""
    rows = entry.shape[0] if entry.shape else 1
    step = max(1, _BLOCK * rows // max(entry.bytes, 1))
    for start in range(0, rows, step):
        block = read_entry(entry, key, start, start + step)
        require_finite(block, key, entry, start, "take an earlier state of the adapter")
