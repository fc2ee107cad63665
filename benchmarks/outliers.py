"""What quantisation loses where a few channels are far larger than the others.

    python benchmarks/outliers.py models/gemma-mini sst2/test.jsonl

plants such channels, as large decoders have them, in a Gemma checkpoint: rows of the up projection
are multiplied and columns of the down projection divided, and so are values and output projection.
No norm's gain tells where they are; activations do. In exact arithmetic the model stays the same
function. Then it counts
the labels that ONNX Runtime's `quantize_dynamic`, which has one scale for a whole activation, and
this project's int8 and tensorrt-int8, smoothed by the texts that ship or not, rotated or not, share
with float32. It shows that a mechanism works; what a scheme is worth only real models tell
(`real_int8.py`), whose large channels are elsewhere.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from schemes import SCHEMES, Subject, compiled, write_scheme
from sentences import read_sentences
from trimexport import BuildSpec, Texts
from trimexport.planning import plan
from trimexport.source.shipped import calibration_texts
from trimexport_runtime.backends.onnxruntime import session_options

LABELS = ("positive", "negative")
PROMPT = "Review: {text}\nSentiment:"
FACTORS = (1, 100, 200)
CHANNELS = 3
DYNAMIC = "quantize_dynamic"


def plant(source: Path, target: Path, factor: float, seed: int = 0) -> Path:
    """Copy a Gemma 1 checkpoint with `CHANNELS` channels of each layer's values, and of its MLP's
    inner activation, `factor` times as large."""
    shutil.copytree(source, target)
    tensors = {name: t.float() for name, t in load_file(source / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(seed)

    def channels(size: int) -> torch.Tensor:
        return torch.randperm(size, generator=generator)[:CHANNELS]

    layers = {name.split(".self_attn")[0] for name in tensors if ".self_attn.q_proj" in name}
    for layer in sorted(layers):
        up = tensors[f"{layer}.mlp.up_proj.weight"]
        chosen = channels(len(up))
        up[chosen] *= factor
        tensors[f"{layer}.mlp.down_proj.weight"][:, chosen] /= factor
        value = tensors[f"{layer}.self_attn.v_proj.weight"]
        output = tensors[f"{layer}.self_attn.o_proj.weight"]
        chosen = channels(len(value))
        value[chosen] *= factor
        output.view(len(output), -1, len(value))[:, :, chosen] /= factor
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def logits(
    checkpoint: Path, texts: Sequence[str], ways: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Label logits [texts, labels] of a checkpoint's graph in each of `ways`, keys of `WAYS`."""
    planned = plan(BuildSpec(model=str(checkpoint), labels=LABELS, prompt=PROMPT))
    tokenizer = Tokenizer.from_str(json.dumps(planned.text_tokenizer))
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        subject = compiled(planned, Texts(tuple(calibration_texts())), Path(directory))
        for number, way in enumerate(ways):
            file = Path(directory) / f"graph_{number}.onnx"
            WAYS[way](subject, file)
            found[way] = _run(file, way == DYNAMIC, rows)
    return found


def _dynamic(subject: Subject, file: Path) -> None:
    write_scheme("fp32", subject, file)
    whole = onnx.load(file)
    del whole.graph.value_info[:]  # the tool makes new shapes under old names
    onnx.save(whole, file)
    quantize_dynamic(file, file, weight_type=QuantType.QInt8, per_channel=True)


WAYS: Mapping[str, Callable[[Subject, Path], None]] = {
    "fp32": partial(write_scheme, "fp32"),
    DYNAMIC: _dynamic,
    **{name: partial(write_scheme, name) for name in SCHEMES if name != "fp32"},
}


def _run(file: Path, guarded: bool, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """One text after the other, so that none changes another's scale. What others make of the
    weights is guarded against sums that overflow on x64 without VNNI."""
    options = session_options()
    options.add_session_config_entry("session.x64quantprecision", str(int(guarded)))
    session = ort.InferenceSession(str(file), options)
    found = []
    for row in rows:
        ids = np.array([row or [0]])
        mask = np.full_like(ids, bool(row))
        found.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
    return np.concatenate(found)


def agreement(found: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """The share of texts that get float32's label."""
    labels = found["fp32"].argmax(1)
    return {name: float((it.argmax(1) == labels).mean()) for name, it in found.items()}


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("texts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(checkpoint: Path, texts: Path) -> None:
    """Print the share of labels that each way keeps, for outliers of several sizes."""
    sentences = read_sentences(texts)
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as directory:
            planted = plant(checkpoint, Path(directory) / "model", factor)
            kept = agreement(logits(planted, sentences, tuple(WAYS)))
        shown = ", ".join(f"{name} {share:.2%}" for name, share in kept.items())
        click.echo(f"{CHANNELS} channels x {factor}: {shown}")


if __name__ == "__main__":
    main()
