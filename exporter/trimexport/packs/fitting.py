"""Whether a task fits a backbone: its spec, its checkpoint, its tokens."""

from __future__ import annotations

from dataclasses import replace

from trimexport.errors import CheckpointError, SpecError
from trimexport.planning import Plan
from trimexport.prompt.tokenizer import text_tokenizer
from trimexport.source.adapter_config import read_settings
from trimexport.source.hub import locate_adapter
from trimexport.spec import LAST, BuildSpec
from trimexport_runtime.backbone_manifest import BackboneManifest

_LEFT_TO_MERGES = {"\u2581"}


def spec_of(spec: BuildSpec, backbone: BackboneManifest) -> BuildSpec:
    """A task's spec with what the backbone decides: adapter, tokenizer and the longest row.

    Raises:
        SpecError: the spec asks for something else.
        CheckpointError, HubError: its adapter cannot be read.
    """
    source = backbone.source
    check_whole_model(spec)
    if spec.adapter is not None and source.adapter is not None:
        raise SpecError(
            f"the backbone has {source.adapter} merged into it, so another adapter was not trained "
            f"on it; write the pack for a backbone without one, or drop --adapter {spec.adapter}"
        )
    if spec.adapter is not None:
        _refuse_lora(spec.adapter)
    for name, given in (("tokenizer", spec.tokenizer), ("tensorrt", spec.tensorrt)):
        if given:
            raise SpecError(
                f"{name} is given for a pack, and it is the backbone's; drop it, or build another "
                "backbone"
            )
    if spec.max_tokens is not None and spec.max_tokens > backbone.limit:
        raise SpecError(
            f"max-tokens is {spec.max_tokens}, and the backbone takes up to {backbone.limit} "
            "tokens; give that or less"
        )
    return replace(
        spec,
        adapter=spec.adapter or source.adapter,
        tokenizer=source.tokenizer,
        max_tokens=spec.max_tokens or backbone.limit,
    )


def check_whole_model(spec: BuildSpec) -> None:
    """Refuse a head behind fewer layers, or one that reads a mean, which no backbone has.

    Raises:
        SpecError: the spec asks for one.
    """
    wanted = [f"layers {spec.layers}"] * (spec.layers is not None)
    wanted += [f'pool "{spec.pool}"'] * (spec.pool != LAST)
    if wanted:
        raise SpecError(
            f"{' and '.join(wanted)} cannot be had with a backbone, which runs all of its model's "
            "layers and whose tasks read the prompt's last hidden state; drop that, or build a "
            "bundle of the task, which `trimexport fit --depth --pool` cuts too"
        )


def _refuse_lora(adapter: str) -> None:
    """Refuse an adapter that is no trained prompt but changes the model's weights."""
    if str(read_settings(locate_adapter(adapter)).get("peft_type")).upper() == "LORA":
        raise SpecError(
            "LoRA changes the backbone, and a pack goes with the backbone as it is; merge the "
            f"adapter into one with `trimexport build --backbone --adapter {adapter}`, and write "
            "the pack for that"
        )


def check_same_model(planned: Plan, backbone: BackboneManifest) -> None:
    """Refuse a checkpoint that is not the one that the backbone was made from.

    Raises:
        CheckpointError: it is another.
    """
    checkpoint, source = planned.checkpoint, backbone.source
    if checkpoint.config_sha256 != source.config_sha256:
        raise CheckpointError(
            f"{checkpoint.directory} is not the checkpoint that the backbone was made from "
            f"({source.model}): its config.json differs; name the right one with --model, or "
            "build a backbone of this one"
        )
    adapter = checkpoint.adapter
    if checkpoint.trained_prompt is not None:
        return
    if source.adapter_sha256 != (None if adapter is None else adapter.sha256):
        raise CheckpointError(
            f"{source.adapter} is not the adapter that was merged into the backbone: its files "
            "differ; build the backbone again"
        )


def check_tokens(planned: Plan) -> None:
    """Refuse a prompt with control tokens that the backbone's tokenizer would find in texts.

    Raises:
        SpecError: it has some.
    """
    own = {it["content"] for it in planned.text_tokenizer["added_tokens"]}
    bare = text_tokenizer(planned.tokenizer, "")["added_tokens"]
    more = [it["content"] for it in bare if it["content"] not in own]
    if steering := [content for content in more if set(content) != _LEFT_TO_MERGES]:
        raise SpecError(
            f"the prompt steers the model with {', '.join(map(repr, steering))}, which the "
            "backbone's tokenizer reads in texts too; build a bundle of this task, whose tokenizer "
            "does not"
        )
