"""This project's runtime, as a peer: `python trimexport_peer.py BUNDLE --labels ... --threads 2`.

The prompt is in the bundle, so `--prompt-file` and `--cache` say nothing new and are not read.
"""

from __future__ import annotations

import argparse

from protocol import Ids, Logits, Peer, parser, serve


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

    def ids(texts: list[str]) -> Ids:
        prompt = classifier.manifest.prompt
        own = (classifier.encode(text).ids.tolist() for text in texts)
        return [[*prompt.prefix_ids, *row, *prompt.suffix_ids] for row in own]

    files = [arguments.artefact / name for name in (*classifier.variant.files, "tokenizer.json")]
    name = f"trimexport {classifier.variant.name}"
    return Peer(name, trimexport_runtime.__version__, run, ids, files)


if __name__ == "__main__":
    options = parser()
    options.add_argument("--variant", help="of the bundle; the backend's fastest by default")
    options.add_argument("--backend", default="onnxruntime")
    serve(options.parse_args(), load)
