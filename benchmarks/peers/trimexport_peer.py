"""This project's runtime, as a peer: `python trimexport_peer.py BUNDLE --labels ... --threads 2`.

The prompt is in the bundle, so `--prompt-file` and `--cache` say nothing new and are not read.
"""

from __future__ import annotations

import argparse

from protocol import Logits, Peer, parser, serve


def load(arguments: argparse.Namespace) -> Peer:
    import trimexport_runtime
    from trimexport_runtime import Classifier

    classifier = Classifier.load(
        arguments.artefact,
        variant=arguments.variant,
        threads=arguments.threads,
        backend=arguments.backend,
    )
    if classifier.labels != tuple(arguments.labels.split(",")):
        raise SystemExit(f"{arguments.artefact} has the labels {classifier.labels}")

    def run(texts: list[str], batch: int) -> Logits:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        found: dict[int, list[float]] = {}
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            logits = classifier.logits([texts[index] for index in indices])
            found.update(zip(indices, logits.tolist(), strict=True))
        return [found[index] for index in range(len(texts))]

    return Peer(f"trimexport {classifier.variant.name}", trimexport_runtime.__version__, run)


if __name__ == "__main__":
    options = parser()
    options.add_argument("--variant", help="of the bundle; the backend's fastest by default")
    options.add_argument("--backend", default="onnxruntime")
    serve(options.parse_args(), load)
