"""Build TensorRT engines from a bundle's graphs, on the device that will run them.

An engine runs with one version of TensorRT on one kind of GPU, so it is built where it runs, and
that needs neither PyTorch nor the checkpoint: the graph is in the bundle. Networks are strongly
typed, as TensorRT 11 has them alone: the types are those that the graph was written with.

Not run yet: no machine with the library was at hand. What could be checked without it is said in
docs/tensorrt.md.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import cuda, tensorrt_library
from .backends.onnxruntime import INPUTS
from .bundle import MANIFEST, BundleFile, Engine, Manifest, Profile, Variant, to_json
from .errors import BackendError, BundleError
from .integrity import check_files, sha256_of
from .profiles import profiles_for

if TYPE_CHECKING:
    import tensorrt as trt

PREFIX = "tensorrt-"
WORKSPACE_BYTES = 4 * 2**30


def candidates(manifest: Manifest) -> tuple[Variant, ...]:
    """The variants that are made for TensorRT.

    Raises:
        BundleError: there are none.
    """
    found = tuple(it for it in manifest.variants if it.name.startswith(PREFIX))
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


def build_engine(bundle: Path, manifest: Manifest, variant: Variant) -> Manifest:
    """Build the engine of a variant, put it and the manifest that names it into the bundle, and
    return that manifest. A bundle is as it was where this fails.

    Raises:
        BackendError: TensorRT does not read the graph or cannot build the engine.
        IntegrityError: the bundle's files are not those of its manifest.
        OSError: the bundle cannot be written.
    """
    gpu = require_builder()
    check_files(bundle, manifest, hashes=False)
    profiles = profiles_for(manifest.text_limit.tokens)
    file = engine_file(variant)
    folder = (bundle / file).parent
    folder.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".engine-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(memoryview(_plan(bundle / variant.graph, profiles)))
        Path(name).chmod(0o644)
        entry = BundleFile(file, Path(name).stat().st_size, sha256_of(Path(name)))
        engine = Engine(
            file=file,
            tensorrt=tensorrt_library.version(),
            compute_capability=gpu.compute_capability,
            gpu=gpu.name,
            profiles=profiles,
            built_from=sources(manifest, variant),
        )
        Path(name).replace(bundle / file)
    finally:
        Path(name).unlink(missing_ok=True)
    return _record(bundle, manifest, variant, engine, entry)


def engine_file(variant: Variant) -> str:
    """Where a variant's engine lies in the bundle."""
    return f"tensorrt/model_{variant.name.removeprefix(PREFIX)}.plan"


def sources(manifest: Manifest, variant: Variant) -> dict[str, str]:
    """The hashes of the files that a variant's graph consists of, by path."""
    return {it.path: it.sha256 for it in manifest.files if it.path in variant.files}


def _record(
    bundle: Path, manifest: Manifest, variant: Variant, engine: Engine, entry: BundleFile
) -> Manifest:
    """Write the manifest anew, with the engine in it."""
    others = tuple(it for it in manifest.files if it.path != entry.path)
    variants = tuple(
        replace(it, engine=engine) if it.name == variant.name else it for it in manifest.variants
    )
    changed = replace(manifest, variants=variants, files=(*others, entry))
    handle, name = tempfile.mkstemp(prefix=".manifest-", dir=bundle)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(to_json(changed))
        Path(name).chmod(0o644)
        Path(name).replace(bundle / MANIFEST)
    finally:
        Path(name).unlink(missing_ok=True)
    return changed


def _plan(graph: Path, profiles: Sequence[Profile]) -> trt.IHostMemory:
    """The engine of a graph, serialised."""
    import tensorrt

    log, errors = tensorrt_library.make_log()
    try:
        builder = tensorrt.Builder(log)
    except TypeError:  # the bindings' way of saying that the library gave none
        raise BackendError(
            f"TensorRT has no builder here ({tensorrt_library.reason(errors)}); check the GPU and "
            "its driver with nvidia-smi"
        ) from None
    network = builder.create_network(network_flags())
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise BackendError(f"TensorRT does not read {graph}: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name in INPUTS:
            profile.set_shape(name, (1, 1), shapes.usual, shapes.largest)
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(f"TensorRT refuses the profile {shapes}")
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
