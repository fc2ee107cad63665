"""The engines of `rerank.py`, one of which is a process: it reads a JSON object a line with a query
and documents, and answers with its scores (log-odds of the first label) and what they took. The
first one has the threads and the prompt as well: see `Prompt`."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

# Passages that PyTorch and OpenVINO run at once. OpenVINO GenAI computes the whole vocabulary at
# every position: a hundred passages in one call take more than 24 GB.
BATCH = 8

Rank = Callable[[str, list[str]], list[float]]


@dataclass(frozen=True)
class Prompt:
    """What stands before, between and behind query and document; and the words of both labels, with
    the space before them if there is one."""

    before: str
    between: str
    behind: str
    words: tuple[str, str]


def bundle(variant: str, source: str, threads: int, prompt: Prompt) -> Rank:
    """This project's runtime, which has the prompt in its graph."""
    from trimexport_runtime import Classifier

    classifier = Classifier.load(source, variant=variant, threads=threads)

    def rank(query: str, documents: list[str]) -> list[float]:
        found = classifier.logits([(query, document) for document in documents])
        scores = found[:, 0] - found[:, 1] if found.shape[1] == 2 else found[:, 0]
        return [float(it) for it in scores]

    return rank


def pytorch(dtype: str, source: str, threads: int, prompt: Prompt) -> Rank:
    """The untrimmed model in transformers, as its card runs it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype)).eval()
    yes, no = (tokenizer(it, add_special_tokens=False)["input_ids"][0] for it in prompt.words)

    @torch.no_grad()
    def rank(query: str, documents: list[str]) -> list[float]:
        asked = f"{prompt.before}{query}{prompt.between}"
        ids = tokenizer([f"{asked}{it}{prompt.behind}" for it in documents])["input_ids"]
        scores: list[float] = []
        for first in range(0, len(ids), BATCH):
            batch = tokenizer.pad({"input_ids": ids[first : first + BATCH]}, return_tensors="pt")
            logits = model(**batch, logits_to_keep=1).logits[:, -1, :].float()
            scores += (logits[:, yes] - logits[:, no]).tolist()
        return scores

    return rank


def openvino(source: str, threads: int, prompt: Prompt) -> Rank:
    """OpenVINO GenAI's rerank pipeline, which is given whole prompts as the makers write them."""
    import openvino_genai  # type: ignore[import-not-found]

    config = openvino_genai.TextRerankPipeline.Config()
    config.top_n = 1_000_000
    settings = {"INFERENCE_NUM_THREADS": threads}
    pipeline = openvino_genai.TextRerankPipeline(source, "CPU", config, **settings)

    def rank(query: str, documents: list[str]) -> list[float]:
        asked = f"{prompt.before}{query}{prompt.between}"
        scores = []
        for first in range(0, len(documents), BATCH):
            batch = [f"{it}{prompt.behind}" for it in documents[first : first + BATCH]]
            found = dict(pipeline.rerank(asked, batch))
            shares = [min(max(found[at], 1e-7), 1 - 1e-7) for at in range(len(batch))]
            scores += [math.log(share / (1 - share)) for share in shares]
        return scores

    return rank


ENGINES: dict[str, tuple[str, Callable[[str, int, Prompt], Rank]]] = {
    "trimexport-int8": ("bundle", partial(bundle, "int8")),
    "trimexport-fp32": ("bundle", partial(bundle, "fp32")),
    "pytorch-float32": ("checkpoint", partial(pytorch, "float32")),
    "pytorch-bfloat16": ("checkpoint", partial(pytorch, "bfloat16")),
    "openvino-genai": ("openvino", openvino),
}
"""Name -> what it reads, and what makes it."""


def main() -> None:
    """Answer line by line."""
    _, make = ENGINES[sys.argv[1]]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print there
    rank: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        if rank is None:
            os.environ["OMP_NUM_THREADS"] = str(asked["threads"])
            rank = make(sys.argv[2], asked["threads"], Prompt(**asked["prompt"]))
        began = time.perf_counter()
        scores = rank(asked["query"], asked["documents"])
        seconds = time.perf_counter() - began
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        answer = {"seconds": seconds, "scores": scores, "megabytes": megabytes}
        print(json.dumps(answer, allow_nan=False), file=answers, flush=True)


if __name__ == "__main__":
    main()
