r"""llama.cpp through llama-cpp-python's plain bindings, as a peer: a GGUF file of any type.

    python llamacpp.py MODEL.gguf --prompt-file FILE --labels positive,negative --threads 2 \
        [--cache]

The texts of a batch are sequences of one `llama_decode`, and only the last token of each asks for
logits. With `--cache` the prefix is evaluated once, as sequence 0, and every text's sequence
shares its cells, as llama.cpp's server does for prompts that begin alike. The head is never
trimmed: llama.cpp computes all of the vocabulary's logits for each text.
"""

from __future__ import annotations

import argparse
import ctypes
from dataclasses import dataclass
from typing import Any

import llama_cpp  # type: ignore[import-not-found]
from protocol import Logits, Peer, files_of, parser, question, run_sorted, serve, title

SEQUENCES = 64  # the most texts that run together; llama.cpp allows 256
CONTEXT = 8192  # tokens in the cache: the prefix and all texts of a batch
STEP = 512  # tokens that pass through the layers together; llama.cpp's default
PREFIX = 0  # the sequence that holds the prefix; texts use those after it


@dataclass(frozen=True)
class Engine:
    """A model with its context, and the batch that is filled again for each call."""

    model: Any
    vocabulary: Any
    context: Any
    memory: Any
    batch: Any


def load(arguments: argparse.Namespace) -> Peer:
    engine = open_engine(str(arguments.artefact), arguments.threads)
    asked = question(arguments, lambda text, special: encode(engine, text, special))
    prefix = asked.prefix
    if prefix:
        decode(engine, [prefix], 0, first=PREFIX)

    def run(texts: list[str], batch: int) -> Logits:
        return run_sorted(
            asked.rows(texts),
            min(batch, SEQUENCES),
            lambda part: run_rows(engine, part, len(prefix), asked.tokens),
        )

    version = f"llama.cpp {llama_cpp.llama_version().decode()}"
    return Peer(
        title(f"llama.cpp {_type(engine)}", arguments),
        f"{version}, llama-cpp-python {llama_cpp.__version__}",
        run,
        asked.whole,
        files_of(arguments.artefact),
    )


def open_engine(file: str, threads: int) -> Engine:
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        file.encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise SystemExit(f"llama.cpp cannot load {file}; its reason is above")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = CONTEXT
    settings.n_ubatch = STEP
    settings.n_seq_max = SEQUENCES + 1
    settings.n_outputs_max = SEQUENCES + 1  # otherwise a whole step's logits are reserved
    settings.n_threads = settings.n_threads_batch = threads
    settings.kv_unified = True  # sequences share the cells of the prefix
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit(f"llama.cpp cannot make a context for {file}; its reason is above")
    return Engine(
        model,
        llama_cpp.llama_model_get_vocab(model),
        context,
        llama_cpp.llama_get_memory(context),
        llama_cpp.llama_batch_init(CONTEXT, 0, 1),
    )


def encode(engine: Engine, text: str, special: bool) -> list[int]:
    """A string's ids, with the token that opens a sequence where `special` says so."""
    data = text.encode()
    room = len(data) + 2
    ids = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(engine.vocabulary, data, len(data), ids, room, special, False)
    if count < 0:
        raise SystemExit(f"llama.cpp needs {-count} tokens for {len(data)} bytes of text")
    return list(ids[:count])


def run_rows(engine: Engine, rows: list[list[int]], prefix: int, tokens: list[int]) -> Logits:
    """The label tokens' logits at the end of each row; a batch beyond the cache runs in halves."""
    if len(rows) > 1 and prefix + sum(map(len, rows)) > CONTEXT:
        half = len(rows) // 2
        parts = (rows[:half], rows[half:])
        return [row for part in parts for row in run_rows(engine, part, prefix, tokens)]
    for sequence in range(PREFIX + 1, PREFIX + 1 + len(rows)):
        llama_cpp.llama_memory_seq_cp(engine.memory, PREFIX, sequence, 0, prefix)
    last = decode(engine, rows, prefix, first=PREFIX + 1)
    pointers = [llama_cpp.llama_get_logits_ith(engine.context, index) for index in last]
    found = [[float(logits[token]) for token in tokens] for logits in pointers]
    for sequence in range(PREFIX + 1, PREFIX + 1 + len(rows)):
        llama_cpp.llama_memory_seq_rm(engine.memory, sequence, -1, -1)
    return found


def decode(engine: Engine, rows: list[list[int]], start: int, first: int) -> list[int]:
    """Run rows of token ids from the position `start` on, each in a sequence of its own; returns
    where each row's last token is in the batch."""
    batch, index, last = engine.batch, 0, []
    for sequence, row in enumerate(rows, start=first):
        for position, token in enumerate(row, start=start):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = False
            index += 1
        batch.logits[index - 1] = True
        last.append(index - 1)
    batch.n_tokens = index
    code = llama_cpp.llama_decode(engine.context, batch)
    if code:
        raise SystemExit(f"llama_decode returned {code} for {index} tokens; its reason is above")
    return last


def _type(engine: Engine) -> str:
    """The type of the file's weights, which ends llama.cpp's description: "gemma 2B Q8_0"."""
    room = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(engine.model, room, len(room))
    return room.value.decode().split()[-1]


if __name__ == "__main__":
    serve(parser().parse_args(), load)
