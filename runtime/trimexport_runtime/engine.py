"""Build TensorRT engines from a bundle's graphs, on the device that will run them.

An engine runs with one version of TensorRT on one kind of GPU, so it is built where it runs, and
that needs neither PyTorch nor the checkpoint: the graph is in the bundle. Networks are strongly
typed, as TensorRT 11 has them alone: the types are those that the graph was written with.

Not run with TensorRT's library yet: docs/tensorrt.md says what was checked without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import cuda, tensorrt_library
from .bundle import (
    FOR_TENSORRT,
    INPUTS,
    MANIFEST,
    Engine,
    Manifest,
    Profile,
    Variant,
    read_manifest,
    to_json,
)
from .errors import BackendError, BundleError
from .integrity import check_files, sha256_of
from .profiles import profiles_for
from .replacing import replacing

if TYPE_CHECKING:
    import tensorrt as trt
    from typing_extensions import Buffer

WORKSPACE_BYTES = 4 * 2**30


def candidates(manifest: Manifest) -> tuple[Variant, ...]:
    """The variants that are made for TensorRT.

    Raises:
        BundleError: there are none.
    """
    found = tuple(it for it in manifest.variants if it.name.startswith(FOR_TENSORRT))
    if not found:
        raise BundleError(
            "the bundle has no variant for TensorRT; build one with `trimexport build --tensorrt "
            "fp16 --tensorrt-onnx-only`"
        )
    return found


def require_builder() -> cuda.Gpu:
    """The GPU for which engines would be built here.

    Raises:
        BackendError: TensorRT, `cuda-python` or the GPU is missing.
    """
    tensorrt_library.load()
    return cuda.gpu()


def build_engine(bundle: Path, variant: Variant) -> Manifest:
    """Build the engine of a variant, put it and the manifest that names it into the bundle, and
    return that manifest. Nothing of the bundle changes before the engine is there.

    Raises:
        BackendError: TensorRT does not read the graph or cannot build the engine.
        IntegrityError: the graph's files are not those of the manifest.
        OSError: the bundle cannot be written.
    """
    gpu = require_builder()
    manifest = read_manifest(bundle)
    files = tuple(it for it in manifest.files if it.path in variant.files)
    check_files(bundle, replace(manifest, files=files), hashes=True)
    profiles = profiles_for(manifest.text_limit.tokens)
    plan = _plan(bundle / variant.graph, profiles)
    engine = Engine(
        file=engine_file(variant),
        bytes=0,
        sha256="",
        tensorrt=tensorrt_library.version(),
        compute_capability=gpu.compute_capability,
        gpu=gpu.name,
        profiles=profiles,
        built_from={it.path: it.sha256 for it in files},
    )
    return keep_engine(bundle, variant.name, engine, plan)


def keep_engine(bundle: Path, name: str, engine: Engine, plan: Buffer) -> Manifest:
    """Write an engine into the bundle and name it in the manifest, as that is by now.

    Where this ends in between, the variant has an engine whose hash is not its manifest's: it is
    refused, and everything else runs as before.

    Args:
        name: the variant's.
        engine: what is known of it but its size and hash.
        plan: the engine, serialised.
    """
    path = bundle / engine.file
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as stream:
        stream.write(plan)
    engine = replace(engine, bytes=path.stat().st_size, sha256=sha256_of(path))
    manifest = read_manifest(bundle)
    variants = tuple(
        replace(it, engine=engine) if it.name == name else it for it in manifest.variants
    )
    manifest = replace(manifest, variants=variants)
    with replacing(bundle / MANIFEST) as stream:
        stream.write(to_json(manifest).encode())
    return manifest


def engine_file(variant: Variant) -> str:
    """Where a variant's engine lies in the bundle."""
    return f"tensorrt/model_{variant.name.removeprefix(FOR_TENSORRT)}.plan"


def _plan(graph: Path, profiles: Sequence[Profile]) -> trt.IHostMemory:
    """The engine of a graph, serialised."""
    import tensorrt

    log, errors = tensorrt_library.make_log()
    builder = tensorrt_library.make("builder", lambda: tensorrt.Builder(log), errors)
    network = builder.create_network(network_flags())
    parser = tensorrt_library.make("parser", lambda: tensorrt.OnnxParser(network, log), errors)
    if not parser.parse_from_file(str(graph)):
        raise BackendError(f"TensorRT does not read {graph}: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name in INPUTS:
            profile.set_shape(name, (1, 1), shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(f"TensorRT refuses the profile {shapes}")
    with tensorrt_library.interruptible(config):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(
            f"TensorRT cannot build {graph} ({tensorrt_library.reason(errors)}); where memory is "
            "short, build the bundle with a smaller --max-tokens"
        )
    return plan


def network_flags() -> int:
    """Strongly typed: a choice up to TensorRT 10, the only way from 11 on."""
    import tensorrt

    if tensorrt_library.major() > 10:
        return 0
    return 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _parser_errors(parser: trt.OnnxParser) -> str:
    """Every error of the parser, with its node."""
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"{error.node_operator()} {error.node_name()}".strip() or f"node {error.node()}"
        lines.append(f"{node}: {error.desc()}")
    return "; ".join(lines) or "it gives no reason"
