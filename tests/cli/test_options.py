"""From options to a spec, where nothing is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from trimexport import BuildSpec, SpecError
from trimexport.cli.build import build
from trimexport.cli.spec_from_options import make_spec


def _spec(**given: object) -> BuildSpec:
    none = dict.fromkeys(("recipe", "model", "revision", "labels", "prompt", "prompt_file"))
    return make_spec({"verbalize": (), **none, **given}, lambda _: None)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_prompt_file_may_have_a_byte_order_mark(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(mark + b"Review: {text}\nSentiment:\n")
    spec = _spec(model="a/b", labels="x,y", prompt_file=path)
    assert spec.prompt == "Review: {text}\nSentiment:"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-32"])
def test_a_prompt_file_in_another_encoding_is_named(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("Review: {text}\nSentiment:\n".encode(codec))
    with pytest.raises(SpecError, match=rf"the prompt file {path} is {codec[:6].upper()}"):
        _spec(model="a/b", labels="x,y", prompt_file=path)


def test_every_option_that_names_a_build_is_a_field_of_a_spec() -> None:
    """One that is not would be given and never read."""
    names = {option.name for option in build.params}
    others = {
        "texts",
        "calibration",
        "keep",
        "output",
        "force",
        "as_json",
        "backbone",
    }  # what is done with the build
    read = {"recipe", "prompt_file", "verbalize", "tensorrt_onnx_only"}
    assert others | read <= names
    assert names - others - read <= {field.name for field in fields(BuildSpec)}


def test_what_is_zero_is_given(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "m"\nfew_shot = "f"\nshots = 2\nseed = 5', encoding="utf-8")
    assert _spec(recipe=recipe).seed == 5
    assert _spec(recipe=recipe, seed=0).seed == 0


def test_variants_for_tensorrt_are_the_recipe_s_own(tmp_path: Path) -> None:
    """`--tensorrt-onnx-only` asks for all where neither option nor recipe names some."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "m"', encoding="utf-8")
    assert _spec(recipe=recipe, tensorrt_onnx_only=True).tensorrt == ("fp16", "int8")
    assert _spec(recipe=recipe, tensorrt="int8", tensorrt_onnx_only=True).tensorrt == ("int8",)
    recipe.write_text('model = "m"\ntensorrt = ["fp16"]', encoding="utf-8")
    assert _spec(recipe=recipe, tensorrt_onnx_only=True).tensorrt == ("fp16",)


def test_a_hub_id_has_its_revision() -> None:
    spec = _spec(model="a/b", revision="v1", labels="x,y", prompt="{text}:")
    assert (spec.model, spec.revision) == ("a/b", "v1")
