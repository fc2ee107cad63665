"""One measured subject, in a process of its own: `python -P worker.py`.

It is run by its path. For a bundle it imports `trimexport_runtime` and the standard library alone,
so that its start-up and its memory are those of a device. Every line of standard input is a
request, a JSON object; every one is answered by a line of JSON on standard output:

| do | further keys | answer |
| --- | --- | --- |
| load | bundle, variant, threads, model, adapter, dtype | versions |
| answer | texts | labels |
| apart | texts | seconds of every text, one at a time |
| together | texts | labels, and seconds of every pass over all texts at once |
| memory | | resident, peak: bytes, or null where the system does not tell |

A request that fails is answered by `error` and `kind`. The end of the input ends the process.
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

Answerer = Callable[[list[str]], list[str]]
LEAST_SECONDS = 0.25  # the texts are repeated until so much time has gone by
WARM_UP = 4  # texts that are answered before the clock runs
_NAMED = ("trimexport_runtime", "onnxruntime", "numpy", "torch", "transformers")


def load(request: dict[str, Any]) -> Answerer:
    """Texts to labels: through the runtime, or through PyTorch where the request names a model."""
    bundle, threads = request["bundle"], request["threads"]
    if request["model"] is not None:
        from trimexport.bench.pytorch import Untrimmed

        named = {key: request[key] for key in ("model", "adapter", "dtype")}
        return Untrimmed(bundle, **named, threads=threads).labels
    classifier = Classifier.load(bundle, variant=request["variant"], threads=threads)
    return lambda texts: [prediction.label for prediction in classifier.classify(texts)]


def together(answer: Answerer, texts: list[str]) -> dict[str, Any]:
    """All texts at once, in whatever batches the subject makes of them."""
    labels: list[str] = []
    seconds: list[float] = []
    while sum(seconds) < LEAST_SECONDS:
        began = time.perf_counter()
        labels = answer(texts)
        seconds.append(time.perf_counter() - began)
    return {"labels": labels, "seconds": seconds}


def apart(answer: Answerer, texts: list[str]) -> dict[str, Any]:
    """One text at a time."""
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
    """What the process has in memory now, file pages included, and the most it ever had."""
    known: dict[str, int] = {}
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("VmRSS", "VmHWM"):
                    known[name] = int(value.split()[0]) * 1024
    return {"resident": known.get("VmRSS"), "peak": known.get("VmHWM")}


def versions() -> dict[str, str]:
    """The packages that do the work, of those that are loaded."""
    return {name: str(sys.modules[name].__version__) for name in _NAMED if name in sys.modules}


def main() -> None:
    """Answer requests until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no reply
    answer: Answerer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "load":
                answer = load(request)
                reply: dict[str, Any] = {"versions": versions()}
            else:
                reply = perform(answer, request)
        except Exception as error:  # whatever a library raises: the parent says it
            reply = {"error": reason(error), "kind": type(error).__name__}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def perform(answer: Answerer | None, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request other than `load`."""
    if request["do"] == "memory":
        return memory()
    assert answer is not None, "load comes first"
    if request["do"] == "answer":
        return {"labels": answer(request["texts"])}
    return {"together": together, "apart": apart}[request["do"]](answer, request["texts"])


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, TrimexportRuntimeError):
        return str(error)
    lines = str(error).strip().splitlines() or ["it says no more"]
    return f"{type(error).__name__}: {lines[0]}"


if __name__ == "__main__":
    main()
