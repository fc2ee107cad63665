"""ONNX Runtime with `quantize_dynamic`, as a peer, in two forms.

A whole model with its key/value cache, as Optimum exports it, quantised:

    python quantize_dynamic.py DIRECTORY --prompt-file FILE --labels ... --threads 2 [--cache]

This project's own graph, quantised the same way; the prompt is inside:

    python quantize_dynamic.py BUNDLE --graph model.onnx --labels ... --threads 2
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

PAST, PRESENT = "past_key_values", "present"


def load(arguments: argparse.Namespace) -> Peer:
    import onnxruntime as ort
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(arguments.artefact / "tokenizer.json"))
    tokenizer.no_padding()
    options = ort.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    file = arguments.graph or arguments.artefact / "model.onnx"
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    if arguments.graph:
        run = graph_runner(tokenizer, lambda inputs: session.run(["logits"], inputs)[0])
        ids = prompted(arguments.artefact, tokenizer)
        files = graph_files(arguments.graph, arguments.artefact)
    else:
        asked = question(arguments, encoder(tokenizer))
        run = Whole(session, asked).run
        ids, files = asked.whole, files_of(arguments.artefact)
    name = title(f"ONNX Runtime {arguments.form}", arguments)
    return Peer(name, f"onnxruntime {ort.__version__}", run, ids, files)


class Whole:
    """A whole model whose cache goes in as inputs and comes out as outputs."""

    def __init__(self, session: Any, asked: Question) -> None:
        import numpy as np

        self.session = session
        self.asked = asked
        shapes = {item.name: item.shape for item in session.get_inputs()}
        self.inputs = set(shapes)
        # The cache's inputs are [batch, heads, past, head].
        self.kept = {
            name: np.zeros((1, shape[1], 0, shape[3]), dtype=np.float32)
            for name, shape in shapes.items()
            if name.startswith(PAST)
        }
        if asked.prefix:
            self.kept = self.prefix_cache()

    def prefix_cache(self) -> dict[str, Any]:
        """The keys and values of the prefix, one row, by the names of the inputs."""
        names = [name.replace(PAST, PRESENT) for name in self.kept]
        return dict(zip(self.kept, self.infer([self.asked.prefix], 0, names), strict=True))

    def infer(self, rows: list[list[int]], past: int, outputs: list[str]) -> list[Any]:
        """The named outputs for rows that follow `past` cached tokens."""
        import numpy as np

        ids, mask = (np.array(value, dtype=np.int64) for value in padded(rows, 0, left=True))
        values = {
            "input_ids": ids,
            "attention_mask": np.concatenate([np.ones((len(rows), past), dtype=np.int64), mask], 1),
            "position_ids": (mask.cumsum(1) - 1).clip(min=0) + past,
            **{
                name: np.ascontiguousarray(np.broadcast_to(kept, (len(rows), *kept.shape[1:])))
                for name, kept in self.kept.items()
            },
        }
        feed = {name: value for name, value in values.items() if name in self.inputs}
        return self.session.run(outputs, feed)  # type: ignore[no-any-return]

    def run_rows(self, rows: list[list[int]]) -> Logits:
        logits = self.infer(rows, len(self.asked.prefix), ["logits"])[0]
        return logits[:, -1, self.asked.tokens].tolist()  # type: ignore[no-any-return]

    def run(self, texts: list[str], batch: int) -> Logits:
        return run_sorted(self.asked.rows(texts), batch, self.run_rows)


if __name__ == "__main__":
    options = parser()
    options.add_argument(
        "--graph", type=Path, help="the quantised ONNX file of this project's graph"
    )
    options.add_argument("--form", default="quantize_dynamic", help="for the name")
    serve(options.parse_args(), load)
