"""ONNX Runtime on the CPU, on NVIDIA GPUs through CUDA, and through its TensorRT provider.

ONNX Runtime goes on with the CPU where another provider cannot start, and runs single operators
there that the provider lacks. Neither is taken for an answer here: see `check_where_it_runs`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from trimexport_runtime.backends import CPU_PROVIDER, PROVIDERS, checked_logits
from trimexport_runtime.backends.providers import (
    TENSORRT_PROVIDER,
    check_where_it_runs,
    not_started,
    preload_libraries,
    require_provider,
)
from trimexport_runtime.batching import rows_within, token_budget
from trimexport_runtime.bundle import INPUTS, OUTPUT, Manifest, Profile, Variant
from trimexport_runtime.cores import usable_cores
from trimexport_runtime.errors import BackendError, BundleError, IntegrityError
from trimexport_runtime.profiles import single_profile

_FATAL_ONLY = 4  # errors are raised, and their own log lines would only repeat them
_DEFAULT_LOGGING = 2
_CUDA = PROVIDERS["onnxruntime-cuda"]


class OnnxRuntimeBackend:
    """A `Backend` over one `InferenceSession`, which threads may share, and so may the backends of
    several tasks. `fed` are a task's values of the graph's further inputs, as `OrtValue`."""

    def __init__(
        self,
        session: Any,
        outputs: int,
        provider: str,
        most_rows: Callable[[int], int],
        fed: Mapping[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._outputs = outputs
        self.provider = provider
        self.most_rows = most_rows
        self._fed = fed or {}

    @classmethod
    def load(
        cls,
        bundle: Path,
        manifest: Manifest,
        variant: Variant,
        backend: str,
        threads: int | None = None,
        budget: int | None = None,
        spin: bool = True,
        begun: Callable[[], None] | None = None,
    ) -> OnnxRuntimeBackend:
        """Open the variant's graph: see `load_backend`.

        Raises:
            IntegrityError: the graph is not there.
            BundleError: it is not a graph that trimexport wrote, or a damaged one.
            BackendError: the provider is not here, does not start, or leaves products to the CPU.
        """
        provider = PROVIDERS[backend]
        if budget is None:
            budget = token_budget(variant.bytes, provider == CPU_PROVIDER)
        rows = rows_within(budget)
        options: dict[str, str] = {}
        if provider == TENSORRT_PROVIDER:
            profile = single_profile(manifest.text_limit.tokens, budget)
            rows, options = (lambda width: profile.max[0]), tensorrt_options(profile)
        how = session_options(threads, spin=spin)
        path = bundle / variant.graph
        session = open_graph(path, provider, options, how, begun)
        _check_signature(session, path)
        return cls(session, manifest.outputs, provider, rows)

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits of a batch, float32 `[batch, outputs]`: see `Backend.run`."""
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        try:
            if self.provider == CPU_PROVIDER and not self._fed:
                logits = self._session.run([OUTPUT], feed)[0]
            else:
                logits = run_bound(self._session, feed, self._fed)
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed on a batch of {input_ids.shape[0]} x {input_ids.shape[1]} "
                f"tokens ({_brief(error)}); check the bundle with `trimexport-run info --check` "
                "and the free memory"
            ) from None
        return checked_logits(np.asarray(logits, dtype=np.float32), len(input_ids), self._outputs)


def run_bound(
    session: Any,
    feed: Mapping[str, npt.NDArray[np.int64]],
    fed: Mapping[str, Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Run with every tensor bound: the inputs go to the device once, the logits come back once, and
    nothing else is copied. What is in `fed` is on the device already, as `OrtValue`."""
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for name, value in (fed or {}).items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output(OUTPUT, "cpu")
    session.run_with_iobinding(binding)
    return np.asarray(binding.get_outputs()[0].numpy())


def session_options(threads: int | None = None, *, spin: bool = True) -> Any:
    """How sessions are made here.

    Raises:
        BackendError: less than one thread.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        if threads < 1:
            raise BackendError(f"threads is {threads}; give 1 or more, or None for all cores")
        options.intra_op_num_threads = threads
    elif (cores := usable_cores()) < (os.cpu_count() or 1):
        # By itself ONNX Runtime takes the machine's cores, of which this process has not all.
        options.intra_op_num_threads = cores
    return options


def available() -> tuple[str, list[str]]:
    """The version of ONNX Runtime and the providers that this build of it has."""
    return str(ort.__version__), list(ort.get_available_providers())


def tensorrt_options(profile: Profile) -> dict[str, str]:
    """The range of batches for which ONNX Runtime's TensorRT provider builds its engine. Without
    one it builds another whenever a batch is larger or smaller than all before."""
    shapes = {"min": (1, 1), "opt": profile.opt, "max": profile.max}
    return {
        f"trt_profile_{name}_shapes": ",".join(f"{it}:{rows}x{width}" for it in INPUTS)
        for name, (rows, width) in shapes.items()
    }


def open_graph(
    path: Path,
    provider: str,
    settings: Mapping[str, str],
    options: Any,
    begun: Callable[[], None] | None = None,
) -> Any:
    """A session on `provider`, and on nothing else in its stead. What TensorRT leaves, CUDA takes;
    ONNX Runtime puts the CPU behind them by itself.

    Args:
        begun: called when the graph is read and the session is about to be prepared, which takes
            most of the time and leaves Python's lock to other threads.

    Raises:
        IntegrityError, BundleError, BackendError: as `OnnxRuntimeBackend.load`.
    """
    if not path.is_file():
        raise IntegrityError(f"{path} is missing from the bundle; copy it again or rebuild it")
    said = ""
    if provider != CPU_PROVIDER:
        require_provider(provider)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        said = preload_libraries(provider)
    try:
        with _quiet(provider):
            session = ort.InferenceSession(
                str(path),
                options,
                providers=[
                    (provider, dict(settings)),
                    *([_CUDA] * (provider == TENSORRT_PROVIDER)),
                ],
                enable_fallback=0,
                disabled_optimizers=_none_once_asked(begun),
            )
    except Exception as error:  # its exceptions share no base of their own
        if provider != CPU_PROVIDER:
            raise not_started(provider, said or _brief(error)) from None
        raise BundleError(
            f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({_brief(error)}); "
            "check the bundle with `trimexport-run info --check`, or upgrade onnxruntime"
        ) from None
    check_where_it_runs(session, provider, path, said)
    return session


def _none_once_asked(begun: Callable[[], None] | None) -> Iterator[str]:
    """The optimizers to leave out: none. ONNX Runtime asks for them between reading a graph and
    preparing the session, where it calls nothing else."""
    if begun is not None:
        begun()
    yield from ()


@contextlib.contextmanager
def _quiet(provider: str) -> Iterator[None]:
    """Let a provider that does not start say so through the error alone."""
    if provider == CPU_PROVIDER:
        yield
        return
    ort.set_default_logger_severity(_FATAL_ONLY)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_DEFAULT_LOGGING)


def _check_signature(session: Any, path: Path) -> None:
    inputs = [item.name for item in session.get_inputs()]
    outputs = [item.name for item in session.get_outputs()]
    if set(inputs) != set(INPUTS) or OUTPUT not in outputs:
        raise BundleError(
            f"{path} takes {', '.join(inputs)} and gives {', '.join(outputs)}; a trimexport graph "
            f"takes {', '.join(INPUTS)} and gives {OUTPUT}: build the bundle again"
        )


def _brief(error: Exception) -> str:
    """The first line of a message, since ONNX Runtime adds stack traces to some."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
