"""The reference that every variant is compared with: the labels' logits by the untrimmed model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from trimexport.bundle.question_heads import read_question_head
from trimexport.bundle.written_graph import load_graph
from trimexport.bundle.written_head import read_head
from trimexport.graph.classifier import combine_words
from trimexport.graph.label_tree import LabelTree
from trimexport.model.layerwise import LayerwiseModel, Reference
from trimexport.prompt.label_trie import Trie, make_trie
from trimexport_runtime import Manifest
from trimexport_runtime.bundle import LOG_ODDS
from trimexport_runtime.questions import views

Number = TypeVar("Number", np.float32, np.float64)


@dataclass(frozen=True)
class LabelReference:
    """The untrimmed model's answers to n prompts.

    `logits` are float64 [n, outputs], what the bundle's score makes of the labels' logits, or of
    the log-probabilities of labels that are read whole. `trimmed` are the same by the cut head in
    place of the whole output layer, float32 [n, outputs]. `mass` is
    the probability of the labels' first tokens within the whole vocabulary, float64 [n]; None for
    a classifier whose output layer has labels alone.
    """

    logits: npt.NDArray[np.float64]
    mass: npt.NDArray[np.float64] | None
    trimmed: npt.NDArray[np.float32]


def label_reference(
    model: LayerwiseModel,
    manifest: Manifest,
    prompts: Sequence[tuple[int, ...]],
    tick: Callable[[int], None] = lambda done: None,
) -> LabelReference:
    """The untrimmed model's answers to whole prompts.

    Args:
        prompts: the token ids of each.
        tick: called with the number of sequences done since the last call: as many as there are
            prompts, times `sequences_per_prompt`.
    """
    trie = trie_of(manifest)
    if trie is None:
        found = _first_tokens(model, manifest, prompts, tick)
    else:
        found = _whole_labels(model, manifest, trie, prompts, tick)
    return replace(
        found, logits=scored(found.logits, manifest), trimmed=scored(found.trimmed, manifest)
    )


def scored(logits: npt.NDArray[Number], manifest: Manifest) -> npt.NDArray[Number]:
    """What the bundle's score makes of the labels' logits [n, labels]: [n, outputs], of the same
    type."""
    score = manifest.score
    if score.kind == LOG_ODDS:
        logits = logits[:, :1] - logits[:, 1:]
    return np.asarray(logits * score.scale + score.shift, dtype=logits.dtype)


def _first_tokens(
    model: LayerwiseModel,
    manifest: Manifest,
    prompts: Sequence[tuple[int, ...]],
    tick: Callable[[int], None],
) -> LabelReference:
    """The labels' logits where first tokens alone are read, before the score."""
    classifier = model.checkpoint.is_classifier
    tokens = [token for label in manifest.labels for token in label.token_ids]
    sizes = [len(label.token_ids) for label in manifest.labels]
    if classifier:
        tokens, sizes = list(range(len(manifest.labels))), [1] * len(manifest.labels)
    result = model.reference(prompts, tokens, tick)
    with torch.no_grad():
        trimmed = combine_words(model.cut_head(tokens)(result.hidden), sizes).numpy()
    return LabelReference(
        logits=combine_words(result.token_logits, sizes).double().numpy(),
        mass=None if classifier else _mass(result, range(len(tokens))),
        trimmed=trimmed,
    )


def trie_of(manifest: Manifest) -> Trie | None:
    """The trie of the labels' token sequences, or None where first tokens alone are read."""
    sequences = [sequence for label in manifest.labels for sequence in label.sequences]
    return make_trie(sequences) if sequences else None


def sequences_per_prompt(manifest: Manifest) -> int:
    """How many sequences the reference runs for each prompt: one for the prompt's end, and one for
    every other place where labels part. A fitted head reads the prompt's end alone."""
    trie = trie_of(manifest)
    return 1 if trie is None or manifest.fit is not None else len(trie.branches)


def sequence_scores(trie: Trie, logits: torch.Tensor) -> torch.Tensor:
    """The log-probability of each sequence of the trie, [n, sequences], from the logits of its
    rows at its branches, [n, branches, rows]."""
    chosen, start = [], 0
    for branch, tokens in enumerate(trie.rows):
        own = logits[:, branch, start : start + len(tokens)]
        chosen.append(own.log_softmax(1))
        start += len(tokens)
    steps = torch.cat(chosen, 1)
    return torch.stack([steps[:, list(path)].sum(1) for path in trie.paths], 1)


def _whole_labels(
    model: LayerwiseModel,
    manifest: Manifest,
    trie: Trie,
    prompts: Sequence[tuple[int, ...]],
    tick: Callable[[int], None],
) -> LabelReference:
    """The labels' log-probabilities where they are read whole, before the score. Without a trie in
    the graph, the model reads every prompt once with each beginning of a label behind it."""
    sizes = [len(label.sequences) for label in manifest.labels]
    first = sorted({token for label in manifest.labels for token in label.token_ids})
    rows = list(itertools.chain(*trie.rows))
    begun = [trie.tokens_to(place) for place in trie.branches]
    result = model.reference(
        [(*prompt, *more) for prompt in prompts for more in begun], [*rows, *first], tick
    )
    logits = result.token_logits.double().unflatten(0, (-1, len(begun)))
    with torch.no_grad():
        cut = model.cut_head(rows)(result.hidden).unflatten(0, (-1, len(begun)))
        trimmed = combine_words(LabelTree(trie).scores(cut), sizes).numpy()
    mass = _mass(result, range(len(rows), len(rows) + len(first)))
    return LabelReference(
        logits=combine_words(sequence_scores(trie, logits), sizes).numpy(),
        mass=mass.reshape(-1, len(begun))[:, 0],
        trimmed=trimmed,
    )


def _mass(result: Reference, tokens: range) -> npt.NDArray[np.float64]:
    """The probability of some columns of `token_logits` within the whole vocabulary, float64
    [n]."""
    logits = result.token_logits[:, tokens.start : tokens.stop]
    mass: npt.NDArray[np.float64] = (
        torch.exp(logits.logsumexp(1) - result.log_normaliser).double().numpy()
    )
    return mass


def tuned_reference(
    bundle: Path,
    model: LayerwiseModel,
    manifest: Manifest,
    prompts: Sequence[tuple[int, ...]],
    tick: Callable[[int], None] = lambda done: None,
    question: int = 0,
) -> LabelReference:
    """`label_reference`, with the bias or the fitted head that the bundle was given since it was
    built. A fitted head reads the untrimmed model's last hidden states and has no label mass.

    Args:
        manifest: of a bundle with one question, or of a question's view.
        prompts, tick: as in `label_reference`.
        question: which of the bundle's questions this is.
    """
    bias = bias_of(manifest)
    if manifest.fit is None:
        untuned = label_reference(model, manifest, prompts, tick)
        trimmed = untuned.trimmed + bias.astype(np.float32)
        return LabelReference(untuned.logits + bias, untuned.mass, trimmed)
    hidden = model.hidden_states(prompts, tick)
    logits = fitted_logits(bundle, manifest, hidden.numpy(), question) + bias.astype(np.float32)
    return LabelReference(logits.astype(np.float64), None, logits)


def all_references(
    bundle: Path,
    model: LayerwiseModel,
    manifest: Manifest,
    prompts: Sequence[Sequence[tuple[int, ...]]],
    tick: Callable[[int], None] = lambda done: None,
) -> LabelReference:
    """`tuned_reference` for each question, the logits one question after the other: the untrimmed
    model is asked each about every text, as if it were the only one. The label mass is the mean
    over the questions.

    Args:
        prompts: the token ids of each text with each question, by question.
        tick: as in `label_reference`; there are as many sequences as `all_sequences` says for each
            text.
    """
    found = [
        tuned_reference(bundle, model, view, own, tick, question)
        for question, (view, own) in enumerate(zip(views(manifest), prompts, strict=True))
    ]
    masses = [reference.mass for reference in found if reference.mass is not None]
    return LabelReference(
        logits=np.concatenate([reference.logits for reference in found], axis=1),
        mass=np.mean(masses, axis=0) if masses else None,
        trimmed=np.concatenate([reference.trimmed for reference in found], axis=1),
    )


def all_sequences(manifest: Manifest) -> int:
    """How many sequences the reference runs for each text: those of every question."""
    return sum(map(sequences_per_prompt, views(manifest)))


def bias_of(manifest: Manifest) -> npt.NDArray[np.float64]:
    """The bias that calibration added to the logits, float64 [outputs]; zeros without one."""
    calibration = manifest.calibration
    return np.zeros(manifest.outputs) if calibration is None else np.array(calibration.bias)


def fitted_logits(
    bundle: Path, manifest: Manifest, hidden: npt.NDArray[np.float32], question: int = 0
) -> npt.NDArray[np.float32]:
    """The logits of a fitted head for hidden states [n, hidden], float32 [n, labels]: of one of the
    questions, or of the only one. The head is the same in every graph."""
    graph = load_graph(bundle / manifest.variants[0].graph)
    head = read_question_head(graph, question) or read_head(graph)
    return hidden @ head.weight.T + head.bias
