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
from .atomic_file import atomic_file
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

if TYPE_CHECKING:
    import tensorrt as trt
    from typing_extensions import Buffer

WORKSPACE_BYTES = 4 * 2**30


def candidates(manifest: Manifest) -> tuple[Variant, ...]:
    """The variants that are made for TensorRT.

    Raises:
        BundleError: there are none.
    """
    made = [variant for variant in manifest.variants if variant.name.startswith(FOR_TENSORRT)]
    if not made:
        raise BundleError(
            "the bundle has no variant for TensorRT; build one with `trimexport build --tensorrt "
            "fp16 --tensorrt-onnx-only`"
        )
    return tuple(made)


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
    files = tuple(entry for entry in manifest.files if entry.path in variant.files)
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
        built_from={entry.path: entry.sha256 for entry in files},
    )
    return keep_engine(bundle, variant.name, engine, plan)


def keep_engine(bundle: Path, name: str, engine: Engine, plan: Buffer) -> Manifest:
    """Write an engine into the bundle, and then name it in the manifest, which is read again first.

    If this is interrupted between the two, the file is not the engine that the manifest names, and
    is refused; everything else runs as before.

    Args:
        name: the variant's name.
        engine: the engine's entry, in which size and hash are set here.
        plan: the serialised engine.
    """
    path = bundle / engine.file
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as stream:
        stream.write(plan)
    engine = replace(engine, bytes=path.stat().st_size, sha256=sha256_of(path))
    manifest = read_manifest(bundle)
    variants = tuple(
        replace(variant, engine=engine) if variant.name == name else variant
        for variant in manifest.variants
    )
    manifest = replace(manifest, variants=variants)
    with atomic_file(bundle / MANIFEST) as stream:
        stream.write(to_json(manifest).encode())
    return manifest


def engine_file(variant: Variant) -> str:
    """The path of a variant's engine in the bundle."""
    return f"tensorrt/model_{variant.name.removeprefix(FOR_TENSORRT)}.plan"


def _plan(graph: Path, profiles: Sequence[Profile]) -> trt.IHostMemory:
    """The serialised engine of a graph."""
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
    """The flags of a strongly typed network. TensorRT 10 needs one, and 11 makes no others."""
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
