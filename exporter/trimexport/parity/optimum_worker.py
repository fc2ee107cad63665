"""Runs a bundle in Optimum: `python -P optimum_worker.py`, with a Python that has it.

It reads one request from standard input, a JSON object with bundle, graph, entries (of the
session's configuration) and texts, and writes one reply to standard output: logits, a list of
numbers per text, or error. It is run by its path and imports nothing of trimexport: Optimum may
need another transformers than the exporter.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

ROWS = 32

Logits = list[float | None]


def logits(bundle: str, graph: str, texts: list[str]) -> list[Logits]:
    """The logits of `ORTModelForSequenceClassification`, [texts, labels], for texts that the
    bundle's own tokenizer cuts and pads; None where one is no finite number."""
    import numpy as np
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    path = Path(graph)
    tokenizer: Any = AutoTokenizer.from_pretrained(bundle)
    model: Any = ORTModelForSequenceClassification.from_pretrained(
        bundle, subfolder=str(path.parent), file_name=path.name
    )
    all_logits: list[Logits] = []
    for start in range(0, len(texts), ROWS):
        encoded = tokenizer(texts[start : start + ROWS], truncation=True)
        width = max(1, *(len(row) for row in encoded["input_ids"]))
        padded = tokenizer.pad(encoded, padding="max_length", max_length=width, return_tensors="np")
        answer = model(**{name: value.astype(np.int64) for name, value in padded.items()})
        rows = answer.logits.tolist()
        all_logits += [[each if math.isfinite(each) else None for each in row] for row in rows]
    return all_logits


def main() -> None:
    """Read the request, run it, write the reply."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no reply
    request = json.load(sys.stdin)
    try:
        reply: dict[str, Any] = {"logits": logits(**request)}
    except ImportError as error:
        reply = {
            "error": f"optimum-onnx is not in {sys.executable} ({error}); make an environment for "
            "it (pip install 'optimum-onnx[onnxruntime]' 'transformers<4.58' torch) and name its "
            "Python with --optimum-python"
        }
    except Exception as error:  # whatever a library raises is the answer here
        reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    replies.write(json.dumps(reply, allow_nan=False))
    replies.close()


if __name__ == "__main__":
    main()
