"""How the comparison talks to a peer: a process that loads once and then answers requests.

    python benchmarks/peers/PEER.py ARTEFACT --prompt-file FILE --labels positive,negative
        --threads 2 [--cache] [the peer's own options]

The peer loads and prints one line, then answers each line of its standard input with one line:

    <- {"ready": true, "peer": "PyTorch bf16", "version": "...", "load_seconds": 3.2,
        "files_bytes": 560000000}
    -> {"texts": ["...", ...], "batch": 16}
    <- {"seconds": 1.8, "labels": [...], "logits": [[...], ...], "peak_rss_bytes": 5100000000,
        "gpu_bytes": null}
    -> {"texts": ["...", ...], "ids": true}
    <- {"ids": [[2, 9367, ...], ...]}

`batch` is the most texts that run together; 1 is one after the other. `seconds` is from texts to
logits, tokenisation included. `ids` are what the model reads of each text, the prompt included,
whether it stands in the graph, in a cache or in the row. Each peer runs in its own environment, so
this file needs nothing but the standard library. Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

STARTED = time.perf_counter()
TEXT = "{text}"

Logits = Sequence[Sequence[float]]
Ids = list[list[int]]


@dataclass(frozen=True)
class Peer:
    """A peer, loaded: what it calls itself, and the function from texts to their logits.

    `run` takes texts and the most that run together; a row of logits has one for each label. `ids`
    takes texts to the ids of their whole prompts. `files` are those that it was loaded from.
    """

    name: str
    version: str
    run: Callable[[list[str], int], Logits]
    ids: Callable[[list[str]], Ids]
    files: Sequence[Path]


@dataclass(frozen=True)
class Prompt:
    """What stands before and after the text."""

    prefix: str
    suffix: str

    def full(self, text: str) -> str:
        return self.prefix + text + self.suffix

    @property
    def cached(self) -> str:
        """The part that is the same for every text. Spaces before the text are left out: most
        tokenizers join them to the word that follows."""
        return self.prefix.rstrip(" ")


@dataclass(frozen=True)
class Question:
    """What a peer that has the whole model asks it.

    `tokens` stand for the labels. `prefix` are the ids whose keys and values are kept from text to
    text; none without `--cache`. `encode` gives a string's ids, with or without the tokens that
    open a sequence.
    """

    prompt: Prompt
    tokens: list[int]
    prefix: list[int]
    encode: Callable[[str, bool], list[int]]

    def whole(self, texts: list[str]) -> Ids:
        """The ids of each text in its prompt."""
        return [self.encode(self.prompt.full(text), True) for text in texts]

    def rows(self, texts: list[str]) -> Ids:
        """What the model reads of each text, behind the kept prefix."""
        return [without_prefix(ids, self.prefix) for ids in self.whole(texts)]


def question(arguments: argparse.Namespace, encode: Callable[[str, bool], list[int]]) -> Question:
    """The question that a peer's arguments ask."""
    prompt = read_prompt(arguments.prompt_file)
    tokens = label_ids(lambda word: encode(word, False), arguments.labels, prompt)
    return Question(prompt, tokens, encode(prompt.cached, True) if arguments.cache else [], encode)


def encoder(tokenizer: Any) -> Callable[[str, bool], list[int]]:
    """How a Tokenizer of `tokenizers` encodes."""
    return lambda text, special: list(tokenizer.encode(text, add_special_tokens=special).ids)


def title(engine: str, arguments: argparse.Namespace) -> str:
    """What a peer calls itself."""
    own = " on our graph" if getattr(arguments, "graph", None) else ""
    return engine + own + (" with prefix cache" if arguments.cache else "")


def parser() -> argparse.ArgumentParser:
    """A parser of the arguments that every peer takes."""
    found = argparse.ArgumentParser()
    found.add_argument("artefact", type=Path)
    found.add_argument("--prompt-file", type=Path, help="a template with one {text}")
    found.add_argument("--labels", required=True, help="separated by commas")
    found.add_argument("--threads", type=int, required=True)
    found.add_argument("--cache", action="store_true", help="keep the prefix's keys and values")
    return found


def read_prompt(file: Path | None) -> Prompt:
    """The template of a prompt file, taken as it is but for a line break at its very end."""
    if file is None:
        raise SystemExit("this peer needs a prompt: name a template with --prompt-file")
    prefix, found, suffix = file.read_text(encoding="utf-8").removesuffix("\n").partition(TEXT)
    if not found or TEXT in suffix:
        raise SystemExit(f"{file} must have exactly one {TEXT}")
    return Prompt(prefix, suffix)


def label_ids(encode: Callable[[str], list[int]], labels: str, prompt: Prompt) -> list[int]:
    """The token that stands for each label: the first of its word, written after the prompt.

    `encode` gives a string's ids without the tokens that open a sequence.
    """
    end = prompt.suffix or prompt.prefix
    space = "" if end != end.rstrip() else " "
    ids = [encode(space + label)[0] for label in labels.split(",")]
    if len(set(ids)) != len(ids):
        raise SystemExit(f"two of the labels {labels} begin with the same token: {ids}")
    return ids


def without_prefix(ids: list[int], prefix: list[int]) -> list[int]:
    """The ids that follow a cached prefix."""
    if ids[: len(prefix)] != prefix:
        raise SystemExit(
            "a text changes the tokens of the prompt before it, so they cannot be cached; "
            "end the prompt's first part with a line break or a colon"
        )
    return ids[len(prefix) :]


def by_length(rows: Sequence[list[int]], batch: int) -> Iterator[list[int]]:
    """Indices of rows in batches of at most `batch`, rows of similar length together."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def run_sorted(
    rows: Sequence[list[int]], batch: int, run: Callable[[list[list[int]]], Logits]
) -> Logits:
    """Run rows of token ids in batches of similar length; the logits are in the rows' order."""
    found: dict[int, Sequence[float]] = {}
    for indices in by_length(rows, batch):
        found.update(zip(indices, run([rows[index] for index in indices]), strict=True))
    return [found[index] for index in range(len(rows))]


def padded(
    rows: Sequence[list[int]], pad: int, left: bool = False
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids and attention mask, padded to the longest row."""
    width = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        fill, blank = [pad] * (width - len(row)), [0] * (width - len(row))
        ones = [1] * len(row)
        ids.append(fill + row if left else row + fill)
        mask.append(blank + ones if left else ones + blank)
    return ids, mask


def graph_runner(
    tokenizer: Any, infer: Callable[[dict[str, Any]], Any]
) -> Callable[[list[str], int], Logits]:
    """The function from texts to logits of this project's graph, which has the prompt inside.
    `infer` takes the graph's inputs to its logits."""
    import numpy as np

    def run_rows(rows: list[list[int]]) -> Logits:
        ids, mask = (np.array(value, dtype=np.int64) for value in padded(rows, 0))
        return infer({"input_ids": ids, "attention_mask": mask}).tolist()  # type: ignore[no-any-return]

    def run(texts: list[str], batch: int) -> Logits:
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return run_sorted([item.ids for item in encoded], batch, run_rows)

    return run


def prompted(bundle: Path, tokenizer: Any) -> Callable[[list[str]], Ids]:
    """The function from texts to the ids of their whole prompts, for this project's graph, which
    has the prompt inside."""
    prompt = json.loads((bundle / "trimexport.json").read_text(encoding="utf-8"))["prompt"]

    def ids(texts: list[str]) -> Ids:
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [[*prompt["prefix_ids"], *item.ids, *prompt["suffix_ids"]] for item in encoded]

    return ids


def files_of(artefact: Path) -> list[Path]:
    """The files of a directory, or the one file."""
    return [path for path in (artefact, *artefact.rglob("*")) if path.is_file()]


def graph_files(graph: Path, bundle: Path) -> list[Path]:
    """A graph's file and those of its weights, which are called as it is; and the tokenizer."""
    return [*graph.parent.glob(f"{graph.stem}.*"), bundle / "tokenizer.json"]


def peak_rss_bytes() -> int:
    """The high-water mark of this process's resident memory, file pages included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no VmHWM: peers run on Linux")


def gpu_bytes() -> int | None:
    """What this process has on the GPU now, as the driver's tool tells; None where it does not."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    used = dict(line.split(", ") for line in lines.strip().splitlines())
    mebibytes = used.get(str(os.getpid()), "")
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else None


def serve(arguments: argparse.Namespace, load: Callable[[argparse.Namespace], Peer]) -> None:
    """Load the peer and answer requests until standard input ends."""
    stream = _own_stdout()
    peer = load(arguments)
    _say(
        stream,
        {
            "ready": True,
            "peer": peer.name,
            "version": peer.version,
            "load_seconds": time.perf_counter() - STARTED,
            "files_bytes": sum(file.stat().st_size for file in peer.files),
        },
    )
    labels = arguments.labels.split(",")
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("ids"):
            _say(stream, {"ids": peer.ids(request["texts"])})
        else:
            _say(stream, _answer(peer, request, labels))


def _answer(peer: Peer, request: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    start = time.perf_counter()
    logits = peer.run(request["texts"], request["batch"])
    seconds = time.perf_counter() - start
    rows = [[float(value) for value in row] for row in logits]
    best = [labels[max(range(len(row)), key=row.__getitem__)] for row in rows]
    answer = {"seconds": seconds, "labels": best, "logits": rows}
    return {**answer, "peak_rss_bytes": peak_rss_bytes(), "gpu_bytes": gpu_bytes()}


def _own_stdout() -> IO[str]:
    """Standard output for this module alone; what libraries print goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _say(stream: IO[str], value: dict[str, Any]) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()
