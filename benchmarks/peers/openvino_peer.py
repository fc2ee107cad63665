"""OpenVINO, as a peer, in two forms.

A whole model with its key/value cache, as Optimum Intel exports it. It is cut to the logits of the
last position, as OpenVINO GenAI cuts it:

    python openvino_peer.py DIRECTORY --prompt-file FILE --labels ... --threads 2 [--cache]

This project's own graph, read by OpenVINO; the prompt is inside:

    python openvino_peer.py BUNDLE --graph model.xml --labels ... --threads 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from protocol import (
    Logits,
    Peer,
    Question,
    encoder,
    files_of,
    graph_files,
    graph_runner,
    padded,
    parser,
    prompted,
    question,
    run_sorted,
    serve,
    title,
)


def load(arguments: argparse.Namespace) -> Peer:
    import openvino as ov  # type: ignore[import-not-found]
    from tokenizers import Tokenizer

    core = ov.Core()
    tokenizer = Tokenizer.from_file(str(arguments.artefact / "tokenizer.json"))
    tokenizer.no_padding()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": arguments.threads,
        **dict(pair.split("=", 1) for pair in arguments.set),
    }
    model = core.read_model(arguments.graph or arguments.artefact / "openvino_model.xml")
    if arguments.graph:
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        run = graph_runner(tokenizer, lambda inputs: request.infer(inputs)[0])
        ids = prompted(arguments.artefact, tokenizer)
        files = graph_files(arguments.graph, arguments.artefact)
    else:
        asked = question(arguments, encoder(tokenizer))
        keep_last_position(model)
        run = Whole(core.compile_model(model, "CPU", settings), asked).run
        ids, files = asked.whole, files_of(arguments.artefact)
    name = title(f"OpenVINO {arguments.form}", arguments)
    return Peer(name, f"openvino {ov.__version__}", run, ids, files)


def keep_last_position(model: Any) -> None:
    """Multiply only the last position with the output layer."""
    import numpy as np
    from openvino import opset13 as ops

    head = model.get_results()[0].input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        head = head.input_value(0).get_node()
    last = ops.gather(head.input_value(0), np.array([-1]), np.array(1))
    head.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


class Whole:
    """A whole model with its cache inside (the state of the request)."""

    def __init__(self, compiled: Any, asked: Question) -> None:
        self.request = compiled.create_infer_request()
        self.inputs = {name for port in compiled.inputs for name in port.get_names()}
        self.asked = asked
        self.kept: list[Any] = self.prefix_state() if asked.prefix else []

    def prefix_state(self) -> list[Any]:
        """The cache after the prefix, one row, copied."""
        import openvino as ov

        self.request.reset_state()
        self.infer([self.asked.prefix], 0)
        return [ov.Tensor(state.state.data.copy()) for state in self.request.query_state()]

    def infer(self, rows: list[list[int]], past: int) -> Any:
        """The last position's logits of rows that follow `past` cached tokens."""
        import numpy as np

        ids, mask = (np.array(value, dtype=np.int64) for value in padded(rows, 0, left=True))
        seen = np.concatenate([np.ones((len(rows), past), dtype=np.int64), mask], 1)
        values = {
            "input_ids": ids,
            "attention_mask": seen,
            "position_ids": (mask.cumsum(1) - 1).clip(min=0) + past,
            "beam_idx": np.zeros(len(rows), dtype=np.int32)
            if past
            else np.arange(len(rows), dtype=np.int32),
        }
        found = self.request.infer({name: values[name] for name in values if name in self.inputs})
        return found[0][:, -1]

    def run_rows(self, rows: list[list[int]]) -> Logits:
        self.request.reset_state()
        if self.kept:
            for state, value in zip(self.request.query_state(), self.kept, strict=True):
                state.state = value
        logits = self.infer(rows, len(self.asked.prefix))
        return logits[:, self.asked.tokens].tolist()  # type: ignore[no-any-return]

    def run(self, texts: list[str], batch: int) -> Logits:
        return run_sorted(self.asked.rows(texts), batch, self.run_rows)


if __name__ == "__main__":
    options = parser()
    options.add_argument(
        "--graph", type=Path, help="the OpenVINO or ONNX file of this project's graph"
    )
    options.add_argument("--form", required=True, help='its numbers, for the name: "int8 weights"')
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    serve(options.parse_args(), load)
