"""From the command line's options to the spec of a build."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from trimexport.errors import SpecError
from trimexport.prompt.template import unescape
from trimexport.source.families import holds_classifier
from trimexport.spec import TENSORRT, BuildSpec, parse_names, parse_verbalizers, read_recipe


@dataclass(frozen=True)
class Options:
    """What the user gave; None and () mean not given."""

    model: str | None
    revision: str | None
    labels: str | None
    prompt: str | None
    prompt_file: Path | None
    verbalize: Sequence[str]
    recipe: Path | None = None
    chat: bool = False
    system: str | None = None
    adapter: str | None = None
    precision: str | None = None
    tensorrt: str | None = None
    tensorrt_onnx_only: bool = False
    max_tokens: int | None = None
    truncate: str | None = None
    few_shot: Path | None = None
    shots: int | None = None
    seed: int | None = None


def make_spec(options: Options, say: Callable[[str], None]) -> BuildSpec:
    """The spec that the options name; `say` tells what was filled in for the user.

    Raises:
        click.UsageError: options that do not go together, or none that names the labels.
        SpecError: see `spec`; labels that no prompt is known for, a revision of a directory.
        CheckpointError: the model is neither a directory nor a hub id.
    """
    if options.prompt is not None and options.prompt_file is not None:
        raise click.UsageError("Give --prompt or --prompt-file, not both.")
    if options.system is not None and not options.chat and options.recipe is None:
        raise click.UsageError("--system is the system turn of --chat; give both.")
    if options.recipe is None and options.labels is None and not _may_have_labels(options.model):
        raise click.UsageError("Missing option '--labels', for example --labels positive,negative.")
    words = parse_verbalizers(options.verbalize)
    if options.model is not None:
        from trimexport.source.hub import local_directory  # here, so that help stays quick

        local_directory(options.model)
    if options.recipe is None:
        spec = _filled(options, words, say)
    else:
        spec = _overridden(read_recipe(options.recipe), options, words)
    if options.revision is not None and Path(spec.model).is_dir():
        raise SpecError(
            f"--revision {options.revision} is given and {spec.model} is a directory; a revision "
            "belongs to a hub id, so drop it or name one with --model"
        )
    if options.adapter is not None:
        spec = replace(spec, adapter=options.adapter)
    if options.precision is not None:
        spec = replace(spec, precision=parse_names(options.precision))
    if options.tensorrt is not None:
        spec = replace(spec, tensorrt=parse_names(options.tensorrt))
    elif options.tensorrt_onnx_only and not spec.tensorrt:
        spec = replace(spec, tensorrt=TENSORRT)
    if options.max_tokens is not None:
        spec = replace(spec, max_tokens=options.max_tokens)
    if options.truncate is not None:
        spec = replace(spec, truncate=options.truncate)
    return replace(
        spec,
        few_shot=options.few_shot or spec.few_shot,
        shots=spec.shots if options.shots is None else options.shots,
        seed=spec.seed if options.seed is None else options.seed,
    )


def _overridden(
    recipe: BuildSpec, options: Options, words: dict[str, tuple[str, ...]]
) -> BuildSpec:
    """The recipe with what the options say instead. Its revision and notice are its own model's,
    and its words are its own labels'."""
    template = _template(options)
    labels = recipe.labels if options.labels is None else parse_names(options.labels)
    kept = {
        label: own
        for label, own in recipe.verbalizers.items()
        if options.labels is None or label in labels
    }
    if options.model is not None and options.model != recipe.model:
        recipe = replace(recipe, model=options.model, revision=None, notice=None, adapter=None)
    return replace(
        recipe,
        revision=options.revision or recipe.revision,
        labels=labels,
        prompt=recipe.prompt if template is None else template,
        verbalizers={**kept, **words},
        chat=recipe.chat or options.chat,
        system=recipe.system if options.system is None else unescape(options.system),
    )


def _may_have_labels(model: str | None) -> bool:
    """Whether the model may be a fine-tuned classifier, which brings its labels; of a hub id that
    is known when its configuration is there."""
    return model is not None and (not os.path.isdir(model) or holds_classifier(Path(model)))


def _filled(
    options: Options, words: dict[str, tuple[str, ...]], say: Callable[[str], None]
) -> BuildSpec:
    """Take the checkpoint that ships where no model is named, and its card's prompt for the
    labels where no prompt is; say what was taken in one line."""
    from trimexport.prompt.verbalizer import check_labels
    from trimexport.source.prompts_file import prompt_for
    from trimexport.source.shipped import NAME, shipped_checkpoint

    labels = () if options.labels is None else parse_names(options.labels)
    if labels:
        check_labels(labels)
    model, template = options.model, _template(options)
    chosen = template
    directory = shipped_checkpoint() if model is None else Path(model)
    if template is None and directory.is_dir() and not holds_classifier(directory):
        chosen = prompt_for(directory, labels)
    if chosen is not None and (model is None or template is None):
        named = f"the {NAME} that ships" if model is None else str(directory)
        say(f"model: {named}; prompt: {json.dumps(chosen, ensure_ascii=False)}")
    return BuildSpec(
        model=model or str(directory),
        revision=options.revision,
        labels=labels,
        prompt=chosen,
        verbalizers=words,
        chat=options.chat,
        system=None if options.system is None else unescape(options.system),
    )


def _template(options: Options) -> str | None:
    """The prompt that the options give."""
    if options.prompt_file is not None:
        return _read_prompt(options.prompt_file)
    if options.prompt is None:
        return None
    return unescape(options.prompt)


def _read_prompt(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the prompt file {path} cannot be read: {error}") from None
