"""Print what TensorRT's own Python bindings say of the calls that the runtime makes, as a stub.

    python typings/read_bindings.py DIRECTORY > typings/tensorrt-11/tensorrt.pyi

DIRECTORY holds the bindings' wheel, unpacked (`pip install --no-deps --target DIRECTORY
tensorrt-cu12-bindings==11.4.0.106`). They need TensorRT's libraries to be imported, and those need
a GPU to do anything; their signatures need neither. So empty libraries are compiled in their place,
whose functions give nothing back: enough for the import, and for nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Class -> its members that the runtime uses.
USED = {
    "Dims": (),
    "INetworkDefinition": (),
    "IOptimizationProfile": ("set_shape",),
    "IHostMemory": ("nbytes",),
    "ParserError": ("desc", "node", "node_name", "node_operator"),
    "IProgressMonitor": ("__init__", "phase_start", "step_complete", "phase_finish"),
    "IBuilderConfig": (
        "set_memory_pool_limit",
        "add_optimization_profile",
        "progress_monitor",
    ),
    "Builder": (
        "__init__",
        "create_network",
        "create_builder_config",
        "create_optimization_profile",
        "build_serialized_network",
    ),
    "OnnxParser": ("__init__", "parse_from_file", "num_errors", "get_error"),
    "IExecutionContext": (
        "set_optimization_profile_async",
        "set_input_shape",
        "set_tensor_address",
        "execute_async_v3",
    ),
    "ICudaEngine": ("create_execution_context",),
    "Runtime": ("__init__", "deserialize_cuda_engine"),
}
ENUMS = {
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "MemoryPoolType": ("WORKSPACE",),
}
SEVERITIES = ("INTERNAL_ERROR", "ERROR")
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_SYMBOLS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "getBuilderPluginRegistry"),
    *("createInferRuntime_INTERNAL", "createNvOnnxParser_INTERNAL", "getNvOnnxParserVersion"),
    *("createNvOnnxParserRefitter_INTERNAL", "getPluginRegistry", "initLibNvInferPlugins"),
)
# Bindings' way of naming a type -> Python's. Other types of the bindings are not named by a stub
# of these few classes.
_TYPES = (
    (r"<[\w.]+: \d+>", "..."),
    (r"nvonnxparser::IParserError", "ParserError"),
    (r"tensorrt_bindings\.tensorrt\.", ""),
    (r"typing_extensions\.Buffer|\bbuffer\b", "Buffer"),
    (r"typing\.", ""),
    (r"\btuple\b(?!\[)", "tuple[int, ...]"),
    (r"\blist\b(?!\[)", "list[int]"),
    (r"(?<=: )Dims\b", "Dims | tuple[int, ...]"),
    (r"= None", "= ..."),
)


def empty_libraries(folder: Path, major: int) -> None:
    """Compile libraries with the bindings' few symbols and nothing behind them.

    Raises:
        OSError: no C compiler.
    """
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _SYMBOLS))
    for name in _LIBRARIES:
        file = f"lib{name}.so.{major}"
        link = ["-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", str(folder / file), str(source)]
        subprocess.run([os.environ.get("CC", "cc"), *link], check=True)


def environment(directory: Path, libraries: Path) -> dict[str, str]:
    """The variables under which a new Python imports the bindings of `directory`."""
    return {
        **os.environ,
        "PYTHONPATH": str(directory),
        "LD_LIBRARY_PATH": str(libraries),
    }


def version_of(directory: Path) -> str:
    """The bindings' version."""
    text = (directory / "tensorrt_bindings" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([\d.]+)"', text, re.MULTILINE)
    assert found is not None
    return found[1]


def stub() -> Iterator[str]:
    """The stub's lines, of the bindings that can be imported here."""
    import tensorrt_bindings as bindings

    yield f'"""Of the bindings of TensorRT {bindings.__version__}, by typings/read_bindings.py."""'
    yield ""
    yield "from typing import Any, SupportsInt, overload"
    yield ""
    yield "from typing_extensions import Buffer"
    yield ""
    yield "__version__: str"
    yield ""
    yield "class ILogger:"
    yield "    class Severity:"
    for name in SEVERITIES:
        assert name in bindings.ILogger.Severity.__members__
        yield f"        {name}: ILogger.Severity"
    yield from _member(bindings.ILogger, "__init__")
    yield from _member(bindings.ILogger, "log")
    for name, members in ENUMS.items():
        yield f"class {name}:"
        yield "    def __int__(self) -> int: ..."
        for member in members:
            there = member in getattr(bindings, name).__members__
            yield f"    {member}: {name}" if there else f"    # no {member}"
    for name, members in USED.items():
        base = "(Buffer)" if name == "IHostMemory" else ""
        yield f"class {name}{base}:" + ("" if members else " ...")
        for member in members:
            yield from _member(getattr(bindings, name), member)


def _member(kind: type, name: str) -> Iterator[str]:
    """A method, with all its overloads, or a property, as its docstring gives it."""
    member = getattr(kind, name)
    if isinstance(member, property):
        text = _known(_typed((member.fget.__doc__ or "").strip().split("-> ")[-1]))
        yield f"    @property\n    def {name}(self) -> {text}: ..."
        if member.fset is not None:
            yield f"    @{name}.setter\n    def {name}(self, value: {text}) -> None: ..."
        return
    found = re.findall(rf"^(?:\d+\. )?({name}\(self.*?) *$", member.__doc__, re.MULTILINE)
    assert found, f"{kind.__name__}.{name} says nothing of its arguments"
    for signature in found:
        if len(found) > 1:
            yield "    @overload"
        text = re.sub(r"\(self: [\w.]+", "(self", signature)
        yield f"    def {_known(_typed(text))}: ..."


def _typed(text: str) -> str:
    for pattern, replacement in _TYPES:
        text = re.sub(pattern, replacement, text)
    return text


def _known(signature: str) -> str:
    """The signature with Any for classes that the stub does not have."""
    names = {*USED, *ENUMS, "ILogger", "Buffer", "SupportsInt", "Severity"}
    return re.sub(
        r"\b(I[A-Z]\w+|[A-Z][a-z]\w+)\b(?!\.)",
        lambda match: match[0] if match[0] in names else "Any",
        signature.replace("None", "\0"),
    ).replace("\0", "None")


def main() -> None:
    """Print the stub of the bindings in the directory that is named."""
    if len(sys.argv) == 1:
        print("\n".join(stub()))
        return
    directory = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        empty_libraries(Path(folder), int(version_of(directory).partition(".")[0]))
        command = [sys.executable, __file__]
        subprocess.run(command, env=environment(directory, Path(folder)), check=True)


if __name__ == "__main__":
    main()
