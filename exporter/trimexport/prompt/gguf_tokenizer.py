"""The tokenizer that a GGUF file's metadata describe, as transformers makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trimexport.errors import CheckpointError, UnsupportedError
from trimexport.source.gguf_header import read_gguf_header

_SMOLLM = "smollm"
# llama.cpp's names for the ways in which a text is split, as far as transformers splits it so too;
# by another name it would split as GPT-2 does and say nothing.
_SPLITS = (
    "gpt-2",
    "llama3",
    "llama-v3",
    "llama-bpe",
    "smaug-bpe",
    "tekken",
    "qwen2",
    "deepseek-r1-qwen",
    _SMOLLM,
)
_OWN = "give the model's own tokenizer with --tokenizer"


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file.

    Raises:
        CheckpointError: the file has none.
        UnsupportedError: transformers would make another than llama.cpp.
    """
    metadata = read_gguf_header(file).metadata
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or "tokenizer.ggml.tokens" not in metadata:
        raise CheckpointError(f"{file} has no tokenizer in its metadata; {_OWN}")
    split = metadata.get("tokenizer.ggml.pre")
    if kind not in ("llama", "gpt2"):
        raise UnsupportedError(
            f"the tokenizer of {file} is of llama.cpp's kind {kind}; llama and gpt2 are read: "
            f"{_OWN}"
        )
    if kind == "gpt2" and split not in _SPLITS:
        raise UnsupportedError(
            f"the tokenizer of {file} splits texts in the way {split}; those that are read are "
            f"{', '.join(_SPLITS)}: {_OWN}"
        )
    if not hasattr(transformers, "TokenizersBackend"):
        raise UnsupportedError(
            f"the tokenizer of {file} is read by transformers 5, and this is "
            f"{transformers.__version__}; {_OWN}"
        )
    # from_pretrained would rather take a tokenizer.json that lies beside the file
    loaded = PreTrainedTokenizerFast(name_or_path=str(file.parent), gguf_file=file.name)
    _mend(loaded.backend_tokenizer, kind, split, metadata)
    return loaded


def _mend(backend: Any, kind: str, split: str | None, metadata: Any) -> None:
    """What transformers overlooks: that digits stand alone, and that no space is put before."""
    if split == _SMOLLM and kind == "gpt2":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    unspaced = metadata.get("tokenizer.ggml.add_space_prefix") is False
    if unspaced and isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer.prepend_scheme = "never"
