"""Small tokenizers, trained here with a family's own normaliser, pre-tokenizer and kind of added
tokens, as its published tokenizer.json has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = [
    "Review: a good film.\nSentiment: positive", "News: prices rose again \nTopic: business",
    "Sentiment: negative", "Sentiment: World", "positive", "negative", "World",
    "it 's not bad , exactly !\n\n  two spaces\tand a tab", "<tool_call> 日本語 é 😀 1234 </s>",
] * 10  # fmt: skip


def byte_level(split: str | None, normalizer: Any, added: list[Any], bos: bool) -> Tokenizer:
    """A tokenizer that works on bytes behind a split by regular expression (None: GPT-2's)."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split_on_bytes(split)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.add_tokens(added)
    if bos:
        start = ("<|begin|>", tokenizer.token_to_id("<|begin|>"))
        template = processors.TemplateProcessing("<|begin|> $A", special_tokens=[start])
        level_again = processors.ByteLevel(trim_offsets=False)
        tokenizer.post_processor = processors.Sequence([level_again, template])
    return tokenizer


def split_on_bytes(split: str | None) -> pre_tokenizers.PreTokenizer:
    """Bytes behind a split by regular expression (None: GPT-2's, which `ByteLevel` has)."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    parts = [pre_tokenizers.Split(Regex(split), "isolated"), level] if split else [level]
    return pre_tokenizers.Sequence(parts)


def pieces(metaspace: str | None, added: list[Any]) -> Tokenizer:
    """SentencePiece's kind: spaces are U+2581, written by normalisers or by a `Metaspace`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace, split=False)
    else:
        spaces = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    trainer = trainers.BpeTrainer(
        vocab_size=250,
        special_tokens=["<unk>", "<s>"],
        initial_alphabet=["▁", "\n", "\t", *map(chr, range(33, 127))],
        show_progress=False,
    )
    # A model of whole strings learns no merge over a space, as SentencePiece does not.
    words = ["▁" + word for line in CORPUS for word in line.replace("\n", " ").split(" ")]
    trained, tokenizer.normalizer = tokenizer.normalizer, normalizers.Sequence([])
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.normalizer = trained
    tokenizer.add_special_tokens(["[INST]", "[/INST]"])
    tokenizer.add_special_tokens([AddedToken("<|user|>", rstrip=True, normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<|end|>", rstrip=True, normalized=False)])
    tokenizer.add_tokens(added)
    start = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[start])
    return tokenizer


def added(*contents: str, **flags: bool) -> list[AddedToken]:
    return [AddedToken(content, normalized=False, **flags) for content in contents]


# What the families of tests/families.py have.
FAMILIES = {
    "llama 3": lambda: byte_level(LLAMA_3, None, [], bos=True),
    "qwen": lambda: byte_level(
        QWEN, normalizers.NFC(), added("<tool_call>", "<think>", "</think>"), bos=False
    ),
    "gpt 2": lambda: byte_level(None, None, [], bos=False),
}


def special_ids(name: str) -> dict[str, int | None]:
    """What a model's configuration says of the tokenizer's special tokens."""
    start, end = (FAMILIES[name]().token_to_id(token) for token in ("<|begin|>", "<|end|>"))
    return {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}


def save_tokenizer(name: str, directory: Path) -> None:
    """Write the tokenizer beside a model."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=FAMILIES[name](),
        pad_token="<|end|>",
        eos_token="<|end|>",
        extra_special_tokens=["<|begin|>"],
    )
    fast.save_pretrained(directory)
