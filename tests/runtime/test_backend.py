from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trimexport_runtime import (
    BackendError,
    BundleError,
    Classifier,
    IntegrityError,
    Manifest,
    read_manifest,
)
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.backends.onnxruntime import OnnxRuntimeBackend

MakeBundle = Callable[..., Path]


def _load(folder: Path, threads: int | None = None) -> OnnxRuntimeBackend:
    manifest = read_manifest(folder)
    return OnnxRuntimeBackend.load(folder, manifest, manifest.variants[0], DEFAULT, threads)


def test_a_row_of_no_tokens_beside_others(bundle: Path) -> None:
    backend = _load(bundle)
    ids = np.array([[3, 4], [0, 0]], dtype=np.int64)
    mask = np.array([[1, 1], [0, 0]], dtype=np.int64)
    both = backend.run(ids, mask)
    assert both.shape == (2, 3)
    assert both.dtype == np.float32
    np.testing.assert_allclose(backend.run(ids[1:, :1], mask[1:, :1]), both[1:], atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads(bundle: Path, threads: int | None) -> None:
    assert Classifier.load(bundle, threads=threads).classify(["a"])


def test_no_threads(bundle: Path) -> None:
    with pytest.raises(BackendError, match="threads is 0; give 1 or more, or None for all cores"):
        Classifier.load(bundle, threads=0)


def test_a_variant_for_another_provider(
    make_bundle: MakeBundle, with_variants: Callable[..., Callable[[Manifest], Manifest]]
) -> None:
    folder = make_bundle(change=with_variants(engine={"providers": ("TensorrtExecutionProvider",)}))
    with pytest.raises(
        BackendError,
        match=r'"engine" needs TensorrtExecutionProvider, .* is CPUExec.*; use one of: fp32',
    ):
        Classifier.load(folder, variant="engine")


def test_no_variant_for_the_cpu(make_bundle: MakeBundle) -> None:
    def change(manifest: Manifest) -> Manifest:
        only = replace(manifest.variants[0], providers=("CUDAExecutionProvider",))
        return replace(manifest, variants=(only,))

    with pytest.raises(BackendError, match="build one that runs on the CPU"):
        Classifier.load(make_bundle(change=change))


def test_a_graph_that_the_files_do_not_list(
    make_bundle: MakeBundle, with_variants: Callable[..., Callable[[Manifest], Manifest]]
) -> None:
    folder = make_bundle(change=with_variants(int8={"graph": "onnx/none.onnx"}))
    with pytest.raises(IntegrityError, match=r"none\.onnx is missing from the bundle; copy it"):
        Classifier.load(folder, variant="int8")


def _replace_graph(folder: Path, nodes: list[Any], names: tuple[str, ...], labels: int) -> None:
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])],
        [
            numpy_helper.from_array(np.zeros((1, labels), np.float32), "zero"),
            numpy_helper.from_array(np.array([1], np.int64), "along"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        folder / "onnx" / "model.onnx",
    )


def _sums(output: str) -> list[Any]:
    return [
        helper.make_node("Add", ["input_ids", "attention_mask"], ["both"]),
        helper.make_node("Cast", ["both"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["real", "along"], ["sum"], keepdims=1),
        helper.make_node(output, ["sum", "zero"], ["logits"]),
    ]


def test_a_graph_with_other_inputs(bundle: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["tokens"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["real", "along"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "zero"], ["logits"]),
    ]
    _replace_graph(bundle, nodes, ("tokens",), 3)
    with pytest.raises(
        BundleError, match="takes tokens and gives logits; a trimexport graph takes input_ids,"
    ):
        _load(bundle)


def test_a_graph_with_other_labels(bundle: Path) -> None:
    _replace_graph(bundle, _sums("Add"), ("input_ids", "attention_mask"), 2)
    ones = np.ones((4, 5), dtype=np.int64)
    with pytest.raises(BackendError, match=r"shape \[4, 2\], the manifest needs \[4, 3\]"):
        _load(bundle).run(ones, ones)


def test_logits_that_are_no_numbers(bundle: Path) -> None:
    _replace_graph(bundle, _sums("Div"), ("input_ids", "attention_mask"), 3)
    ones = np.ones((1, 1), dtype=np.int64)
    assert not np.isfinite(_load(bundle).run(ones, ones)).any()


def test_a_batch_that_fails(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend = _load(bundle)
    ids = np.full((2, 3), 10**6, dtype=np.int64)  # beyond the embedding
    with pytest.raises(BackendError, match=r"failed on a batch of 2 x 3 tokens .*info --check"):
        backend.run(ids, np.ones_like(ids))
    assert capfd.readouterr().err == ""
