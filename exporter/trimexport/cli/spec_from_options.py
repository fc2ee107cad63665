"""From the command line's options to the spec of a build."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from trimexport.errors import SpecError
from trimexport.prompt.template import unescape
from trimexport.source.families import holds_classifier
from trimexport.source.logit_score import read_logit_score
from trimexport.spec import (
    SOFTMAX,
    TENSORRT,
    BuildSpec,
    parse_names,
    parse_verbalizers,
    read_recipe,
)
from trimexport.spec.question import parse_questions

_READ: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("labels", "precision", "tensorrt"), parse_names),
    **dict.fromkeys(("prompt", "system"), unescape),
}
"""How the text of an option becomes the value of the spec's field of that name. An option that is
not here holds its value already."""


def make_spec(options: Mapping[str, Any], say: Callable[[str], None]) -> BuildSpec:
    """The spec that a command's options name.

    Args:
        options: those named after fields of `BuildSpec`, and `prompt_file`, `verbalize`, `recipe`
            and `tensorrt_onnx_only`; None, False and () mean not given, and so does none at all.
        say: tells what was filled in for the user.

    Raises:
        click.UsageError: options that do not go together, or none that names the labels.
        SpecError: see `spec`; labels that no prompt is known for, a revision of a directory.
        CheckpointError: the model is neither a directory nor a hub id.
    """
    given = _given(options)
    recipe = options.get("recipe")
    if recipe is None and "system" in given and "chat" not in given:
        raise click.UsageError("--system is the system turn of --chat; give both.")
    if recipe is None and "labels" not in given and not _may_have_labels(given.get("model")):
        raise click.UsageError("Missing option '--labels', for example --labels positive,negative.")
    if "model" in given:
        from trimexport.source.hub import local_directory  # here, so that help stays quick

        local_directory(given["model"])
    spec = _filled(given, say) if recipe is None else _overridden(read_recipe(recipe), given)
    if "revision" in given:
        _checked(spec)
    if options.get("tensorrt_onnx_only") and not spec.tensorrt:
        spec = replace(spec, tensorrt=TENSORRT)
    return spec


def make_bare_spec(options: Mapping[str, Any], say: Callable[[str], None]) -> BuildSpec:
    """The spec of a model without a task that a command's options name; arguments as in
    `make_spec`. What belongs to a task is in it where it is given.

    Raises:
        SpecError, CheckpointError: as `make_spec`.
    """
    from trimexport.source.hub import local_directory  # here, so that help stays quick
    from trimexport.source.shipped import NAME, shipped_checkpoint

    given = _given(options)
    if "model" in given:
        local_directory(given["model"])
    else:
        given["model"] = str(shipped_checkpoint())
        say(f"model: the {NAME} that ships")
    return _checked(BuildSpec(**given))


def _checked(spec: BuildSpec) -> BuildSpec:
    """A spec, unless it names a revision of a directory or file."""
    if spec.revision is not None and os.path.exists(spec.model):
        kind = "directory" if os.path.isdir(spec.model) else "file"
        raise SpecError(
            f"--revision {spec.revision} is given and {spec.model} is a {kind}; a revision "
            "belongs to a hub id, so drop it or name one with --model"
        )
    return spec


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec that the options name, and their values."""
    if options.get("prompt") is not None and options.get("prompt_file") is not None:
        raise click.UsageError("Give --prompt or --prompt-file, not both.")
    texts = {field.name: options.get(field.name) for field in fields(BuildSpec)}
    given = {
        name: _READ[name](text) if name in _READ else text
        for name, text in texts.items()
        if text is not None and text is not False and text != ()
    }
    if options.get("prompt_file") is not None:
        given["prompt"] = _read_prompt(options["prompt_file"])
    if texts["questions"]:
        given["questions"] = parse_questions([unescape(text) for text in texts["questions"]])
    if options.get("verbalize"):
        given["verbalizers"] = parse_verbalizers(options["verbalize"])
    return given


def _overridden(recipe: BuildSpec, given: Mapping[str, Any]) -> BuildSpec:
    """The recipe with what is given instead. Its revision, notice, adapter and tokenizer are its
    own model's, and its words are its own labels'."""
    other = given.get("model", recipe.model) != recipe.model
    dropped = dict.fromkeys(("revision", "notice", "adapter", "tokenizer") if other else ())
    labels = given.get("labels")
    words = {
        label: own for label, own in recipe.verbalizers.items() if labels is None or label in labels
    }
    words |= given.get("verbalizers", {})
    return replace(recipe, **{**dropped, **given, "verbalizers": words})


def _may_have_labels(model: str | None) -> bool:
    """Whether the model may be a fine-tuned classifier, or a reranker that sentence-transformers
    saved, which bring their labels. A hub id may be one: it is known when its configuration is
    downloaded. A GGUF file is none."""
    if model is None or os.path.isfile(model):
        return False
    if not os.path.isdir(model) or holds_classifier(Path(model)):
        return True
    return read_logit_score(Path(model)) is not None


def _filled(given: Mapping[str, Any], say: Callable[[str], None]) -> BuildSpec:
    """The spec with the checkpoint that ships where no model is given, and with its card's prompt
    for the labels where no prompt is; one line says what was taken."""
    from trimexport.prompt.verbalizer import check_labels
    from trimexport.source.prompts_file import prompt_for
    from trimexport.source.shipped import NAME, shipped_checkpoint

    labels, model, prompt = given.get("labels", ()), given.get("model"), given.get("prompt")
    directory = shipped_checkpoint() if model is None else Path(model)
    own_labels = os.path.isdir(directory) and holds_classifier(directory)
    if labels and not own_labels:
        check_labels(labels, given.get("score", SOFTMAX))
    asked = prompt is None and labels and not given.get("questions")
    if asked and os.path.isdir(directory) and not own_labels:
        prompt = prompt_for(directory, labels)
    if prompt is not None and (model is None or "prompt" not in given):
        named = f"the {NAME} that ships" if model is None else str(directory)
        say(f"model: {named}; prompt: {json.dumps(prompt, ensure_ascii=False, allow_nan=False)}")
    return BuildSpec(**{**given, "model": model or str(directory), "prompt": prompt})


def _read_prompt(path: Path) -> str:
    from trimexport_runtime.encoding import check_encoding  # here, so that help stays quick
    from trimexport_runtime.errors import InputError

    try:
        check_encoding(path.read_bytes(), f"the prompt file {path}")
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except InputError as error:
        raise SpecError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the prompt file {path} cannot be read: {error}") from None
