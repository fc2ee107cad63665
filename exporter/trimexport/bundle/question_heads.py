"""The heads of a written graph that answers several questions: a fitted one in the place of what
one question's label words' rows give, and where its hidden states are.

A bias is added to the logits of all questions as to those of one, with `written_graph.add_bias`,
whose vector is then the questions' biases one after the other, zeros for those without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from trimexport.prompt.question_tree import Ending, QuestionTree, make_question_tree
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import OUTPUT, Label, Question
from trimexport_runtime.questions import slices

from .written_graph import CALIBRATION, check, rename_output, require_written
from .written_head import Head, hidden_name

_NAME = "question{}.{}"
_MADE = ("others", "rows", "by_text", "logits", "both")


def tree_of_bundle(manifest: Manifest) -> QuestionTree:
    """The tree of a bundle's questions, as its graphs have it."""
    return make_question_tree([_ending(question) for question in manifest.questions])


def _ending(question: Question) -> Ending:
    return Ending(question.suffix_ids, tuple(words_read(question.labels)))


def words_read(labels: Sequence[Label]) -> list[tuple[int, ...]]:
    """What is read of each word of a question's labels: whole sequences, or first tokens."""
    whole = [sequence for label in labels for sequence in label.sequences]
    return whole or [(token,) for label in labels for token in label.token_ids]


def read_question_head(model: onnx.ModelProto, question: int) -> Head | None:
    """The head that was fitted to a question, by its place among the bundle's, with a row for each
    of its labels; None where it has none."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight, bias = (tensors.get(_NAME.format(question, part)) for part in ("weight", "bias"))
    if weight is None or bias is None:
        return None
    return Head(numpy_helper.to_array(weight), numpy_helper.to_array(bias))


def put_question_head(
    model: onnx.ModelProto, head: Head, manifest: Manifest, question: int, rows: int
) -> None:
    """Let one question's logits be those of another head, which reads the hidden states at its
    answer's place (row `tree_of_bundle(manifest).answers[question]` of each text's).

    Requires: a graph of `manifest`, whose questions are several or one; no bias behind its logits
    (`written_graph.remove_bias` takes it away).
    Ensures: the logits of the other questions are what they were. A head that was fitted to the
    question before is replaced.

    Args:
        head: a row for each of the question's labels.
        question: its place among `manifest.questions`.
        rows: how many rows of hidden states the graph computes for each text, at least 2 (see
            `written_head.put_head`).

    Raises:
        ExportError: the graph has no head, or the result is not valid ONNX.
    """
    require_written(
        None if any(node.name == CALIBRATION for node in model.graph.node) else head,
        "logits without a bias",
    )
    if read_question_head(model, question) is not None:
        for part, value in (("weight", head.weight), ("bias", head.bias)):
            name = _NAME.format(question, part)
            (old,) = (it for it in model.graph.initializer if it.name == name)
            old.CopyFrom(numpy_helper.from_array(value, name))
    else:
        _write_question_head(model, head, manifest, question, rows)
    check(model)


def _write_question_head(
    model: onnx.ModelProto, head: Head, manifest: Manifest, question: int, rows: int
) -> None:
    """Write a question's head behind all others: its logits take the place of some columns."""
    tree, own = tree_of_bundle(manifest), slices(manifest)[question]
    count = len(manifest.labels)
    columns = [*range(own.start), *range(count, count + len(head.bias)), *range(own.stop, count)]
    values: dict[str, npt.NDArray[Any]] = {
        "weight": head.weight,
        "bias": head.bias,
        "shape": np.array([-1, rows, len(head.bias)], dtype=np.int64),
        "answer": np.array(tree.answers[question], dtype=np.int64),
        "columns": np.array(columns, dtype=np.int64),
    }
    names = {part: _NAME.format(question, part) for part in (*values, *_MADE)}
    graph, make = model.graph, onnx.helper.make_node
    hidden = hidden_name(model)
    rename_output(graph, OUTPUT, names["others"])
    graph.node.extend(
        [
            make("Gemm", [hidden, names["weight"], names["bias"]], [names["rows"]], transB=1),
            make("Reshape", [names["rows"], names["shape"]], [names["by_text"]]),
            make("Gather", [names["by_text"], names["answer"]], [names["logits"]], axis=1),
            make("Concat", [names["others"], names["logits"]], [names["both"]], axis=1),
            make("Gather", [names["both"], names["columns"]], [OUTPUT], axis=1),
        ]
    )
    graph.initializer.extend(
        numpy_helper.from_array(value, names[part]) for part, value in values.items()
    )
