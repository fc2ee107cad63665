"""A process that runs one measured subject: `python -P worker.py`.

It is run by its path. For a bundle it imports `trimexport_runtime` and the standard library alone,
so that its start-up and its memory are those of a device. Every line of standard input is a
request, a JSON object, and gets a line of JSON on standard output as its reply:

| do | further keys | reply |
| --- | --- | --- |
| load | bundle, variant, threads, model, adapter, dtype | versions |
| answer | texts | labels |
| apart | texts | seconds of every text, one at a time |
| together | texts | labels, and seconds of every pass over all texts at once |
| memory | | resident, peak: bytes, or null where the system does not tell |

The reply to a request that fails has `error` and `kind`. The end of the input ends the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from trimexport_runtime import Classifier, TrimexportRuntimeError
from trimexport_runtime.inputs import Input

Answerer = Callable[[list[Input]], list[str]]
LEAST_SECONDS = 0.25  # the texts are repeated until so much time is measured
WARM_UP = 4  # texts that are answered before time is measured
_NAMED = ("trimexport_runtime", "onnxruntime", "numpy", "torch", "transformers")


def load(request: dict[str, Any]) -> Answerer:
    """The function from texts to labels: the runtime's, or PyTorch's if the request names a
    model."""
    bundle, threads = request["bundle"], request["threads"]
    if request["model"] is not None:
        from trimexport.bench.pytorch import Untrimmed

        named = {key: request[key] for key in ("model", "adapter", "dtype")}
        return Untrimmed(bundle, **named, threads=threads).labels
    classifier = Classifier.load(bundle, variant=request["variant"], threads=threads)
    return lambda texts: [prediction.label for prediction in classifier.classify(texts)]


def time_together(answer: Answerer, texts: list[Input]) -> dict[str, Any]:
    """Time all texts at once, in the batches that the subject makes of them."""
    labels: list[str] = []
    seconds: list[float] = []
    while sum(seconds) < LEAST_SECONDS:
        began = time.perf_counter()
        labels = answer(texts)
        seconds.append(time.perf_counter() - began)
    return {"labels": labels, "seconds": seconds}


def time_apart(answer: Answerer, texts: list[Input]) -> dict[str, Any]:
    """Time one text after the other."""
    for text in texts[:WARM_UP]:
        answer([text])
    seconds: list[float] = []
    while sum(seconds) < LEAST_SECONDS:
        for text in texts:
            began = time.perf_counter()
            answer([text])
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def memory() -> dict[str, int | None]:
    """The bytes that the process has in memory now, file pages included, and the most it ever
    had; None where the system does not tell."""
    known: dict[str, int] = {}
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("VmRSS", "VmHWM"):
                    known[name] = int(value.split()[0]) * 1024
    return {"resident": known.get("VmRSS"), "peak": known.get("VmHWM")}


def versions() -> dict[str, str]:
    """The versions of the packages that do the work, as far as they are loaded."""
    return {name: str(sys.modules[name].__version__) for name in _NAMED if name in sys.modules}


def main() -> None:
    """Reply to requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # a library's own output must not be taken for a reply
    answer: Answerer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                answer = load(request)
                reply: dict[str, Any] = {"versions": versions()}
            else:
                reply = perform(answer, request)
        except Exception as error:  # the parent reports whatever a library raises
            reply = {"error": reason(error), "kind": type(error).__name__}
        replies.write(json.dumps(reply, allow_nan=False) + "\n")
        replies.flush()


def perform(answer: Answerer | None, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request other than `load`."""
    if request["do"] == "memory":
        return memory()
    assert answer is not None, "load comes first"
    if request["do"] == "answer":
        return {"labels": answer(request["texts"])}
    timings = {"together": time_together, "apart": time_apart}
    return timings[request["do"]](answer, request["texts"])


def reason(error: Exception) -> str:
    """The error as one line."""
    if isinstance(error, TrimexportRuntimeError):
        return str(error)
    lines = str(error).strip().splitlines() or ["it says no more"]
    return f"{type(error).__name__}: {lines[0]}"


if __name__ == "__main__":
    main()
