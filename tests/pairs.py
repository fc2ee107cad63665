"""Weights of int8 graphs, and whether their sums fit in 16 bits (see `paired_rows`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from trimexport_runtime import read_manifest


def int8_weights(graph: Path) -> dict[str, npt.NDArray[np.int8]]:
    """What a written int8 graph multiplies with: name -> codes [inputs, outputs]."""
    model = onnx.load(graph)
    known = {it.name: it for it in model.graph.initializer}
    names = [node.input[1] for node in model.graph.node if node.op_type == "MatMulInteger"]
    return {name: numpy_helper.to_array(known[name]) for name in names}


def largest_sum(codes: npt.NDArray[np.int8]) -> int:
    """The largest of what a processor without VNNI adds in 16 bits, by absolute value, for
    activations of any code from 0 to 255."""
    whole = codes.astype(np.int64)
    if len(whole) % 2:
        whole = np.concatenate([whole, np.zeros_like(whole[:1])])
    first, second = whole[::2], whole[1::2]
    above = np.maximum(first, 0) + np.maximum(second, 0)
    below = np.minimum(first, 0) + np.minimum(second, 0)
    return int(255 * max(above.max(), -below.min()))


def assert_pairs_fit(bundle: Path) -> None:
    """No sum of a bundle's int8 weights can overflow."""
    weights = int8_weights(bundle / read_manifest(bundle).variant("int8").graph)
    assert weights
    for name, codes in weights.items():
        assert largest_sum(codes) < 2**15, name
        assert np.abs(codes.astype(int)).max() > 64, f"{name} leaves half of its codes unused"
