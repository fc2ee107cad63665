"""PyTorch and transformers, as a peer: the whole model, logits of the last position only.

    python pytorch.py CHECKPOINT --prompt-file FILE --labels positive,negative --threads 2 \
        --dtype bfloat16 [--cache] [--device cuda] [--compile]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from protocol import (
    Logits,
    Peer,
    Question,
    files_of,
    padded,
    parser,
    question,
    run_sorted,
    serve,
    title,
)

SHORT = {"float32": "fp32", "bfloat16": "bf16"}


def load(arguments: argparse.Namespace) -> Peer:
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.artefact)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.artefact, dtype=getattr(torch, arguments.dtype)
    ).eval()
    model.to(arguments.device)
    asked = question(
        arguments, lambda text, special: tokenizer.encode(text, add_special_tokens=special)
    )
    if arguments.compile:
        model.forward = torch.compile(model.forward)
    compiled = ", compiled" * arguments.compile
    name = title(f"PyTorch {SHORT[arguments.dtype]}{compiled}", arguments)
    version = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return Peer(name, version, runner(model, asked), asked.whole, files_of(arguments.artefact))


def runner(model: Any, asked: Question) -> Callable[[list[str], int], Logits]:
    """The function from texts to logits."""
    import torch

    prefix = asked.prefix
    kept = _prefix_cache(model, prefix) if prefix else []

    @torch.inference_mode()
    def run_rows(rows: list[list[int]]) -> Logits:
        ids, mask = (
            torch.tensor(value, device=model.device) for value in padded(rows, 0, left=True)
        )
        position = (mask.cumsum(1) - 1).clamp(min=0) + len(prefix)
        seen = torch.cat([mask.new_ones((len(rows), len(prefix))), mask], 1)
        output = model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=position,
            past_key_values=_expanded(kept, len(rows)),
            use_cache=bool(kept),
            logits_to_keep=1,
        )
        return output.logits[:, -1, asked.tokens].float().tolist()  # type: ignore[no-any-return]

    def run(texts: list[str], batch: int) -> Logits:
        return run_sorted(asked.rows(texts), batch, run_rows)

    return run


def _prefix_cache(model: Any, prefix: list[int]) -> list[tuple[Any, Any]]:
    """The keys and values of the prefix, layer by layer, [1, heads, length, head]."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([prefix], device=model.device)
        output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in output.past_key_values.layers]


def _expanded(kept: list[tuple[Any, Any]], rows: int) -> Any:
    """A cache of its own for one call, filled with the prefix for each row."""
    from transformers import DynamicCache

    if not kept:
        return None
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(kept):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return cache


if __name__ == "__main__":
    options = parser()
    options.add_argument("--dtype", choices=list(SHORT), required=True)
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--compile", action="store_true", help="with torch.compile")
    serve(options.parse_args(), load)
