"""Real pretrained models, and what several tests make of them. `make test-real` runs these tests;
they are skipped, with the reason, where the packages cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from clients.conftest import node as node
from fetch_real import NotAvailable, fetch
from models import ROOT, needs_data, read_jsonl
from server.conftest import serve as serve
from trimexport import BuildSpec, Texts, build, read_recipe
from trimexport.texts import read_texts

RECIPE = ROOT / "models" / "sst2-gemma3-270m.toml"
REVIEWS = read_texts(ROOT / "docs" / "examples" / "reviews.csv")
# The untrimmed model reads each text of a build, so a few have to do.
SAMPLE = Texts(REVIEWS.texts[:3])


class Judge:
    """A model as transformers reads it from its GGUF, with the tokenizer in that or another one."""

    def __init__(self, gguf: Path, tokenizer: Path | None = None) -> None:
        place = {"gguf_file": gguf.name}
        own = tokenizer or gguf.parent
        self.tokenizer = AutoTokenizer.from_pretrained(own, **({} if tokenizer else place))
        self.model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, attn_implementation="eager", **place
        ).eval()

    def logits(self, rows: list[list[int]], tokens: list[int]) -> npt.NDArray[np.float32]:
        """Logits of `tokens` behind each row of token ids, float32 [rows, tokens]."""
        with torch.no_grad():
            return np.stack([self.model(torch.tensor([it])).logits[0, -1, tokens] for it in rows])

    def save(self, directory: Path) -> Path:
        """Write it as a checkpoint in safetensors, float32."""
        directory.mkdir()
        config, tensors = self.model.config, self.model.state_dict()
        if config.tie_word_embeddings:
            tensors.pop("lm_head.weight", None)
        if hasattr(config, "quantization_config"):  # of the GGUF
            del config.quantization_config
        config.architectures = [type(self.model).__name__]
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, directory / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        return directory


def _fetched(name: str) -> Path:
    try:
        return fetch(name) / f"{name}.gguf"
    except NotAvailable as reason:
        pytest.skip(f"{name} cannot be had here: {reason}")


@pytest.fixture(scope="session")
def gemma() -> Path:
    """Gemma 3 270M's file, where the recipes look for it."""
    return _fetched("gemma3-270m")


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M-Instruct's file."""
    return _fetched("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def recipe(gemma: Path) -> BuildSpec:
    """The recipe for sentiment, which finds the file where it was fetched to."""
    return read_recipe(RECIPE)


@pytest.fixture(scope="session")
def bundle(recipe: BuildSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle, in int8 and float32. Shared: do not change it, copy it."""
    target = tmp_path_factory.mktemp("real") / "sst2"
    return build(replace(recipe, precision=("int8", "fp32")), target, sample=SAMPLE).directory


@pytest.fixture(scope="session")
def judge(gemma: Path) -> Judge:
    """Gemma 3 270M by transformers."""
    tokenizer = gemma.parent / "tokenizer"
    return Judge(gemma, tokenizer if tokenizer.is_dir() else None)


@pytest.fixture(scope="session")
def sentences() -> Texts:
    """Sixty sentences of SST-2's dev split with their labels; skipped without the data."""
    rows = read_jsonl(needs_data("sst2", "dev_100.jsonl"))[:60]
    return Texts(tuple(row["text"] for row in rows), tuple(row["label"] for row in rows))
