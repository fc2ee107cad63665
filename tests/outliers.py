"""Plant outliers in a Gemma checkpoint: rescalings that change its activations and no answer.

Large decoders have channels a hundred times larger than the others. Here a norm's gain is
multiplied on a few channels and its readers' columns divided; so are up and down projection, and
values and output projection. In exact arithmetic the model stays the same function.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CHANNELS = 3


def plant(source: Path, target: Path, factor: float, seed: int = 0) -> Path:
    """Copy a Gemma 1 checkpoint with `CHANNELS` channels of each activation `factor` times as
    large."""
    shutil.copytree(source, target)
    tensors = {name: t.float() for name, t in load_file(source / "model.safetensors").items()}
    generator = torch.Generator().manual_seed(seed)

    def channels(size: int) -> torch.Tensor:
        return torch.randperm(size, generator=generator)[:CHANNELS]

    layers = {name.split(".self_attn")[0] for name in tensors if ".self_attn.q_proj" in name}
    for layer in sorted(layers):
        readers = {
            "input_layernorm": [f"self_attn.{part}_proj" for part in "qkv"],
            "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
        }
        for norm, projections in readers.items():
            gain = tensors[f"{layer}.{norm}.weight"]
            chosen = channels(len(gain))
            gain[chosen] = (1 + gain[chosen]) * factor - 1  # Gemma's gain is 1 + w
            for projection in projections:
                tensors[f"{layer}.{projection}.weight"][:, chosen] /= factor
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
