"""Measure trimexport-runtime on a bundle: start, memory, speed, a very long text.

    python docs/examples/measure_runtime.py build/sentiment test.jsonl

Needs trimexport-runtime alone, and a system with the `resource` module (Linux, macOS). The file of
texts is optional: JSON lines with a key `text`.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

from trimexport_runtime import Classifier

SENTENCE = "a very good film , really . "
CHARACTERS = 1_000_000


def main(bundle: str, texts: str | None = None) -> None:
    """Print the measurements. The first covers the process from its start, imports included."""
    classifier = Classifier.load(bundle)
    classifier.classify(["a gorgeous, witty, seductive movie"])
    print(f"import, load and first answer: {time.process_time():.2f} s CPU")
    print(f"peak memory of the same: {_peak_bytes() / 1e6:.0f} MB")
    if texts is not None:
        print(f"texts per second: {_texts_per_second(classifier, Path(texts)):.0f}")
    begin = time.process_time()
    classifier.classify([SENTENCE * (CHARACTERS // len(SENTENCE) + 1)])
    print(f"a text of a million characters: {time.process_time() - begin:.2f} s CPU")


def _texts_per_second(classifier: Classifier, path: Path) -> float:
    """The median of three runs over the whole file."""
    with path.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    speeds = []
    for _ in range(3):
        begin = time.perf_counter()
        classifier.classify(texts)
        speeds.append(len(texts) / (time.perf_counter() - begin))
    return statistics.median(speeds)


def _peak_bytes() -> int:
    """The most memory that this process has held. Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: python {sys.argv[0]} BUNDLE [TEXTS.jsonl]")
    main(*sys.argv[1:])
