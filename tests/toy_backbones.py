"""Small real backbones and task packs: a tokenizer of characters, and a graph with further inputs.

The graph is the masked mean of its tokens' embeddings, plus the mean of a task's `prefix`, times
the task's `head`, plus its `bias`.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers

from trimexport_runtime.backbone_manifest import (
    BACKBONE,
    BackboneManifest,
    backbone_json,
    backbone_sha256,
)
from trimexport_runtime.bundle import (
    BundleFile,
    Field,
    Label,
    Manifest,
    Prompt,
    Source,
    TextLimit,
    Variant,
)
from trimexport_runtime.integrity import sha256_of

WIDTH = 16
SOURCE = Source("toy", "abc123", None, "ToyForCausalLM", "0" * 64, None)
Arrays = Mapping[str, npt.NDArray[Any]]


def _tokenizer() -> Tokenizer:
    pieces = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def _graph(path: Path, seed: int) -> None:
    weights: dict[str, npt.NDArray[Any]] = {
        "embedding": np.random.default_rng(seed).normal(size=(259, WIDTH)).astype(np.float32),
        "one": np.array(1, np.float32),
        "last": np.array([2], np.int64),
        "along": np.array([1], np.int64),
        "rows_of_it": np.array([0], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["rows"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["column"]),
        node("Mul", ["rows", "column"], ["kept"]),
        node("ReduceSum", ["kept", "along"], ["sum"], keepdims=0),
        node("ReduceSum", ["mask", "along"], ["count"], keepdims=1),
        node("Max", ["count", "one"], ["divisor"]),
        node("Div", ["sum", "divisor"], ["mean"]),
        node("ReduceMean", ["prefix", "rows_of_it"], ["before"], keepdims=1),
        node("Add", ["mean", "before"], ["state"]),
        node("MatMul", ["state", "head"], ["scores"]),
        node("Add", ["scores", "bias"], ["logits"]),
    ]
    floats, batch = TensorProto.FLOAT, ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, batch),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, batch),
        helper.make_tensor_value_info("prefix", floats, ["prefix", WIDTH]),
        helper.make_tensor_value_info("head", floats, [WIDTH, "outputs"]),
        helper.make_tensor_value_info("bias", floats, ["outputs"]),
    ]
    output = helper.make_tensor_value_info("logits", floats, ["batch", "outputs"])
    values = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "toy", inputs, [output], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def make_backbone(folder: Path, seed: int = 7) -> Path:
    """A backbone in a new directory; of another `seed` it is another."""
    folder.mkdir(parents=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    _graph(folder / "onnx" / "model.onnx", seed)
    names = ("tokenizer.json", "onnx/model.onnx")
    files = tuple(
        BundleFile(name, (folder / name).stat().st_size, sha256_of(folder / name)) for name in names
    )
    manifest = BackboneManifest(
        1, backbone_sha256(files), SOURCE, (_variant(folder),), files, limit=600, pad_token_id=0
    )
    (folder / BACKBONE).write_text(backbone_json(manifest), encoding="utf-8")
    return folder


def _variant(folder: Path) -> Variant:
    graph = "onnx/model.onnx"
    size = (folder / graph).stat().st_size
    return Variant("fp32", graph, (graph,), "fp32", 18, ("CPUExecutionProvider",), size)


def task_arrays(seed: int, labels: int = 2, prefix: int = 5) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a task, drawn with a seed; the prefix in float16."""
    draw = np.random.default_rng(seed)
    return {
        "prefix": draw.normal(size=(prefix, WIDTH)).astype(np.float16),
        "head": (draw.normal(size=(WIDTH, labels)) * 3).astype(np.float32),
        "bias": draw.normal(size=labels).astype(np.float32),
    }


def write_pack(
    path: Path,
    backbone: Path,
    arrays: Arrays,
    labels: Sequence[str] = ("no", "yes"),
    fields: tuple[Field, ...] = (Field("text", lead=" "),),
) -> Path:
    """Write the pack of a task with these labels."""
    raw = json.loads((backbone / BACKBONE).read_text(encoding="utf-8"))
    template = "Text: " + " ".join(f"{{{it.name}}}" for it in fields) + "\nAnswer:"
    manifest = Manifest(
        format_version=2,
        labels=tuple(Label(name, (name,), (n,), (name,)) for n, name in enumerate(labels)),
        prompt=Prompt(template, (2, 3), (4,), "", fields=fields),
        text_limit=TextLimit(500, "end"),
        pad_token_id=0,
        source=SOURCE,
        variants=(_variant(backbone),),
        files=(),
    )
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    write_members(path, head(raw["sha256"], asdict(manifest), members), members)
    return path


def head(backbone: str, manifest: dict[str, Any], members: Mapping[str, bytes]) -> dict[str, Any]:
    """The value of `pack.json`."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    return {"format_version": 1, "backbone": backbone, "sha256": hashes, "manifest": manifest}


def write_members(path: Path, head: Any, members: Mapping[str, bytes]) -> None:
    """Write a pack of `pack.json` and its members, whole at once."""
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w") as archive:
        archive.writestr("pack.json", json.dumps(head, allow_nan=False))
        for name, content in members.items():
            archive.writestr(name, content)
    partial.replace(path)


def read_members(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`pack.json` of a pack, and its members."""
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(found.pop("pack.json")), found


def npy(array: npt.NDArray[Any]) -> bytes:
    """An array as the bytes of an `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def expected(backbone: Path, arrays: Arrays, text: str) -> npt.NDArray[np.float64]:
    """The logits of a text that is led by a space, by NumPy."""
    model = onnx.load(backbone / "onnx" / "model.onnx")
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    ids = Tokenizer.from_file(str(backbone / "tokenizer.json")).encode(f" {text}").ids
    state = weights["embedding"].astype(np.float64)[ids].mean(axis=0)
    state = state + arrays["prefix"].astype(np.float64).mean(axis=0)
    result: npt.NDArray[np.float64] = state @ arrays["head"] + arrays["bias"]
    return result
