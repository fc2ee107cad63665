"""From options to a spec, where nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimexport import BuildSpec
from trimexport.cli.spec_from_options import Options, make_spec


def _spec(**given: object) -> BuildSpec:
    none = dict.fromkeys(("recipe", "model", "revision", "labels", "prompt", "prompt_file"))
    return make_spec(Options(**{"verbalize": (), **none, **given}), lambda _: None)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_prompt_file_may_have_a_byte_order_mark(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(mark + b"Review: {text}\nSentiment:\n")
    spec = _spec(model="a/b", labels="x,y", prompt_file=path)
    assert spec.prompt == "Review: {text}\nSentiment:"


def test_a_hub_id_has_its_revision() -> None:
    spec = _spec(model="a/b", revision="v1", labels="x,y", prompt="{text}:")
    assert (spec.model, spec.revision) == ("a/b", "v1")
