"""Blocks that a GGUF file holds as the graph multiplies with them: they are taken over with the
same codes, scales and minima, and nothing is rounded again."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.source.gguf_blocks import GgufEntry
from trimexport.source.gguf_codes import FORMS, read_codes

from .blocks import Blocks, Form

STEP = 2**21  # numbers that are read at a time


def form_in_file(weight: StreamedWeight) -> Form | None:
    """How the checkpoint holds a tensor's rows, if it does so in blocks that can be taken over: a
    GGUF's, of types of four bits and more, that no adapter changes."""
    entry = _entry(weight)
    adapter = weight.checkpoint.adapter
    if entry is None or entry.dtype not in FORMS or entry.transposed or entry.added:
        return None
    if adapter is not None and weight.source in adapter.changes:
        return None
    known = FORMS[entry.dtype]
    return Form(known.bits, known.block, known.minima is not None)


def as_stored(weight: StreamedWeight) -> Iterator[tuple[torch.Tensor, Blocks]]:
    """The rows of such a tensor, float32 [n, inputs] some at a time, and their blocks."""
    entry = _entry(weight)
    assert entry is not None
    rows, inputs = entry.shape
    step = max(1, STEP // inputs)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        found = read_codes(entry, weight.source, start, stop)
        offsets = None if found.offsets is None else torch.from_numpy(found.offsets)
        codes, scales = torch.from_numpy(found.codes), torch.from_numpy(found.scales)
        blocks = Blocks(codes, scales, FORMS[entry.dtype].bits, offsets)
        yield torch.from_numpy(found.numbers), blocks


def _entry(weight: StreamedWeight) -> GgufEntry | None:
    entry = weight.checkpoint.tensors[weight.source]
    return entry if isinstance(entry, GgufEntry) else None
