"""The mean error of a variant's last hidden states, which is added back before the head.

Quantisation moves the last hidden states of all texts in much the same way, because the same tokens
stand behind every text: of int8's error on Gemma 3 270M two thirds, by the norm, are its mean. Such
a shift makes wrong all answers that are close to call on one side. Its mean over calibration texts
is a constant, and adding it back costs one addition (bias correction: Nagel et al. 2019,
arXiv:1906.04721, who do so behind every layer). The head is as it was, so one that is fitted later
reads corrected states too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimexport.quantize.calibration import Calibration
from trimexport_runtime.batching import TOKEN_BUDGET, batches, rows_within

from .part_by_part import Feed, cut, feed_of, run_by_parts
from .written_graph import load_graph
from .written_head import add_to_hidden, hidden_name

Floats = npt.NDArray[np.float32]

SEQUENCES = 64  # that the untrimmed model reads at most, if that leaves LEAST texts
LEAST = 8


@dataclass(frozen=True)
class Expected:
    """What the head should read: the untrimmed model's last hidden states, float32 [texts, rows,
    hidden]; and the tokens of the texts themselves. Rows are the places where labels part."""

    hidden: Floats
    texts: tuple[npt.NDArray[np.int64], ...]


def expected_states(calibration: Calibration) -> Expected:
    """Let the untrimmed model read calibration texts, some from all over them."""
    planned = calibration.planned
    trie, prompt = planned.trie, planned.prompt
    begun = [()] if trie is None else [trie.tokens_to(place) for place in trie.branches]
    most = max(LEAST, SEQUENCES // len(begun))
    every = [ids for ids in calibration.ids if ids]
    places = np.linspace(0, len(every) - 1, min(most, len(every))).astype(int)
    whole = [every[place] for place in places]
    sequences = [(*ids, *more) for ids in whole for more in begun]
    hidden = calibration.states(sequences).numpy()
    before, behind = len(prompt.prefix_ids), len(prompt.suffix_ids)
    return Expected(
        hidden=hidden.reshape(len(whole), len(begun), -1),
        texts=tuple(np.array(ids[before : len(ids) - behind], dtype=np.int64) for ids in whole),
    )


def correct(
    graph: Path,
    expected: Expected,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Let a written graph add what its hidden states lack on average; its data lies beside it.

    Args:
        progress: called with the number of texts done since the last call.

    Raises:
        ExportError: the graph has no head.
    """
    model = load_graph(graph)
    add_to_hidden(model, mean_error(graph, expected, hidden_name(model)))
    progress(len(expected.texts))
    graph.write_bytes(model.SerializeToString())


def mean_error(
    graph: Path, expected: Expected, hidden: str, task: Feed | None = None
) -> npt.NDArray[np.float64]:
    """What a written graph's hidden states lack on average, float64 [rows, hidden].

    Args:
        hidden: the value that holds them.
        task: further inputs of a graph without a task.
    """
    lacked: npt.NDArray[np.float64] = (
        expected.hidden - states_of(graph, expected, hidden, task or {})
    ).mean(axis=0, dtype=np.float64)
    return lacked


def states_of(graph: Path, expected: Expected, hidden: str, task: Feed) -> Floats:
    """The hidden states of a written graph for the expected ones' texts, float32 [texts, rows,
    hidden]; arguments as in `mean_error`."""
    texts, rows = expected.texts, expected.hidden.shape[1]
    groups = batches([len(ids) for ids in texts], rows_within(TOKEN_BUDGET))
    pieces = cut(graph, hidden)
    found = np.empty_like(expected.hidden)
    feeds = [{**feed_of([texts[place] for place in group]), **task} for group in groups]
    for group, states in zip(groups, run_by_parts(pieces, feeds), strict=True):
        # A head with one row for each text has copies of it.
        found[group] = states.reshape(len(group), -1, states.shape[-1])[:, :rows]
    return found
