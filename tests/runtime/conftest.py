"""Small real bundles: a tokenizer trained here and a graph with the signature that bundles have.

The graph is the masked mean of its tokens' embeddings, times a matrix, plus a bias, with its
weights in external data. Its logits can be computed by hand, which `expected_logits` does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from trimexport_runtime import Classifier, Manifest
from trimexport_runtime.bundle import (
    MANIFEST,
    BundleFile,
    Field,
    Label,
    Parity,
    Prompt,
    Source,
    TextLimit,
    Variant,
    to_json,
)
from trimexport_runtime.integrity import sha256_of

LABELS = ("negative", "positive", "mixed")
SENTENCES = (
    "a gorgeous, witty, seductive movie",
    "the plot is thin and the jokes are old",
    "one of the best films of the year, with a cast that shines",
    "it never quite comes together",
)
MakeBundle = Callable[..., Path]


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces and merges of a BPE with byte fallback, trained on the sentences above."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trained.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=120, show_progress=False, special_tokens=[])
    )
    model = json.loads(trained.to_str())["model"]
    first = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = first + [piece for piece, _ in sorted(model["vocab"].items(), key=lambda it: it[1])]
    return {piece: index for index, piece in enumerate(pieces)}, [
        (left, right) for left, right in model["merges"]
    ]


def _tokenizer() -> Tokenizer:
    vocab, merges = _vocabulary()
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def _graph(path: Path, rows: int, labels: int) -> None:
    """Write the graph, its weights in `<name>_data` beside it."""
    draw = np.random.default_rng(7)
    weights: dict[str, npt.NDArray[Any]] = {
        "embedding": draw.normal(size=(rows, 16)).astype(np.float32),
        "head": draw.normal(size=(16, labels)).astype(np.float32) * 2,
        "bias": draw.normal(size=labels).astype(np.float32),
        "one": np.array(1, np.float32),
        "last": np.array([2], np.int64),
        "along": np.array([1], np.int64),
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
        node("MatMul", ["mean", "head"], ["scores"]),
        node("Add", ["scores", "bias"], ["logits"]),
    ]
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model, path, save_as_external_data=True, location=path.name + "_data", size_threshold=256
    )


def _manifest(folder: Path, tokens: int, truncate: str, prompt: bool) -> Manifest:
    paths = ["tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data"]
    files = tuple(
        BundleFile(path, (folder / path).stat().st_size, sha256_of(folder / path)) for path in paths
    )
    return Manifest(
        format_version=1,
        labels=tuple(
            Label(name, (f"▁{name}",), (n,), (f"▁{name}",)) for n, name in enumerate(LABELS)
        ),
        prompt=Prompt(
            "Review: {text}\nSentiment:" if prompt else "{text}",
            (2, 5, 6) if prompt else (),
            (7, 8) if prompt else (),
            " " if prompt else "",
        ),
        text_limit=TextLimit(tokens, truncate),
        pad_token_id=0,
        source=Source("tiny", "abc123", None, "TinyForCausalLM", "0" * 64, "Terms apply."),
        variants=(
            Variant(
                name="fp32",
                graph="onnx/model.onnx",
                files=("onnx/model.onnx", "onnx/model.onnx_data"),
                precision="fp32",
                opset=18,
                providers=("CPUExecutionProvider",),
                bytes=sum(item.bytes for item in files[1:]),
                parity=Parity(64, 1e-6, 1e-7, 1e-7, 1.0, 1e-3),
            ),
        ),
        files=files,
        label_mass=0.97,
        tokenisation_gap=0.0,
        tool_versions={"trimexport": "0.1.0"},
    )


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Make a bundle: `make_bundle(tokens=512, truncate="end", prompt=True, change=...)`.

    `change` takes the manifest and returns the one to write. With fewer `rows` than the tokenizer
    has tokens the graph fails on texts with later ones.
    """

    def make(
        name: str = "bundle",
        *,
        tokens: int = 512,
        truncate: str = "end",
        prompt: bool = True,
        rows: int | None = None,
        change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        tokenizer = _tokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
        known = tokenizer.get_vocab_size() if rows is None else rows
        _graph(folder / "onnx" / "model.onnx", known, len(LABELS))
        manifest = change(_manifest(folder, tokens, truncate, prompt))
        (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    """A bundle with a prompt and a limit of 512 tokens."""
    return make_bundle()


def with_fields(manifest: Manifest) -> Manifest:
    """A change for `make_bundle`: the prompt takes an instruction, which has a default, a query and
    a document, which is cut."""
    fields = (
        Field("instruction", default="is it so"),
        Field("query", before=(9, 10)),
        Field("document", before=(11,), lead=" "),
    )
    template = "Do {instruction=is it so}: {query}\n {document}\nSentiment:"
    prompt = replace(manifest.prompt, template=template, fields=fields)
    return replace(manifest, format_version=2, prompt=prompt)


@pytest.fixture
def pairs(make_bundle: MakeBundle) -> Path:
    """A bundle whose prompt takes a query and a document, and has a default instruction."""
    return make_bundle("pairs", tokens=64, change=with_fields)


@pytest.fixture
def classifier(bundle: Path) -> Classifier:
    """That bundle, loaded."""
    return Classifier.load(bundle, threads=1)


@pytest.fixture
def spoil() -> Callable[[Path, str], None]:
    """Give a character's token NaN in a bundle's embedding, which lies at the data's beginning."""

    def change(folder: Path, character: str) -> None:
        token = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(character).ids[0]
        with (folder / "onnx" / "model.onnx_data").open("r+b") as stream:
            stream.seek(token * 16 * 4)
            stream.write(np.float32(np.nan).tobytes())

    return change


@pytest.fixture
def edit_manifest() -> Callable[[Path, Callable[[dict[str, Any]], None]], None]:
    """Change a bundle's manifest as raw JSON."""

    def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        change(raw)
        (folder / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")

    return edit


@pytest.fixture
def expected_logits() -> Callable[[Path, str], npt.NDArray[np.float64]]:
    """What the graph of a bundle answers to one text, computed from its weights by NumPy."""

    def compute(folder: Path, text: str) -> npt.NDArray[np.float64]:
        model = onnx.load(folder / "onnx" / "model.onnx")
        weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        rows = weights["embedding"].astype(np.float64)[ids]
        mean = rows.sum(axis=0) / max(1, len(ids))
        result: npt.NDArray[np.float64] = mean @ weights["head"] + weights["bias"]
        return result

    return compute


@pytest.fixture
def with_variants() -> Callable[..., Callable[[Manifest], Manifest]]:
    """A change for `make_bundle` that gives copies of the variant other fields, by name."""

    def variants(**fields: dict[str, Any]) -> Callable[[Manifest], Manifest]:
        def change(manifest: Manifest) -> Manifest:
            more = [replace(manifest.variants[0], name=name, **it) for name, it in fields.items()]
            return replace(manifest, variants=(*manifest.variants, *more))

        return change

    return variants


@pytest.fixture
def counted() -> Callable[[list[str]], tuple[Iterator[str], list[str]]]:
    """An iterator over texts and the list of those it has given so far."""

    def make(texts: list[str]) -> tuple[Iterator[str], list[str]]:
        given: list[str] = []

        def run() -> Iterator[str]:
            for text in texts:
                given.append(text)
                yield text

        return run(), given

    return make
