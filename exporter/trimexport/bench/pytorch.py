"""The untrimmed model in PyTorch, as transformers loads it, with the whole prompt for every text.

Only a worker imports this. The token ids are the same as in the bundle's graph, so that a
comparison of the two is one of the models alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, DynamicCache

from trimexport.graph.classifier import combine_words
from trimexport.parity.reference import bias_of, fitted_logits, scored, sequence_scores, trie_of
from trimexport.source.adapter import merge_adapter
from trimexport.source.checkpoint import open_checkpoint, read_config
from trimexport.source.empty_model import (
    body_of,
    make_skeleton,
    output_layer,
    parameter_names,
    set_tensor,
)
from trimexport.source.families import family_of, is_classifier, reference_attention
from trimexport.source.gguf_place import is_gguf
from trimexport.source.trained_prompt import TrainedPrompt
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.batching import TOKEN_BUDGET, batches, rows_within
from trimexport_runtime.inputs import Input
from trimexport_runtime.questions import slices, views
from trimexport_runtime.score import answers as answers_by
from trimexport_runtime.score import probabilities
from trimexport_runtime.tokenize import TextEncoder


class Untrimmed:
    """The model that a bundle was made from, with the bundle's prompt and labels."""

    def __init__(
        self, bundle: str, model: str, dtype: str, threads: int | None, adapter: str | None = None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._bundle = Path(bundle)
        self._manifest = read_manifest(self._bundle)
        self._encoder = TextEncoder.load(self._bundle, self._manifest)
        self._fine_tuned = is_classifier(self._manifest.source.architecture)
        kind: Any = AutoModelForSequenceClassification if self._fine_tuned else AutoModelForCausalLM
        self._model = _load(kind, Path(model), getattr(torch, dtype)).eval()
        self._prompt = None if adapter is None else _merge(self._model, Path(model), Path(adapter))

    @torch.inference_mode()
    def labels(self, texts: Sequence[Input]) -> list[str]:
        """The label of each text, or the names of its labels for every question, each of which the
        model is asked by itself. Texts of similar length run in one batch."""
        encoded = [self._encoder.encode(text).ids.tolist() for text in texts]
        names = self._manifest.label_names
        found = [
            [names[columns.start + place] for place in self._answers(view, question, encoded)]
            for question, (view, columns) in enumerate(
                zip(views(self._manifest), slices(self._manifest), strict=True)
            )
        ]
        return ["; ".join(own) for own in zip(*found, strict=True)]

    def _answers(
        self, view: Manifest, question: int, encoded: Sequence[Sequence[int]]
    ) -> list[int]:
        """The place of each text's label among those of one question."""
        prompt, score = view.prompt, view.score
        rows = [[*prompt.prefix_ids, *ids, *prompt.suffix_ids] for ids in encoded]
        answers = [0] * len(rows)
        for batch in batches([len(row) for row in rows], rows_within(TOKEN_BUDGET)):
            own = [rows[index] for index in batch]
            logits = self._scores(view, question, own).double().numpy()
            shares = probabilities(scored(logits, view) + bias_of(view), score)
            for index, label in zip(batch, answers_by(shares, score).tolist(), strict=True):
                answers[index] = label
        return answers

    def _scores(self, view: Manifest, question: int, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The labels' scores, float32 [rows, labels]. The probabilities of a label's words are
        added; labels that are read whole take a sequence for each place where they part."""
        labels, trie = view.labels, trie_of(view)
        if view.fit is not None:
            fitted = fitted_logits(self._bundle, view, self._hidden(rows).float().numpy(), question)
            return torch.from_numpy(fitted)
        if self._fine_tuned:
            return output_layer(self._model)(self._hidden(rows))  # type: ignore[no-any-return]
        if trie is None:
            logits = self._output(rows)
            tokens = [token for label in labels for token in label.token_ids]
            return combine_words(logits[:, tokens], [len(label.token_ids) for label in labels])
        begun = [trie.tokens_to(place) for place in trie.branches]
        logits = self._output([[*row, *more] for row in rows for more in begun])
        own = logits[:, list(itertools.chain(*trie.rows))].unflatten(0, (-1, len(begun)))
        return combine_words(sequence_scores(trie, own), [len(label.sequences) for label in labels])

    def _output(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The output layer's logits at each row's last token, [rows, vocabulary]."""
        return self._last(
            rows, lambda given: self._model(**given, logits_to_keep=1).logits[:, -1].float()
        )

    def _hidden(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The last hidden state at each row's last token, [rows, hidden]."""
        body = body_of(self._model)
        return self._last(rows, lambda given: body(**given).last_hidden_state[:, -1])

    def _last(
        self, rows: Sequence[Sequence[int]], run: Callable[[dict[str, Any]], torch.Tensor]
    ) -> torch.Tensor:
        """What `run` makes of rows, [rows, n]. Behind a trained prompt only those of one length go
        together: with padding before them they would be further from it than a window reaches."""
        if self._prompt is None:
            return run(self._given(rows))
        by_length: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            by_length.setdefault(len(row), []).append(place)
        found: dict[int, torch.Tensor] = {}
        for places in by_length.values():
            results = run(self._given([rows[place] for place in places]))
            found.update(zip(places, results, strict=True))
        return torch.stack([found[place] for place in range(len(rows))])

    def _given(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What the model reads of rows of ids, and of a trained prompt before them."""
        ids, mask = _padded(rows)
        trained = self._prompt
        if trained is not None:
            mask = torch.cat([mask.new_ones(len(ids), trained.tokens), mask], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        given = {"attention_mask": mask, "position_ids": places, "use_cache": False}
        if trained is None:
            return {**given, "input_ids": ids}
        if not trained.has_keys:
            own = self._model.get_input_embeddings()(ids)
            before = trained.embeddings().to(own.dtype).expand(len(ids), -1, -1)
            return {**given, "inputs_embeds": torch.cat([before, own], 1)}
        cache = DynamicCache()
        for layer, kept in enumerate(trained.keys_and_values()):
            keys, values = (
                each.to(self._model.dtype).expand(len(ids), -1, -1, -1) for each in kept
            )
            cache.update(keys, values, layer)
        behind = places[:, trained.tokens :]
        return {**given, "input_ids": ids, "position_ids": behind, "past_key_values": cache}


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids, padded to the left, so that their last tokens stand last; and the mask of what
    is no padding. Both int64 [rows, T]."""
    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.int64)  # padding is masked
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row)
        mask[place, width - len(row) :] = 1
    return ids, mask


def _load(kind: Any, model: Path, dtype: torch.dtype) -> Any:
    """The model as transformers loads it; of a GGUF, with the parameters that a build reads."""
    if not is_gguf(model):
        return kind.from_pretrained(model, dtype=dtype)
    checkpoint = open_checkpoint(model, str(model), None)
    found = make_skeleton(checkpoint, reference_attention(checkpoint.config))
    names = parameter_names(found, checkpoint)
    read = {source: checkpoint.read(source).to(dtype) for source in set(names.values())}
    for name, source in names.items():
        set_tensor(found, name, read[source])
    return found


@torch.no_grad()
def _merge(model: Any, directory: Path, adapter: Path) -> TrainedPrompt | None:
    """Write the values that a build reads for the parameters that an adapter changes into the
    model. Returns the adapter's prompt, if it is one."""
    checkpoint = merge_adapter(
        open_checkpoint(directory, str(directory), None), adapter, str(adapter)
    )
    _, family = family_of(read_config(directory), str(directory))
    left = set(checkpoint.adapter.parameters) if checkpoint.adapter else set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        own = family.parameter_name(name)
        if own in left:
            parameter.copy_(checkpoint.read(own))
            left.remove(own)
    assert not left, f"the model has no {', '.join(sorted(left))}"
    return checkpoint.trained_prompt
