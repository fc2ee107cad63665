"""onnxruntime-genai, as a peer: a directory that its model builder wrote, on the CPU.

    python genai.py DIRECTORY --prompt-file FILE --labels positive,negative --threads 2 [--cache]

With `--cache` one generator keeps the prefix: it is rewound to the prefix's end before each text.
That works for a batch of one only (onnxruntime-genai 0.18: "AppendTokens can only be called once
for batch_size > 1"), so with `--cache` the texts run one after the other whatever the batch is.
Without it texts of the same length run together, with the whole prompt: the model computes the
head for the last column alone, so rows may not be padded on the right, and padding on the left
changes their logits (its GroupQueryAttention expects it on the right).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai  # type: ignore[import-not-found]
from protocol import Logits, Peer, Question, files_of, parser, question, serve, title

ROOM = 1024  # tokens of a text and the prompt's end that fit behind a cached prefix

RunRows = Callable[[list[list[int]]], list[list[float]]]


def load(arguments: argparse.Namespace) -> Peer:
    model = open_model(arguments.artefact, arguments.threads)
    tokenizer = onnxruntime_genai.Tokenizer(model)
    asked = question(arguments, lambda text, special: encode(tokenizer, text, special))
    run_rows = rewinding(model, asked) if asked.prefix else whole(model, asked.tokens)

    def run(texts: list[str], batch: int) -> Logits:
        return run_by_exact_length(asked.rows(texts), 1 if asked.prefix else batch, run_rows)

    name = title(f"onnxruntime-genai {precision(arguments.artefact)}", arguments)
    version = f"onnxruntime-genai {onnxruntime_genai.__version__}"
    return Peer(name, version, run, asked.whole, files_of(arguments.artefact))


def open_model(directory: Path, threads: int) -> Any:
    config = onnxruntime_genai.Config(str(directory))
    settings = {"session_options": {"intra_op_num_threads": threads}}
    config.overlay(json.dumps({"model": {"decoder": settings}}))
    return onnxruntime_genai.Model(config)


def precision(directory: Path) -> str:
    """The builder does not write it down; the setup script names the directory after it."""
    return directory.resolve().name


def encode(tokenizer: Any, text: str, special: bool) -> list[int]:
    """A string's ids; the token that opens a sequence is there exactly where `special` says so."""
    ids = [int(token) for token in tokenizer.encode(text)]
    first = int(tokenizer.bos_token_id)
    ids = ids[1:] if ids[:1] == [first] else ids
    return [first, *ids] if special else ids


def rewinding(model: Any, asked: Question) -> RunRows:
    """The function from one row behind the prefix to its logits."""
    prefix, tokens = asked.prefix, asked.tokens
    generator = new_generator(model, 1, len(prefix) + ROOM)
    generator.append_tokens(np.array(prefix, dtype=np.int32))

    def run_rows(rows: list[list[int]]) -> list[list[float]]:
        (row,) = rows
        generator.append_tokens(np.array(row, dtype=np.int32))
        found = last_logits(generator, 1, tokens)
        generator.rewind_to(len(prefix))
        return found

    return run_rows


def whole(model: Any, tokens: list[int]) -> RunRows:
    """The function from rows of one length, whole prompts, to their logits."""

    def run_rows(rows: list[list[int]]) -> list[list[float]]:
        generator = new_generator(model, len(rows), len(rows[0]) + 1)
        generator.append_tokens(np.array(rows, dtype=np.int32))
        return last_logits(generator, len(rows), tokens)

    return run_rows


def new_generator(model: Any, batch: int, length: int) -> Any:
    settings = onnxruntime_genai.GeneratorParams(model)
    settings.set_search_options(batch_size=batch, max_length=length)
    return onnxruntime_genai.Generator(model, settings)


def last_logits(generator: Any, rows: int, tokens: list[int]) -> list[list[float]]:
    """The label tokens' logits; the model gives [rows, 1, vocabulary]."""
    found: list[list[float]] = np.asarray(generator.get_logits())[:, -1, tokens].tolist()
    return found


def run_by_exact_length(rows: list[list[int]], batch: int, run_rows: RunRows) -> Logits:
    """Run rows in batches of one length each; the logits are in the rows' order."""
    same: defaultdict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        same[len(row)].append(index)
    found: dict[int, list[float]] = {}
    for indices in same.values():
        for start in range(0, len(indices), batch):
            part = indices[start : start + batch]
            found.update(zip(part, run_rows([rows[index] for index in part]), strict=True))
    return [found[index] for index in range(len(rows))]


if __name__ == "__main__":
    serve(parser().parse_args(), load)
