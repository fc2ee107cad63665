"""The graph of a backbone in one session of ONNX Runtime, which all tasks on it share.

Beside a text's tokens it takes further inputs, and a task is what is given for them. They are put
where the graph runs once, when the task is added, and nothing of them is copied for a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from trimexport_runtime.backends import CPU_PROVIDER, PROVIDERS
from trimexport_runtime.backends.onnxruntime import (
    OnnxRuntimeBackend,
    open_graph,
    session_options,
)
from trimexport_runtime.batching import rows_within
from trimexport_runtime.batching import token_budget as fast_token_budget
from trimexport_runtime.bundle import INPUTS, OUTPUT, Variant
from trimexport_runtime.errors import BundleError, PackError

_TYPES: Mapping[str, Any] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
_NARROWER = {np.dtype(np.float16): np.dtype(np.float32)}  # what packs keep short


class SharedGraph:
    """A backbone's graph, of which tasks are made with `backend`; threads may share it."""

    def __init__(self, session: Any, provider: str, most_rows: Callable[[int], int]) -> None:
        self._session = session
        self._provider = provider
        self._most_rows = most_rows
        self._inputs = {it.name: it for it in session.get_inputs() if it.name not in INPUTS}

    @classmethod
    def load(
        cls,
        directory: Path,
        variant: Variant,
        backend: str,
        *,
        threads: int | None = None,
        token_budget: int | None = None,
        spin: bool = True,
        begun: Callable[[], None] | None = None,
    ) -> SharedGraph:
        """Open a variant's graph: see `Backbone.load`, and for `begun` `open_graph`.

        Raises:
            IntegrityError: the graph is not there.
            BundleError: it is not a backbone's graph, or a damaged one.
            BackendError: the provider is not here, or does not start.
        """
        provider = PROVIDERS[backend]
        path = directory / variant.graph
        how = session_options(threads, spin=spin)
        session = open_graph(path, provider, {}, how, begun)
        _check_signature(session, path)
        if token_budget is None:
            token_budget = fast_token_budget(variant.bytes, provider == CPU_PROVIDER)
        return cls(session, provider, rows_within(token_budget))

    def backend(
        self, arrays: Mapping[str, npt.NDArray[Any]], outputs: int, pack: Path
    ) -> OnnxRuntimeBackend:
        """What runs the graph for the task whose arrays these are, by the inputs' names.

        Args:
            outputs: how many logits the task has.
            pack: the file that messages name.

        Raises:
            PackError: an array is missing, is for no input, or of another type or shape.
        """
        if arrays.keys() != self._inputs.keys():
            raise PackError(
                f"{pack} has arrays for {_listed(arrays)}, and the backbone's graph takes "
                f"{_listed(self._inputs)}; write the pack again with `trimexport pack`"
            )
        fed = {name: self._value(name, arrays[name], pack) for name in arrays}
        return OnnxRuntimeBackend(self._session, outputs, self._provider, self._most_rows, fed)

    def _value(self, name: str, array: npt.NDArray[Any], pack: Path) -> Any:
        """An array as the graph's input takes it, and where the graph runs."""
        asked = self._inputs[name]
        kind = np.dtype(_TYPES[asked.type])
        shape = asked.shape
        fits = len(shape) == array.ndim and all(
            extent == given for extent, given in zip(shape, array.shape, strict=True)
            if isinstance(extent, int)
        )  # fmt: skip
        if _NARROWER.get(array.dtype, array.dtype) != kind or not fits:
            raise PackError(
                f"{name} in {pack} is {array.dtype} {list(array.shape)}, and the backbone's graph "
                f"takes {kind} {shape}; write the pack again with `trimexport pack`"
            )
        device = "cpu" if self._provider == CPU_PROVIDER else "cuda"
        return ort.OrtValue.ortvalue_from_numpy(array.astype(kind, copy=False), device)


def _check_signature(session: Any, path: Path) -> None:
    inputs = {item.name: item.type for item in session.get_inputs()}
    outputs = [item.name for item in session.get_outputs()]
    further = {name: kind for name, kind in inputs.items() if name not in INPUTS}
    if set(INPUTS) - inputs.keys() or OUTPUT not in outputs or set(further.values()) - {*_TYPES}:
        raise BundleError(
            f"{path} takes {_listed(inputs)} and gives {_listed(outputs)}; a backbone's graph "
            f"takes {', '.join(INPUTS)} and further inputs of float32 and int64, and gives "
            f"{OUTPUT}: build the backbone again"
        )


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
