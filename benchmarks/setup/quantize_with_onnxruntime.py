"""Quantise an ONNX model with ONNX Runtime's `quantize_dynamic`.

    python benchmarks/setup/quantize_with_onnxruntime.py MODEL QUANTISED [--last-position]

`--last-position` is for a whole model as Optimum exports it, which multiplies every position with
the output layer: it is cut to the last one first, so that it is measured at its best.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic


def keep_last_position(graph: onnx.GraphProto) -> None:
    """Pick the last position before the output layer."""
    makers = {name: node for node in graph.node for name in node.output}
    head = makers["logits"]
    while head.op_type != "MatMul":
        head = makers[head.input[0]]
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "last_position"))
    pick = helper.make_node("Gather", [head.input[0], "last_position"], ["last_hidden"], axis=1)
    graph.node.insert(list(graph.node).index(head), pick)
    head.input[0] = "last_hidden"


def main() -> None:
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(source, load_external_data=False)
    if "--last-position" in sys.argv[3:]:
        keep_last_position(model.graph)
    # ONNX Runtime transposes the weights of a Gemm and does not correct their recorded shape.
    del model.graph.value_info[:]
    # Beside the source, whose weights it names.
    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as prepared:
        onnx.save(model, prepared.name)
        quantize_dynamic(
            prepared.name, output, weight_type=QuantType.QInt8, use_external_data_format=True
        )


if __name__ == "__main__":
    main()
