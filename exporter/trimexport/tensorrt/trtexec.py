"""The command lines of TensorRT's own tool, for people who build engines with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from trimexport_runtime.bundle import FOR_TENSORRT, INPUTS, Manifest, Variant
from trimexport_runtime.engine import WORKSPACE_BYTES
from trimexport_runtime.profiles import profiles_for


def trtexec_commands(manifest: Manifest) -> dict[str, dict[str, str]]:
    """The commands that build the engines of a bundle, to be run in its directory: variant for
    TensorRT -> version of TensorRT -> command. The profiles are those of `build-engines`."""
    return {
        variant.name: {
            "10": _command(manifest, variant, ["--stronglyTyped"]),
            "11": _command(manifest, variant, []),  # there nothing else is left
        }
        for variant in manifest.variants
        if variant.name.startswith(FOR_TENSORRT)
    }


def _command(manifest: Manifest, variant: Variant, options: Sequence[str]) -> str:
    words = [
        "trtexec",
        f"--onnx={variant.graph}",
        f"--saveEngine={variant.name}.plan",
        *options,
        f"--memPoolSize=workspace:{WORKSPACE_BYTES // 2**20}",
        "--skipInference",
    ]
    for place, profile in enumerate(profiles_for(manifest.text_limit.tokens)):
        words += [
            f"--profile={place}",
            f"--minShapes={_shapes((1, 1))}",
            f"--optShapes={_shapes(profile.opt)}",
            f"--maxShapes={_shapes(profile.max)}",
        ]
    return shlex.join(words)


def _shapes(shape: Sequence[int]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name in INPUTS)
