"""Quantise a bundle's fp32 graph with NNCF, for the OpenVINO peers that run this project's graph.

    python benchmarks/setup/quantize_with_openvino.py BUNDLE TEXTS DIRECTORY

writes DIRECTORY/weights.xml (int8 weights, float activations) and DIRECTORY/static.xml (int8
weights and static int8 activations, smoothed, calibrated on TEXTS, a file of JSON lines).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nncf  # type: ignore[import-not-found]
import numpy as np
import openvino as ov  # type: ignore[import-not-found]
from tokenizers import Tokenizer

CALIBRATION_TEXTS = 128


def fp32_graph(bundle: Path) -> Path:
    """The bundle's fp32 graph."""
    manifest = json.loads((bundle / "trimexport.json").read_text(encoding="utf-8"))
    for variant in manifest["variants"]:
        if variant["precision"] == "fp32":
            return bundle / str(variant["graph"])
    raise SystemExit(f"{bundle} has no fp32 variant; build one with --precision fp32")


def samples(bundle: Path, texts: Path) -> list[dict[str, Any]]:
    """The graph's inputs for the first texts, one at a time."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    lines = texts.read_text(encoding="utf-8").splitlines()[:CALIBRATION_TEXTS]
    rows = [tokenizer.encode(json.loads(line)["text"], add_special_tokens=False) for line in lines]
    ids = [np.array([row.ids], dtype=np.int64) for row in rows]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids]


def prefix_products(model: ov.Model) -> list[str]:
    """The products with the prompt's keys and values: constants of four dimensions, which OpenVINO
    cannot run as compressed weights."""
    return [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "MatMul"
        and any(_is_prefix(source.get_node()) for source in node.input_values())
    ]


def _is_prefix(node: ov.Node) -> bool:
    """Whether a constant of four dimensions is behind this, with nothing but its layout changed."""
    while node.get_type_name() in ("Transpose", "Unsqueeze", "Reshape", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and len(node.get_output_shape(0)) >= 3


def main() -> None:
    bundle, texts, output = (Path(value) for value in sys.argv[1:4])
    output.mkdir(parents=True, exist_ok=True)
    graph = fp32_graph(bundle)
    model = ov.Core().read_model(graph)
    weights = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT8_ASYM,
        ignored_scope=nncf.IgnoredScope(names=prefix_products(model)),
    )
    ov.save_model(weights, output / "weights.xml", compress_to_fp16=False)
    del model, weights
    static = nncf.quantize(
        ov.Core().read_model(graph),
        nncf.Dataset(samples(bundle, texts)),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=CALIBRATION_TEXTS,
    )
    ov.save_model(static, output / "static.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
