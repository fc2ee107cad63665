"""The heads of a pack that asks several questions: a fitted one for one of them, whose rows stand
beside the label words' that the other questions read.

A fitted head has blocks of rows of its own, and a pick of its own, at which nothing else is read:
its question's labels are sequences of one step there. What the label words' rows gave that question
is computed on and no longer read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimexport.graph.task_inputs import CORRECTION, head_blocks, head_rows
from trimexport_runtime import Manifest
from trimexport_runtime.questions import slices

from .pack_file import Arrays
from .question_heads import tree_of_bundle
from .tuned_pack import SHIFT
from .written_head import Head

Whole = npt.NDArray[np.int64]


def pack_question_head(arrays: Arrays, manifest: Manifest, question: int) -> tuple[int, Head]:
    """Which of a task's picks is the answer's to a question, by its place among the task's, and the
    head that reads it: the one that was fitted to it before, with a row for each of its labels, or
    that of all label words."""
    weight, bias = head_rows(arrays)
    if (rows := _fitted_rows(arrays, manifest, question)) is None:
        words = np.flatnonzero(arrays["finished"].reshape(-1))
        options = arrays["options"]
        rows = np.arange(int(options[options <= words[-1]].max()) + 1)  # the others fill a block
    return tree_of_bundle(manifest).answers[question], Head(weight[rows], bias[rows])


def with_question_head(
    arrays: Arrays, head: Head, manifest: Manifest, question: int
) -> dict[str, npt.NDArray[np.generic]]:
    """A task's arrays with another head for one question, whose calibration is gone. The logits of
    the other questions are what they were.

    Args:
        head: a row for each of the question's labels.
        question: its place among `manifest.questions`.
    """
    shift = np.array(arrays[SHIFT])
    shift[slices(manifest)[question]] = 0.0
    if (rows := _fitted_rows(arrays, manifest, question)) is None:
        return {**_widened(arrays, head, manifest, question), SHIFT: shift}
    weight, bias = head_rows(arrays)
    weight[rows], bias[rows] = head.weight, head.bias
    return {**arrays, **head_blocks(weight, bias), SHIFT: shift}


def _fitted_rows(arrays: Arrays, manifest: Manifest, question: int) -> Whole | None:
    """The rows of the head that was fitted to a question, None where it has none."""
    sequences = arrays["words"][slices(manifest)[question], 0]
    options, steps = arrays["options"], arrays["steps"][0, sequences]
    if steps.max() >= options.size:  # a label that is read whole begins below
        return None
    rows: Whole = options.reshape(-1)[steps]
    return None if arrays["finished"].reshape(-1)[rows].any() else rows


def _widened(
    arrays: Arrays, head: Head, manifest: Manifest, question: int
) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays with a pick more, blocks of rows for the head, and the question's labels there."""
    added = head_blocks(head.weight, head.bias)
    finished = np.zeros(added["head_bias"].shape, dtype=np.int64)
    answer = tree_of_bundle(manifest).answers[question]
    more = {
        name: np.concatenate([array, array[answer : answer + 1]])
        for name, array in arrays.items()
        if name in ("picks", CORRECTION) or name.endswith(f"/{CORRECTION}")
    }
    first = arrays["head_bias"].size
    return {
        **arrays,
        **more,
        **{name: np.concatenate([arrays[name], array]) for name, array in added.items()},
        "finished": np.concatenate([arrays["finished"], finished]),
        "normalised": np.concatenate([arrays["normalised"], np.zeros((1, 1), dtype=np.float32)]),
        **_read_there(arrays, first, first + finished.size, slices(manifest)[question]),
    }


def _read_there(
    arrays: Arrays, first: int, none: int, own: slice
) -> dict[str, npt.NDArray[np.int64]]:
    """Options, steps and words with a pick more, whose options are the rows from `first` on, one
    for each of a question's labels. `none` is the option that stands for no row."""
    labels = own.stop - own.start
    picks, wide = arrays["options"].shape
    width = max(wide, labels)
    options = np.full((picks + 1, width), none)
    options[:picks, :wide] = np.where(arrays["options"] == first, none, arrays["options"])
    options[picks, :labels] = first + np.arange(labels)
    old = arrays["steps"]
    nothing = options.size
    there = np.full((len(old), labels), nothing)
    there[0] = picks * width + np.arange(labels)
    moved = np.where(old == picks * wide, nothing, old // wide * width + old % wide)
    count = old.shape[1]
    words = np.where(arrays["words"] == count, count + labels, arrays["words"])
    words[own] = count + labels
    words[own, 0] = count + np.arange(labels)
    return {"options": options, "steps": np.concatenate([moved, there], axis=1), "words": words}
