"""What can be known of TensorRT without its library: the signatures of its own bindings, and what
our code says of what is missing. docs/tensorrt.md says what this proves and what it does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from packages import ROOT, needs_wheels, run_with
from trimexport_runtime import read_manifest

sys.path.insert(0, str(ROOT / "typings"))
from read_bindings import empty_libraries

GENERATIONS = ("10", "11")
SOURCES = ("engine.py", "tensorrt_library.py", "backends/tensorrt.py")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Empty libraries for each generation of the bindings."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler, which makes the libraries that the bindings ask for")
    found = {}
    for generation in GENERATIONS:
        found[generation] = tmp_path_factory.mktemp(f"tensorrt-{generation}")
        empty_libraries(found[generation], int(generation))
        package = found[generation] / "tensorrt"  # as the package of that name does
        package.mkdir()
        (package / "__init__.py").write_text(
            "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
        )
    return found


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_stub_is_what_the_bindings_say(generation: str, libraries: dict[str, Path]) -> None:
    directory = needs_wheels(f"tensorrt-{generation}")
    run = run_with([], str(ROOT / "typings" / "read_bindings.py"), str(directory))
    assert run.returncode == 0, run.stderr
    stub = ROOT / "typings" / f"tensorrt-{generation}" / "tensorrt.pyi"
    assert run.stdout == stub.read_text(encoding="utf-8")


def test_our_calls_are_right_in_the_older_generation(tmp_path: Path) -> None:
    """`make check` looks at the newer one."""
    files = [str(ROOT / "runtime" / "trimexport_runtime" / name) for name in SOURCES]
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), *files]
    where = {**os.environ, "MYPYPATH": str(ROOT / "typings" / "tensorrt-10")}
    run = subprocess.run(command, cwd=ROOT, env=where, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def in_generation(
    generation: str, libraries: dict[str, Path], code: str, *arguments: str, cuda: bool = True
) -> str:
    """What a Python with the real bindings prints."""
    directories = [needs_wheels(f"tensorrt-{generation}"), libraries[generation]]
    directories += [needs_wheels("cuda")] if cuda else []
    where = str(libraries[generation])
    run = run_with(directories, "-c", code, *arguments, LD_LIBRARY_PATH=where)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_the_real_bindings_take(generation: str, libraries: dict[str, Path]) -> None:
    """The parts that are Python's alone: versions, flags, our logger, shapes as tuples."""
    code = """
import tensorrt
from trimexport_runtime import tensorrt_library as library
from trimexport_runtime.engine import network_flags
library.load()
log, errors = library.make_log()
log.log(tensorrt.ILogger.Severity.WARNING, "a warning")
log.log(tensorrt.ILogger.Severity.ERROR, "an error ")
described = tensorrt.PluginTensorDesc()
described.dims = (64, 32)
print(library.major(), network_flags(), errors, tuple(described.dims))
"""
    flags = {"10": 2, "11": 0}[generation]
    found = in_generation(generation, libraries, code)
    assert found == f"{generation} {flags} ['an error'] (64, 32)"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_library_that_gives_no_builder(generation: str, libraries: dict[str, Path]) -> None:
    """As TensorRT does without a GPU."""
    code = """
from pathlib import Path
from trimexport_runtime import BackendError
from trimexport_runtime.engine import _plan
try: _plan(Path("graph.onnx"), ())
except BackendError as error: print(error)
"""
    found = in_generation(generation, libraries, code)
    assert found.startswith("TensorRT gives no builder (TensorRT logs no reason); check the GPU")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_library_that_gives_no_runtime(
    generation: str, libraries: dict[str, Path], tmp_path: Path
) -> None:
    code = """
import sys
from pathlib import Path
from trimexport_runtime import BackendError
from trimexport_runtime.backends.tensorrt import _deserialise
from trimexport_runtime.bundle import Engine
engine = Engine("x.plan", 1, "", "", "", "", (), {})
try: _deserialise(Path(sys.argv[1]), engine)
except BackendError as error: print(error)
"""
    (tmp_path / "x.plan").write_bytes(b"x")
    found = in_generation(generation, libraries, code, str(tmp_path))
    assert found.startswith("TensorRT gives no runtime (TensorRT logs no reason)")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_interrupting_a_build(generation: str, libraries: dict[str, Path]) -> None:
    """The real monitor, asked as TensorRT asks it between two steps."""
    code = """
import os, signal, types
from trimexport_runtime import tensorrt_library as library
library.load()
config = types.SimpleNamespace()
try:
    with library.interruptible(config):
        steps = [config.progress_monitor.step_complete("phase", 0)]
        os.kill(os.getpid(), signal.SIGINT)
        steps.append(config.progress_monitor.step_complete("phase", 1))
except KeyboardInterrupt:
    print(steps, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    assert in_generation(generation, libraries, code) == "[True, False] True"


def test_no_driver(libraries: dict[str, Path]) -> None:
    code = """
from trimexport_runtime import BackendError, cuda
for call in (cuda.gpu, cuda.Stream, lambda: cuda.Buffer().hold(8)):
    try: print(call())
    except BackendError as error: print(error)
"""
    found = in_generation("11", libraries, code).splitlines()
    if not found[0].startswith("CUDA says"):
        pytest.skip("a GPU is here")
    assert len(found) == 3
    assert all("check the GPU and its driver with nvidia-smi" in line for line in found)


def test_no_cuda_python(libraries: dict[str, Path]) -> None:
    code = """
from trimexport_runtime import BackendError
from trimexport_runtime.engine import require_builder
try: require_builder()
except BackendError as error: print(error)
"""
    try:
        import cuda.bindings  # noqa: F401
    except ImportError:
        found = in_generation("10", libraries, code, cuda=False)
        assert "cuda-python is not installed" in found
        assert "install `trimexport-runtime[tensorrt]`" in found
    else:
        pytest.skip("cuda-python is installed")


def test_bindings_without_their_library(libraries: dict[str, Path]) -> None:
    code = """
from trimexport_runtime import BackendError, tensorrt_library
try: tensorrt_library.load()
except BackendError as error: print(error)
"""
    run = run_with([needs_wheels("tensorrt-10"), libraries["10"]], "-c", code)
    if not run.stdout:
        pytest.skip("TensorRT's library is here")
    assert "TensorRT is not here (libnvinfer" in run.stdout


def test_a_version_that_is_not_known(tmp_path: Path) -> None:
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "12.0.1"\n')
    code = """
from trimexport_runtime import BackendError, tensorrt_library
try: tensorrt_library.load()
except BackendError as error: print(error)
"""
    run = run_with([tmp_path], "-c", code)
    assert "TensorRT 12.0.1 is installed, this release knows 10 and 11; install one" in run.stdout


def test_a_bundle_is_as_it_was_where_no_engine_can_be_built(
    tiny_bundle: Path, libraries: dict[str, Path]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_bundle.rglob("*")}
    code = """
import sys
from pathlib import Path
from trimexport_runtime import BackendError, read_manifest
from trimexport_runtime.engine import build_engine
bundle = Path(sys.argv[1])
manifest = read_manifest(bundle)
try: build_engine(bundle, manifest.variants[0])
except BackendError as error: print(error)
"""
    assert "CUDA says" in in_generation("11", libraries, code, str(tiny_bundle))
    assert {path: path.stat().st_mtime_ns for path in tiny_bundle.rglob("*")} == before
    assert read_manifest(tiny_bundle).variants
