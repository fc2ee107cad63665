"""How much of a call are matrix products, and how near are they to bare ones?

    python benchmarks/products.py build/gemma-2b-sst2 --batch 16 --tokens 48

profiles the bundle's int8 graph in ONNX Runtime, then times a graph of one `MatMulIntegerToFloat`
for each shape that it multiplies: uint8 activations with int8 weights and nothing around them.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from trimexport_runtime import read_manifest
from trimexport_runtime.backends.onnxruntime import session_options
from trimexport_runtime.tokenize import CONFIG

PRODUCT = "MatMulIntegerToFloat"
SEED = 0
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Profile:
    """A call by operators and by the shapes (rows, inputs, outputs) of its products, ms."""

    operators: dict[str, float]
    products: dict[Shape, float]
    counts: dict[Shape, int]


def drawn_ids(bundle: Path, batch: int, tokens: int) -> npt.NDArray[np.int64]:
    """Any of the model's tokens, int64 [batch, tokens]."""
    known = json.loads((bundle / CONFIG).read_text(encoding="utf-8"))["vocab_size"]
    return np.random.default_rng(SEED).integers(known, size=(batch, tokens))


def profile(graph: Path, ids: npt.NDArray[np.int64], threads: int, calls: int) -> Profile:
    """Medians over `calls`, after one that does not count."""
    options = session_options(threads)
    with tempfile.TemporaryDirectory() as directory:
        options.enable_profiling = True
        options.profile_file_prefix = f"{directory}/profile"
        session = ort.InferenceSession(str(graph), options)
        for _ in range(calls + 1):
            session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    starts = [event["ts"] for event in events if event["name"] == "model_run"]
    nodes = [it for it in events if it["name"].endswith("_kernel_time") and it["ts"] >= starts[1]]
    return _summed(nodes, calls)


def _summed(nodes: list[dict[str, Any]], calls: int) -> Profile:
    operators: defaultdict[str, float] = defaultdict(float)
    products: defaultdict[Shape, float] = defaultdict(float)
    counts: Counter[Shape] = Counter()
    for event in nodes:
        milliseconds = event["dur"] / 1000 / calls
        name = event["args"]["op_name"]
        operators[name] += milliseconds
        if name == PRODUCT:
            shape = _shape(event["args"])
            products[shape] += milliseconds
            counts[shape] += 1
    return Profile(dict(operators), dict(products), {it: n // calls for it, n in counts.items()})


def _shape(arguments: dict[str, Any]) -> Shape:
    """Weights are constants, of which a profile says no shape; the result has their columns."""
    source = next(iter(arguments["input_type_shape"][0].values()))
    result = next(iter(arguments["output_type_shape"][0].values()))
    return int(np.prod(source[:-1])), source[-1], result[-1]


def bare(shape: Shape, threads: int, calls: int) -> float:
    """The median time of one product alone, ms."""
    rows, inputs, outputs = shape
    random = np.random.default_rng(SEED)
    weights = random.integers(-127, 128, (inputs, outputs), dtype=np.int8)
    constants: dict[str, npt.NDArray[Any]] = {
        "weight": weights,
        "one": np.array(1, dtype=np.float32),
        "scale": np.full(outputs, 1e-3, dtype=np.float32),
        "zero": np.array(128, dtype=np.uint8),
    }
    graph = helper.make_graph(
        [
            helper.make_node(
                PRODUCT,
                ["x", "weight", "one", "scale", "zero"],
                ["y"],
                domain="com.microsoft",
            )
        ],
        "bare",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=10)
    session = ort.InferenceSession(
        onnx.ModelProto.SerializeToString(model), session_options(threads)
    )
    given = {"x": random.integers(0, 256, (rows, inputs)).astype(np.uint8)}
    session.run(None, given)
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        session.run(None, given)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--batch", default=16, show_default=True)
@click.option("--tokens", default=48, show_default=True, help="Of each text.")
@click.option("--threads", default=2, show_default=True)
@click.option("--calls", default=5, show_default=True)
def main(bundle: Path, batch: int, tokens: int, threads: int, calls: int) -> None:
    """Profile the int8 variant of BUNDLE, and its products alone."""
    graph = bundle / read_manifest(bundle).variant("int8").graph
    found = profile(graph, drawn_ids(bundle, batch, tokens), threads, calls)
    whole = sum(found.operators.values())
    for name, milliseconds in sorted(found.operators.items(), key=lambda it: -it[1])[:8]:
        click.echo(f"{name:24}{milliseconds:10.1f} ms {milliseconds / whole:7.1%}")
    alone = 0.0
    for shape, milliseconds in found.products.items():
        each = bare(shape, threads, calls) * found.counts[shape]
        alone += each
        click.echo(
            f"{found.counts[shape]:3} x {shape}: {milliseconds:9.1f} ms, alone {each:9.1f} ms "
            f"({milliseconds / each:.2f})"
        )
    inside = sum(found.products.values())
    click.echo(f"products: {inside / whole:.1%} of a call, {inside / alone:.2f} times bare ones")


if __name__ == "__main__":
    main()
