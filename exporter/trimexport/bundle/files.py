"""The bundle's files besides the graph: what clients read, the manifest, the reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from trimexport.planning import Plan
from trimexport.prompt.tokenizer import text_tokenizer, tokenizer_config
from trimexport_runtime.bundle import (
    INDEPENDENT,
    MANIFEST,
    BundleFile,
    Manifest,
    Score,
    Variant,
    format_for,
    to_json,
)
from trimexport_runtime.integrity import sha256_of

from .planned_manifest import labels_of, prompt_of, questions_of, source_of
from .tokenizer_changes import changed
from .variants import SCHEMES

_TOOLS = ("trimexport", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "tokenizers")
_CONTEXT = "max_position_embeddings"
CONFIG = "config.json"
CLIENT_FILES = (CONFIG, "tokenizer.json", "tokenizer_config.json")
_JAVASCRIPT = "transformers.js_config"


def write_client_files(planned: Plan, variants: Sequence[Variant], work: Path) -> None:
    """Write the files that clients of ordinary sequence classifiers read: tokenizer and config."""
    config = classifier_config(
        _model_config(planned, planned.limit),
        planned.checkpoint.architecture,
        planned.labels[: planned.outputs],
        planned.score,
        variants,
    )
    files = {
        CONFIG: config,
        "tokenizer.json": planned.text_tokenizer,
        "tokenizer_config.json": tokenizer_config(
            planned.tokenizer, planned.limit, planned.text_limit.truncate
        ),
    }
    _write_files(files, work)


def _write_files(files: Mapping[str, Any], work: Path) -> None:
    for name, value in files.items():
        _write_json(work / name, value, indent=None if name == "tokenizer.json" else 2)


def classifier_config(
    model: Mapping[str, Any],
    architecture: str,
    labels: Sequence[str],
    score: Score,
    variants: Sequence[Variant],
) -> dict[str, Any]:
    """A model's configuration as that of a classifier with these labels, one for each logit."""
    return {
        **model,
        "architectures": [_classifier_architecture(architecture, model["model_type"])],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **_problem(score),
        _JAVASCRIPT: _transformers_js_config(variants),
    }


def turn_into_bundle(manifest: Manifest, tokenizer: Mapping[str, Any], work: Path) -> None:
    """Change a backbone's files in `work` to those of a bundle with this manifest.

    Args:
        tokenizer: what tokenizer.json has otherwise (see `tokenizer_changes`).
    """
    old = {name: json.loads((work / name).read_text(encoding="utf-8")) for name in CLIENT_FILES}
    limit = manifest.text_limit
    model = dict(old[CONFIG])
    context = [key for key in ("n_positions", _CONTEXT) if key in model]
    config = classifier_config(
        {**model, **dict.fromkeys(context, limit.tokens)},
        manifest.source.architecture,
        manifest.label_names[: manifest.outputs],
        manifest.score,
        manifest.variants,
    )
    settings = {
        **old["tokenizer_config.json"],
        "model_max_length": limit.tokens,
        "truncation_side": "left" if limit.truncate == "start" else "right",
    }
    files = {
        CONFIG: config,
        "tokenizer.json": changed(old["tokenizer.json"], tokenizer),
        "tokenizer_config.json": settings,
    }
    _write_files(files, work)


def write_backbone_files(planned: Plan, limit: int, work: Path) -> tuple[str, ...]:
    """Write the tokenizer, which writes nothing before a text, and the model's configuration.
    Returns the files' names.

    Args:
        limit: the most tokens of a task's prompt and text.
    """
    files = {
        CONFIG: _model_config(planned, limit),
        "tokenizer.json": text_tokenizer(planned.tokenizer, ""),
        "tokenizer_config.json": tokenizer_config(planned.tokenizer, limit, "end"),
    }
    _write_files(files, work)
    return tuple(files)


def _model_config(planned: Plan, limit: int) -> dict[str, Any]:
    """The model's own configuration, with the limit as its context."""
    source = planned.checkpoint.config
    # GPT-2 calls its context n_positions
    context = {source.attribute_map.get(_CONTEXT, _CONTEXT), _CONTEXT}
    own: dict[str, Any] = source.to_diff_dict()
    return {
        **own,
        **dict.fromkeys(context, limit),
        "pad_token_id": planned.tokenizer.pad_token_id,
    }


def _problem(score: Score) -> dict[str, str]:
    """What tells transformers' pipeline how the logits are read, unless that is a softmax over
    labels or the sigmoid of a single logit, which it knows by their number."""
    if score.kind == INDEPENDENT:
        return {"problem_type": "multi_label_classification"}
    return {} if score.sigmoid else {"problem_type": "regression"}


def _classifier_architecture(architecture: str, kind: str) -> str:
    """What transformers calls, or would call, a classifier of the model's family."""
    made = architecture.removesuffix("ForCausalLM") + "ForSequenceClassification"
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(kind, made)


def name_variants(variants: Sequence[Variant], work: Path) -> None:
    """Write into a bundle's `config.json` that these are its variants, the first one foremost."""
    path = work / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, {**config, _JAVASCRIPT: _transformers_js_config(variants)}, indent=2)


def _write_json(path: Path, value: object, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _transformers_js_config(variants: Sequence[Variant]) -> dict[str, Any]:
    """The settings that transformers.js cannot find out by itself: which variant to take unless one
    is named, and which graphs have a data file.

    transformers.js fetches the data file that is named after the graph and no other. A graph that
    needs another file too is left out, and a client has to name its files itself.
    """
    own = [
        Path(variant.graph).name
        for variant in variants
        if {file for file in variant.files if file.endswith("_data")} == {f"{variant.graph}_data"}
    ]
    return {
        "dtype": SCHEMES[variants[0].name].suffix.removeprefix("_"),
        "use_external_data_format": dict.fromkeys(own, True),
    }


def first_manifest(
    planned: Plan, variants: tuple[Variant, ...], work: Path, hashes: Mapping[str, str]
) -> Manifest:
    """The manifest of a bundle that was not measured yet.

    Args:
        work: the directory that holds the bundle's files.
        hashes: file -> SHA-256, of the files that were hashed while they were written.
    """
    files = dict.fromkeys(file for variant in variants for file in variant.files)
    names = (*CLIENT_FILES, *files)
    return manifest_of(
        planned, variants, tuple(bundle_file(work, name, hashes.get(name)) for name in names)
    )


def manifest_of(
    planned: Plan, variants: tuple[Variant, ...], files: tuple[BundleFile, ...]
) -> Manifest:
    """The manifest of what a plan says, with these variants and files."""
    prompt, score, questions = prompt_of(planned), planned.score, questions_of(planned)
    return Manifest(
        format_version=format_for(prompt, score, questions),
        labels=labels_of(planned),
        prompt=prompt,
        text_limit=planned.text_limit,
        pad_token_id=planned.tokenizer.pad_token_id,
        source=source_of(planned),
        variants=variants,
        files=files,
        tool_versions=tool_versions(),
        score=score,
        questions=questions,
    )


def tool_versions() -> dict[str, str]:
    """What a bundle is made with."""
    return {tool: version(tool) for tool in _TOOLS}


def bundle_file(work: Path, name: str, sha256: str | None = None) -> BundleFile:
    """What a manifest says of a file that is in the bundle's directory `work`; its hash is computed
    unless it is known."""
    path = work / name
    return BundleFile(name, path.stat().st_size, sha256 or sha256_of(path))


def save_manifest(manifest: Manifest, work: Path) -> None:
    (work / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
