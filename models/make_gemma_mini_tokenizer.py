"""Train the tokenizer of gemma-mini: Gemma's conventions at 8,000 pieces.

    python models/make_gemma_mini_tokenizer.py --data DIR --out models/gemma-mini

The reserved ids are Gemma's own (pad 0, eos 1, bos 2, unk 3, start_of_turn 106,
end_of_turn 107, line breaks from 108, spaces from 139, HTML tags from 169, bytes from 217);
the rest is byte-pair encoding over `▁`-marked words, with byte fallback and no dummy prefix.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

VOCAB_SIZE = 8000
LONGEST_RUN = 31
SPACE = "▁"
TAGS = [
    "table",
    "caption",
    "thead",
    "tbody",
    "tfoot",
    "tr",
    "th",
    "td",
    "/table",
    "/caption",
    "/thead",
    "/tbody",
    "/tfoot",
    "/tr",
    "/th",
    "/td",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "blockquote",
    "/h1",
    "/h2",
    "/h3",
    "/h4",
    "/h5",
    "/h6",
    "/blockquote",
    "strong",
    "em",
    "b",
    "i",
    "u",
    "s",
    "sub",
    "sup",
    "code",
    "/strong",
    "/em",
    "/b",
    "/i",
    "/u",
    "/s",
    "/sub",
    "/sup",
    "/code",
]
CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
# The words the prompts are made of must be pieces, whatever their count in the texts.
PROMPT_WORDS = " Review: News: Sentiment: Topic: positive negative World Sports Business Sci/Tech"
# No piece crosses a space, a digit stands alone, a sign joins at most the space before it.
WORDS = Regex(f"{SPACE}?[\\p{{L}}']+|{SPACE}?\\p{{N}}|{SPACE}?[^\\p{{L}}\\p{{N}}{SPACE}]|{SPACE}")


def reserved() -> list[str]:
    """The first 473 pieces, at the ids Gemma gives them."""
    head = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<2mass>", "[@BOS@]"]
    head += [f"<unused{i}>" for i in range(99)]
    head += ["<start_of_turn>", "<end_of_turn>"]
    head += ["\n" * n for n in range(1, LONGEST_RUN + 1)]
    head += [SPACE * n for n in range(2, LONGEST_RUN + 1)]
    head += [f"<{tag}>" for tag in TAGS]
    assert len(head) == 217
    return head + [f"<0x{byte:02X}>" for byte in range(256)]


def texts(data: Path) -> Iterator[str]:
    """The training texts, SST-2 sentences repeated because AG News is five times larger."""
    for name, repeat in (("sst2/train.jsonl", 4), ("agnews/train_union.jsonl", 1)):
        with (data / name).open(encoding="utf-8") as lines:
            rows = [" " + json.loads(line)["text"] for line in lines]
        yield from rows * repeat
    yield from [PROMPT_WORDS] * 2000


def learn_merges(data: Path) -> tuple[list[str], list[list[str]]]:
    """Learned pieces in order, and their merges."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Split(WORDS, "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(reserved()), limit_alphabet=150, show_progress=False
    )
    learner.train_from_iterator((t.replace(" ", SPACE) for t in texts(data)), trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return pieces, model["merges"]


def run_merges(character: str) -> list[list[str]]:
    """Every way to join two runs of `character` into a reserved longer one, shortest first."""
    return [
        [character * left, character * (total - left)]
        for total in range(2, LONGEST_RUN + 1)
        for left in range(1, total)
    ]


def build(data: Path) -> dict[str, object]:
    """The tokenizer.json as a value."""
    pieces, merges = learn_merges(data)
    head = reserved()
    vocab = {piece: i for i, piece in enumerate(head + [p for p in pieces if p not in set(head)])}
    added = [
        {
            "id": i,
            "content": piece,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": piece in CONTROL,
        }
        for i, piece in enumerate(head[:217])
    ]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                bos,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": run_merges("\n") + run_merges(SPACE) + merges,
        },
    }


def tokenizer_config() -> dict[str, object]:
    """What transformers reads beside tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "padding_side": "right",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    value = build(arguments.data)
    text = json.dumps(value, ensure_ascii=False, indent=None, separators=(",", ":"))
    (arguments.out / "tokenizer.json").write_text(text, encoding="utf-8")
    config = json.dumps(tokenizer_config(), indent=2)
    (arguments.out / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    print(f"{len(value['model']['vocab'])} pieces")  # type: ignore[index]


if __name__ == "__main__":
    main()
