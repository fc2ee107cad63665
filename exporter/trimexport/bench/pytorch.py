"""The untrimmed model in PyTorch, as transformers loads it, with the whole prompt for every text.

Only a worker imports this. The token ids are the same as in the bundle's graph, so that a
comparison of the two is one of the models alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
from trimexport_runtime import read_manifest
from trimexport_runtime.batching import TOKEN_BUDGET, batches, rows_within
from trimexport_runtime.inputs import Input
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
        self._bias = bias_of(self._manifest)
        self._encoder = TextEncoder.load(self._bundle, self._manifest)
        self._trie = trie_of(self._manifest)
        self._fine_tuned = is_classifier(self._manifest.source.architecture)
        kind: Any = AutoModelForSequenceClassification if self._fine_tuned else AutoModelForCausalLM
        self._model = _load(kind, Path(model), getattr(torch, dtype)).eval()
        self._prompt = None if adapter is None else _merge(self._model, Path(model), Path(adapter))

    @torch.inference_mode()
    def labels(self, texts: Sequence[Input]) -> list[str]:
        """The label of each text. Texts of similar length run in one batch."""
        prompt, names = self._manifest.prompt, self._manifest.label_names
        score = self._manifest.score
        encoded = [self._encoder.encode(text).ids.tolist() for text in texts]
        rows = [[*prompt.prefix_ids, *ids, *prompt.suffix_ids] for ids in encoded]
        answers = [""] * len(rows)
        for batch in batches([len(row) for row in rows], rows_within(TOKEN_BUDGET)):
            logits = self._scores([rows[index] for index in batch]).double().numpy()
            shares = probabilities(scored(logits, self._manifest) + self._bias, score)
            for index, label in zip(batch, answers_by(shares, score).tolist(), strict=True):
                answers[index] = names[label]
        return answers

    def _scores(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The labels' scores, float32 [rows, labels]. The probabilities of a label's words are
        added; labels that are read whole take a sequence for each place where they part."""
        labels = self._manifest.labels
        if self._fine_tuned or self._manifest.fit is not None:
            return self._output(rows)
        if self._trie is None:
            logits = self._output(rows)
            tokens = [token for label in labels for token in label.token_ids]
            return combine_words(logits[:, tokens], [len(label.token_ids) for label in labels])
        begun = [self._trie.tokens_to(place) for place in self._trie.branches]
        logits = self._output([[*row, *more] for row in rows for more in begun])
        own = logits[:, list(itertools.chain(*self._trie.rows))].unflatten(0, (-1, len(begun)))
        return combine_words(
            sequence_scores(self._trie, own), [len(label.sequences) for label in labels]
        )

    def _output(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The output layer's or the fitted head's logits at each row's last token, [rows,
        vocabulary or labels]. Rows are padded to the left, so that this token stands last. Behind a
        trained prompt, rows of different lengths are read one by one: the padding would stand
        between the two, where a window counts it."""
        if self._prompt is not None and len(set(map(len, rows))) > 1:
            return torch.cat([self._output([row]) for row in rows])
        width = max(map(len, rows))
        ids = torch.zeros((len(rows), width), dtype=torch.int64)  # padding is masked
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, width - len(row) :] = torch.tensor(row)
            mask[place, width - len(row) :] = 1
        given = self._given(ids, mask)
        if self._fine_tuned or self._manifest.fit is not None:
            hidden = body_of(self._model)(**given).last_hidden_state[:, -1]
            if self._manifest.fit is not None:
                fitted = fitted_logits(self._bundle, self._manifest, hidden.float().numpy())
                return torch.from_numpy(fitted)
            return output_layer(self._model)(hidden)  # type: ignore[no-any-return]
        logits: torch.Tensor = self._model(logits_to_keep=1, **given).logits[:, -1]
        return logits.float()

    def _given(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        """What the model reads of rows of ids, int64 [rows, T], and of a trained prompt before
        them. `mask` is 0 where there is padding."""
        trained, rows = self._prompt, len(ids)
        if trained is not None:
            mask = torch.cat([mask.new_ones(rows, trained.tokens), mask], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        given = {"attention_mask": mask, "position_ids": places, "use_cache": False}
        if trained is None:
            return {**given, "input_ids": ids}
        if not trained.has_keys:
            own = self._model.get_input_embeddings()(ids)
            before = trained.embeddings().to(own.dtype).expand(rows, -1, -1)
            return {**given, "inputs_embeds": torch.cat([before, own], 1)}
        cache = DynamicCache()
        for layer, kept in enumerate(trained.keys_and_values()):
            keys, values = (each.to(self._model.dtype).expand(rows, -1, -1, -1) for each in kept)
            cache.update(keys, values, layer)
        behind = places[:, trained.tokens :]
        return {**given, "input_ids": ids, "position_ids": behind, "past_key_values": cache}


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
