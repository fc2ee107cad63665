"""Write the numbers that a GGUF file stands for as a checkpoint, for peers that read no GGUF.

    python benchmarks/setup/checkpoint_of_gguf.py MODEL.gguf TOKENIZER DIRECTORY

writes DIRECTORY/float32, the dequantised tensors as they are, and DIRECTORY/bfloat16, the same
rounded, as PyTorch would round them when it loads them in that type; each with TOKENIZER's files
tokenizer.json and tokenizer_config.json. transformers reads the file, which this project's own
reader has no part in. It needs the extra `gguf`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def write(model: Any, dtype: torch.dtype, tokenizer: Path, directory: Path) -> None:
    """Write a model's tensors, its configuration and a tokenizer, as transformers loads them."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = dtype
    model.config.save_pretrained(directory)
    old_rope(directory / "config.json")
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer / name, directory / name)


def old_rope(config: Path) -> None:
    """Say the rotary frequencies as transformers before release 5 did, which 5 reads too: Optimum
    Intel and the builder of onnxruntime-genai read nothing else."""
    values = json.loads(config.read_text(encoding="utf-8"))
    rope = values.pop("rope_parameters")
    values["rope_theta"] = rope.get("full_attention", rope)["rope_theta"]
    if "sliding_attention" in rope:
        values["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    gguf, tokenizer, output = (Path(value) for value in sys.argv[1:4])
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    if hasattr(model.config, "quantization_config"):  # of the GGUF
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    for dtype in (torch.float32, torch.bfloat16):
        write(model, dtype, tokenizer, output / str(dtype).removeprefix("torch."))


if __name__ == "__main__":
    main()
