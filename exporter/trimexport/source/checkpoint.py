"""A checkpoint on disk: its configuration, and its tensors, which are read one at a time from
safetensors files (see `tensor_files`) or a GGUF file (see `gguf_header`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from trimexport.errors import CheckpointError, UnsupportedError, reason_of

from .families import (
    SUPPORTED,
    Family,
    context_of,
    family_of,
    is_classifier,
    read_rope_parameters,
    text_config,
)
from .gguf_blocks import GgufEntry, read_gguf_entry
from .gguf_config import gguf_config
from .gguf_header import gguf_sha256, read_gguf_header
from .gguf_names import gguf_tensors
from .gguf_place import is_gguf
from .json_file import read_json_object
from .low_rank import Adapter
from .tensor_files import TensorEntry, check_sizes, read_entry, read_header, require_finite
from .trained_prompt import TrainedPrompt
from .weight_files import weight_files

_TRANSFORMERS = int(transformers.__version__.partition(".")[0])
# Output layers of transformers' decoders for labels of texts, of tokens and of spans.
_OTHER_HEAD = re.compile(r"(score|classifier|qa_outputs)\.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A model's directory or GGUF file, opened. Holds no weights.

    `directory` is where the model is: of a GGUF the file, the first of several. `model` is the
    user's name for it. `config` is the language model's own configuration. `tensors` have the names
    of its parameters, whatever the checkpoint calls them. `adapter` is merged into the tensors as
    they are read.
    """

    directory: Path
    model: str
    revision: str | None
    config: PretrainedConfig
    architecture: str
    tensors: Mapping[str, TensorEntry]
    adapter: Adapter | None = None

    @property
    def config_sha256(self) -> str:
        """The hash of config.json, or of a GGUF's header and samples of its tensors, by which
        another model is noticed."""
        if is_gguf(self.directory):
            return gguf_sha256(read_gguf_header(self.directory))
        return hashlib.sha256((self.directory / "config.json").read_bytes()).hexdigest()

    @property
    def bytes(self) -> int:
        """The size of all tensors on disk."""
        return sum(entry.bytes for entry in self.tensors.values())

    @property
    def files(self) -> frozenset[Path]:
        """The files that the weights are read from, with the adapter's."""
        files = {entry.file for entry in self.tensors.values()}
        if self.adapter is not None:
            files |= {change.a.file for change in self.adapter.changes.values()}
        if self.trained_prompt is not None:
            files.add(self.trained_prompt.entry.file)
        return frozenset(files)

    @property
    def trained_prompt(self) -> TrainedPrompt | None:
        """The adapter's prompt, which the model reads before every other."""
        return None if self.adapter is None else self.adapter.prompt

    @property
    def virtual_tokens(self) -> int:
        """How many positions the trained prompt takes."""
        return 0 if self.trained_prompt is None else self.trained_prompt.tokens

    @property
    def answers_before_padding(self) -> bool:
        """Whether transformers takes the answer at the last token that is not the padding token. It
        does of a classifier, unless it is given trained embeddings, where it knows no ids."""
        trained = self.trained_prompt
        return self.is_classifier and (trained is None or trained.has_keys)

    @property
    def context(self) -> int:
        """The longest sequence that the model takes, in tokens."""
        return context_of(self.config)

    @property
    def is_classifier(self) -> bool:
        """Whether the model was fine-tuned as a classifier, with an output layer for labels."""
        return is_classifier(self.architecture)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens of the vocabulary with which the model ends an answer, by config.json and
        generation_config.json.

        Raises:
            CheckpointError: generation_config.json is damaged.
        """
        path = self.directory / "generation_config.json"
        generation = read_json_object(path, "download it again") if path.exists() else {}
        ids: list[object] = []
        for value in (getattr(self.config, "eos_token_id", None), generation.get("eos_token_id")):
            ids += value if isinstance(value, list) else [value]
        vocabulary = range(self.config.vocab_size)
        return tuple(dict.fromkeys(i for i in ids if isinstance(i, int) and i in vocabulary))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """The rows `start` to `stop` of tensor `name`, or all of them, as float32 with the
        adapter's change added.

        Raises:
            CheckpointError: the file is gone or ends early, its dtype is not supported, or a number
                is not finite.
        """
        entry = self.tensors[name]
        if isinstance(entry, GgufEntry):
            block = read_gguf_entry(entry, name, start, stop)
        else:
            block = read_entry(entry, name, start, stop)
        require_finite(block, name, entry, start)
        change = None if self.adapter is None else self.adapter.changes.get(name)
        if change is not None:
            block += change.rows(name, start, start + len(block))
            advice = "the adapter changes it beyond float32: take an earlier state of the adapter"
            require_finite(block, name, change.a, start, advice)
        return block

    def read_rows(self, name: str, rows: Sequence[int]) -> torch.Tensor:
        """Rows of tensor `name` in the given order, float32 [len(rows), ...]."""
        parts = [self.read(name, row, row + 1) for row in rows]
        return torch.cat(parts) if parts else self.read(name, 0, 0)


def open_checkpoint(directory: Path, model: str, revision: str | None) -> Checkpoint:
    """Open the checkpoint in `directory`, or the GGUF file of that name.

    Args:
        model: the user's name for it.
        revision: the revision of a hub id, if the user gave one.

    Raises:
        CheckpointError: the directory, its configuration or a weight file is missing or damaged.
        UnsupportedError: an architecture that is not supported.
    """
    if is_gguf(directory):
        return _open_gguf(directory, model)
    raw = read_config(directory)
    architecture, family = family_of(raw, model)
    stored = _stored(directory, architecture, family)
    check_sizes(raw, stored, directory)
    try:
        whole = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        config = _language_model(whole)
    except Exception as error:  # a configuration's own checks may raise anything
        raise CheckpointError(
            f"{directory}/config.json cannot be read as a transformers configuration: "
            f"{reason_of(error)}; download it again"
        ) from None
    _check_kind(architecture, whole, model)
    renamed = ((family.parameter_name(name), entry) for name, entry in stored.items())
    tensors = {name: entry for name, entry in renamed if name is not None}
    return Checkpoint(directory, model, revision, config, architecture, tensors)


def _stored(directory: Path, architecture: str, family: Family) -> dict[str, TensorEntry]:
    """The tensors of a checkpoint's safetensors files, as they are called there."""
    stored: dict[str, TensorEntry] = {}
    for file in weight_files(directory):
        entries = read_header(file)
        _refuse_other_head(entries, architecture, family, directory)
        stored.update(entries)
    return stored


def _open_gguf(file: Path, model: str) -> Checkpoint:
    """Open the checkpoint in a GGUF file."""
    header = read_gguf_header(file)
    raw = gguf_config(header)
    check_sizes(raw, header.tensors, header.file)
    try:
        config = _language_model(AutoConfig.for_model(**raw))
    except Exception as error:  # whatever a configuration's own checks raise, it is at fault
        raise CheckpointError(
            f"the metadata of {file} make no transformers configuration: {reason_of(error)}; take "
            "a file that llama.cpp's conversion wrote"
        ) from None
    tensors = gguf_tensors(header, config)
    return Checkpoint(header.file, model, None, config, raw["architectures"][0], tensors)


def _language_model(whole: PretrainedConfig) -> PretrainedConfig:
    """The language model's part of a configuration, the same with transformers 4 and 5."""
    config: PretrainedConfig = text_config(whole)
    if _TRANSFORMERS < 5:
        read_rope_parameters(config)
    if config.num_hidden_layers < 1:
        raise ValueError("num_hidden_layers is less than 1")
    if getattr(config, "pad_token_id", None) not in range(config.vocab_size):
        config.pad_token_id = None  # as no token is, padding (-1, or one beyond the embedding)
    return config


def _check_kind(architecture: str, config: PretrainedConfig, model: str) -> None:
    """Raise UnsupportedError if transformers has no such class, or if `architectures` and
    `model_type`, by which transformers chooses the class, name different families."""
    if not hasattr(transformers, architecture):
        raise UnsupportedError(
            f"{model} is a {architecture}, which transformers {transformers.__version__} has not; "
            "install the newest version that this release was tested with"
        )
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if is_classifier(architecture):
        names = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if names.get(config.model_type) != architecture:
        raise UnsupportedError(
            f"config.json of {model} names {architecture} and model_type {config.model_type}, "
            f"which is another family; supported are {', '.join(SUPPORTED)}"
        )


def _refuse_other_head(
    entries: Mapping[str, TensorEntry], architecture: str, family: Family, directory: Path
) -> None:
    """Raise UnsupportedError if a language model's checkpoint holds the output layer of another
    task. It was trained to answer with that layer, which a build would leave out."""
    heads = [name for name in entries if _OTHER_HEAD.fullmatch(name)]
    if is_classifier(architecture) or not heads:
        return
    name, shape = heads[0], list(entries[heads[0]].shape)
    meant = ""
    if name.startswith("score.") and family.classifiers:
        meant = (
            f'if that one is meant, write "architectures": ["{family.classifiers[0]}"] and its '
            "labels, as id2label, into config.json; "
        )
    raise UnsupportedError(
        f"{directory} is a {architecture} by its config.json and holds {name} {shape}, the trained "
        f"output layer of another task, which would be left out; {meant}if the language model is "
        'meant, save it alone: python -c "from transformers import AutoModelForCausalLM as M; '
        f"M.from_pretrained('{directory}').save_pretrained('{directory}-lm')\" and copy the "
        "tokenizer's files too"
    )


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json, or what a GGUF file has instead.

    Raises:
        CheckpointError: it is missing or no JSON object; as `gguf_config`.
    """
    if is_gguf(directory):
        return gguf_config(read_gguf_header(directory))
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory} does not exist; --model takes a directory with config.json, "
            "safetensors and a tokenizer, or a hub id such as google/gemma-2b"
        )
    try:
        return read_json_object(directory / "config.json", "download it again")
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory} has no config.json; --model takes the directory that "
            "`save_pretrained` or `hf download` wrote"
        ) from None
