"""The command lines of TensorRT's own tool, for people who build engines with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath

from trimexport_runtime.backends.onnxruntime import INPUTS
from trimexport_runtime.bundle import Manifest, Variant
from trimexport_runtime.engine import PREFIX, WORKSPACE_BYTES, engine_file
from trimexport_runtime.profiles import profiles_for


def trtexec_commands(bundle: PurePath, manifest: Manifest) -> dict[str, dict[str, str]]:
    """Variant for TensorRT -> version of TensorRT -> the command that builds its engine in
    `bundle`, with the profiles that the runtime would give it."""
    return {
        variant.name: {
            "10": _command(bundle, manifest, variant, ["--stronglyTyped"]),
            "11": _command(bundle, manifest, variant, []),  # there nothing else is left
        }
        for variant in manifest.variants
        if variant.name.startswith(PREFIX)
    }


def _command(bundle: PurePath, manifest: Manifest, variant: Variant, options: Sequence[str]) -> str:
    words = [
        "trtexec",
        f"--onnx={bundle / variant.graph}",
        f"--saveEngine={bundle / engine_file(variant)}",
        *options,
        f"--memPoolSize=workspace:{WORKSPACE_BYTES // 2**20}",
        "--skipInference",
    ]
    for place, profile in enumerate(profiles_for(manifest.text_limit.tokens)):
        words += [
            f"--profile={place}",
            f"--minShapes={_shapes((1, 1))}",
            f"--optShapes={_shapes(profile.usual)}",
            f"--maxShapes={_shapes(profile.largest)}",
        ]
    return shlex.join(words)


def _shapes(shape: Sequence[int]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name in INPUTS)
