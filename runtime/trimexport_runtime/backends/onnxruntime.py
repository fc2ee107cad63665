"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from trimexport_runtime.backends import CPU_PROVIDER as PROVIDER
from trimexport_runtime.bundle import Manifest, Variant
from trimexport_runtime.cpu import adds_exactly, instructions
from trimexport_runtime.errors import BackendError, BundleError, IntegrityError

INPUTS = ("attention_mask", "input_ids")
OUTPUT = "logits"
_FATAL_ONLY = 4  # errors are raised, and their own log lines would only repeat them


class OnnxRuntimeBackend:
    """A `Backend` over one `InferenceSession`, which threads may share."""

    def __init__(self, session: Any, labels: int) -> None:
        self._session = session
        self._labels = labels

    @classmethod
    def load(
        cls, bundle: Path, manifest: Manifest, variant: Variant, threads: int | None
    ) -> OnnxRuntimeBackend:
        """Open the variant's graph.

        Args:
            threads: how many threads one batch may use; None leaves it to ONNX Runtime.

        Raises:
            IntegrityError: the graph is not there.
            BundleError: it is not a graph that trimexport wrote, or a damaged one.
            BackendError: it cannot run here.
        """
        _check_provider(manifest, variant)
        path = bundle / variant.graph
        if not path.is_file():
            raise IntegrityError(f"{path} is missing from the bundle; copy it again or rebuild it")
        options = session_options(threads)
        try:
            session = ort.InferenceSession(str(path), options, providers=[PROVIDER])
        except Exception as error:  # its exceptions share no base of their own
            raise BundleError(
                f"{path} cannot be loaded by ONNX Runtime {ort.__version__} ({_brief(error)}); "
                "check the bundle with `trimexport-run info --check`, or upgrade onnxruntime"
            ) from None
        if session.get_providers() != [PROVIDER]:
            got = ", ".join(session.get_providers())
            raise BackendError(f"ONNX Runtime chose {got} for {path}, asked for {PROVIDER}")
        _check_signature(session, path)
        return cls(session, len(manifest.labels))

    def run(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Logits of a batch, float32 `[batch, labels]`: see `Backend.run`."""
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        try:
            logits = np.asarray(self._session.run([OUTPUT], feed)[0], dtype=np.float32)
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed on a batch of {input_ids.shape[0]} x {input_ids.shape[1]} "
                f"tokens ({_brief(error)}); check the bundle with `trimexport-run info --check` "
                "and the free memory"
            ) from None
        if logits.shape != (len(input_ids), self._labels):
            raise BackendError(
                f"the graph gave logits of shape {list(logits.shape)}, the manifest's labels need "
                f"{[len(input_ids), self._labels]}; build the bundle again"
            )
        if not np.isfinite(logits).all():
            raise BackendError(
                "the graph gave a logit that is not a finite number; use a variant of higher "
                "precision, and `trimexport verify` to see which texts it fails on"
            )
        return logits


def session_options(threads: int | None) -> Any:
    """How sessions are made here.

    Raises:
        BackendError: less than one thread.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if not adds_exactly(instructions()):
        # On x64 ONNX Runtime makes int8 weights unsigned then: their products cannot overflow and
        # take two to three times as long. It would do so with VNNI too.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        if threads < 1:
            raise BackendError(f"threads is {threads}; give 1 or more, or None for all cores")
        options.intra_op_num_threads = threads
    return options


def available() -> tuple[str, list[str]]:
    """The version of ONNX Runtime and the providers that this build of it has."""
    return str(ort.__version__), list(ort.get_available_providers())


def _check_provider(manifest: Manifest, variant: Variant) -> None:
    if variant.providers and PROVIDER not in variant.providers:
        needs = ", ".join(variant.providers)
        others = [v.name for v in manifest.variants if PROVIDER in v.providers]
        hint = f"use one of: {', '.join(others)}" if others else "build one that runs on the CPU"
        raise BackendError(
            f'variant "{variant.name}" needs {needs}, this runtime has {PROVIDER}; {hint}'
        )


def _check_signature(session: Any, path: Path) -> None:
    inputs = sorted(item.name for item in session.get_inputs())
    outputs = [item.name for item in session.get_outputs()]
    if inputs != list(INPUTS) or OUTPUT not in outputs:
        raise BundleError(
            f"{path} takes {', '.join(inputs)} and gives {', '.join(outputs)}; a trimexport graph "
            f"takes {', '.join(INPUTS)} and gives {OUTPUT}: build the bundle again"
        )


def _brief(error: Exception) -> str:
    """The first line of a message, since ONNX Runtime adds stack traces to some."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
