"""What a backbone's graph takes besides a text's tokens: the task, as inputs.

Each input is named, with its type and its dimensions; a dimension that is a name may have any size,
and the same in all inputs. A pack holds an array for each.

    prefix_key.I     keys of the prefix in layer I
    prefix_value.I   values, in blocks of columns (see `prefix_attention`)
    prefix_bias      what is added to the scores on them: 0, or `HIDDEN` where nothing stands
    prefix_count     how many positions the prefix takes
    lead_ids         tokens before each text, of a prompt without a suffix (see `split_prefix`)
    behind_ids       tokens behind it: the suffix, and the nodes of the tree of labels
    answer_at        how many places the prompt's last token is behind the text's first, if that
                     has no token
    tree_seen        whether a node sees another, as `LabelTree.seen`
    tree_shift       from a node's place to its position, as `LabelTree.shift`
    picks            places, from the prompt's last token on, whose hidden states the head reads
    correction       what is added to those (see `bundle.correction`); a variant has its own
    head_weight      rows of the output layer, in blocks of COLUMNS columns
    head_bias        what is added to the rows' logits, in the same blocks
    finished         1 for rows whose logits the model's own divisor and soft-cap follow, 0 for
                     those of a fitted head, in the same blocks
    options          at each pick, which of its R + 1 logits belong together; R is none of them
    normalised       1 where those are log-probabilities among each other, 0 where they are logits
    steps            by sequence of tokens: which options of which pick it takes
    words            by label: which sequences are its own
    plus, minus      by output: the label whose logit counts, and the one that is taken away
    scale, shift     what the outputs are multiplied with, and what is added to each then
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimexport_runtime.bundle import INPUTS

Rows = npt.NDArray[np.float32]

COLUMNS = 16  # of a matrix at once: a product that is no wider is never cut between threads
CORRECTION = "correction"
HIDDEN = -1e30
"""What hides a position from all queries: exp() of it is 0, and it is finite."""


@dataclass(frozen=True)
class Taken:
    """An input of a graph, float32 or int64. `shape` has a name for each dimension of any size."""

    dtype: str
    shape: tuple[int | str, ...]


TEXT: Mapping[str, Taken] = dict.fromkeys(INPUTS, Taken("int64", ("batch", "sequence")))
"""What every graph takes."""


def head_blocks(weight: Rows, bias: Rows) -> dict[str, Rows]:
    """A head [rows, hidden] and its bias [rows] as a graph takes them, in blocks of COLUMNS, the
    last of which is filled with zeros."""
    blocks = -(-len(bias) // COLUMNS)
    more = blocks * COLUMNS - len(bias)
    rows = np.pad(weight, ((0, more), (0, 0))).reshape(blocks, COLUMNS, weight.shape[1])
    return {
        "head_weight": np.ascontiguousarray(rows.transpose(0, 2, 1)),
        "head_bias": np.pad(bias, (0, more)).reshape(blocks, COLUMNS),
    }


def head_rows(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Rows, Rows]:
    """All rows of a head in blocks, those that fill the last block too: copies of the weight,
    float32 [rows, hidden], and of the bias, float32 [rows]."""
    weight = arrays["head_weight"].transpose(0, 2, 1)
    return weight.reshape(-1, weight.shape[2]).copy(), arrays["head_bias"].reshape(-1).copy()


def task_inputs(layers: Sequence[tuple[int, int]], hidden: int) -> dict[str, Taken]:
    """The inputs of a task.

    Args:
        layers: of each layer the number of its key/value heads, and their size.
        hidden: the width of the hidden states.
    """
    prefix = {}
    for place, (heads, size) in enumerate(layers):
        blocks = -(-size // COLUMNS) + 1
        prefix[f"prefix_key.{place}"] = _floats(heads, size, "prefix")
        prefix[f"prefix_value.{place}"] = _floats(heads, blocks, "prefix", COLUMNS)
    return {
        **prefix,
        "prefix_bias": _floats("prefix"),
        "prefix_count": _whole(1),
        "lead_ids": _whole(1, "lead"),
        "behind_ids": _whole(1, "behind"),
        "answer_at": _whole(1),
        "tree_seen": _whole("nodes", "nodes"),
        "tree_shift": _whole("nodes"),
        "picks": _whole("picks"),
        CORRECTION: _floats("picks", hidden),
        "head_weight": _floats("blocks", hidden, COLUMNS),
        "head_bias": _floats("blocks", COLUMNS),
        "finished": _whole("blocks", COLUMNS),
        "options": _whole("picks", "options"),
        "normalised": _floats("picks", 1),
        "steps": _whole("steps", "sequences"),
        "words": _whole("labels", "words"),
        "plus": _whole("outputs"),
        "minus": _whole("outputs"),
        "scale": _floats(1),
        "shift": _floats("outputs"),
    }


def _floats(*shape: int | str) -> Taken:
    return Taken("float32", shape)


def _whole(*shape: int | str) -> Taken:
    return Taken("int64", shape)
