"""Measure this project on a GPU against PyTorch, in one call:

    python benchmarks/gpu.py --tokenizer path/to/gemma/tokenizer --data path/to/sst2 -o build/gpu

It writes a checkpoint with Gemma-2B's shape and random weights, builds bundles with the zero-shot
and the 16-shot prompt, and compares ONNX Runtime's CUDA provider and, where TensorRT is, its
engines with PyTorch in bfloat16, compiled and not, with and without the prompt's cache: one
sentence, 256 texts of 32 tokens, one sentence behind 16 examples. Then it compares the answers with
the untrimmed model's. OUTPUT holds table.md, results.json and parity.json. `--device cpu` tries the
script out where there is no GPU; its times say nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from compare import LABELS
from trimexport import BuildSpec, build, verify
from trimexport.cli.console import ConsoleProgress
from trimexport.parity.json_report import as_dict
from trimexport_runtime import BackendError
from trimexport_runtime.backends.availability import require_backend
from workloads import ZERO_SHOT, prompts, read_texts

HERE = Path(__file__).resolve().parent
THROUGHPUT = "256x32"
BATCH = 256
MAX_TOKENS = 1024  # of prompt and text: engines reserve room for the longest


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--shape", default=THROUGHPUT, show_default=True, help="Texts x tokens of a batch.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    model: Path | None,
    tokenizer: Path | None,
    data: Path,
    device: str,
    rounds: int,
    shape: str,
    output: Path,
) -> None:
    """Build, measure and compare; --model names a checkpoint to take instead of making one."""
    output.mkdir(parents=True, exist_ok=True)
    if model is None:
        if tokenizer is None:
            raise click.UsageError("Give --tokenizer for a new checkpoint, or --model.")
        model = output / "gemma-2b"
        if not model.exists():
            made = ("--shape", "gemma-2b", "--tokenizer", tokenizer, "-o", model)
            _run("make_checkpoint.py", *made)
    words = model / "tokenizer.json"
    engines = device == "cuda" and _has_tensorrt()
    bundles = {}
    for name, prompt in prompts(read_texts(data / "train.jsonl", words)).items():
        bundles[name] = output / f"bundle-{name}"
        if not bundles[name].exists():
            _build(model, prompt, bundles[name], engines)
    peers = output / "peers.toml"
    peers.write_text("\n".join(_peers(model, bundles, device, engines)), encoding="utf-8")
    chosen = ("one sentence", f"{shape} tokens", "one sentence, 16-shot prompt")
    only = [part for name in chosen for part in ("--only", name)]
    options = ("--data", data, "--tokenizer", words, "--rounds", rounds, "--shape", shape)
    _run("compare.py", peers, *options, *only, "-o", output)
    backends = ("pytorch", "onnxruntime-cuda", "tensorrt") if device == "cuda" else ("pytorch",)
    report = verify(bundles[ZERO_SHOT], backends=backends, progress=ConsoleProgress())
    found = json.dumps(as_dict(report), indent=2)
    (output / "parity.json").write_text(found + "\n", encoding="utf-8")


def _build(model: Path, prompt: str, bundle: Path, engines: bool) -> None:
    spec = BuildSpec(
        model=str(model),
        labels=tuple(LABELS.split(",")),
        prompt=prompt,
        precision=("fp16",),
        max_tokens=MAX_TOKENS,
        tensorrt=("fp16", "int8") if engines else (),
    )
    build(spec, bundle, progress=ConsoleProgress())


def _has_tensorrt() -> bool:
    try:
        require_backend("tensorrt")
    except BackendError as error:
        click.echo(f"without TensorRT: {error}", err=True)
        return False
    return True


def _peers(model: Path, bundles: dict[str, Path], device: str, engines: bool) -> Iterator[str]:
    """The peers file: ours, then PyTorch. Each is in memory with the first alone."""
    artefact = {name: str(path) for name, path in bundles.items()}
    backend = {"cuda": "onnxruntime-cuda", "cpu": "onnxruntime"}[device]
    ours = [("fp16", backend)]
    ours += [("tensorrt-fp16", "tensorrt"), ("tensorrt-int8", "tensorrt")] if engines else []
    for group, (variant, where) in enumerate(ours):
        arguments = ["--variant", variant, "--backend", where]
        name = f"trimexport {variant} on {where}"
        yield _peer(name, "trimexport_peer.py", artefact, arguments, max(1, group))
    number = len(ours)
    for compiled in ([], ["--compile"]):
        for cache in ([], ["--cache"]):
            arguments = ["--dtype", "bfloat16", "--device", device, *compiled, *cache]
            name = "PyTorch bf16" + ", compiled" * bool(compiled) + ", prefix cache" * bool(cache)
            yield _peer(name, "pytorch.py", dict.fromkeys(bundles, str(model)), arguments, number)
            number += 1


def _peer(
    name: str, script: str, artefact: dict[str, str], arguments: list[str], group: int
) -> str:
    places = ", ".join(f"{json.dumps(key)} = {json.dumps(it)}" for key, it in artefact.items())
    return (
        f"[[peer]]\nname = {json.dumps(name)}\npython = {json.dumps(sys.executable)}\n"
        f"script = {json.dumps(script)}\nartefact = {{ {places} }}\n"
        f"arguments = {json.dumps(arguments)}\nbatch = {BATCH}\ngroup = {group}\n"
    )


def _run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
