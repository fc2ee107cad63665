"""A build of which one variant loses the answers: the others stay, and it is named. The model's
weights are planted so that four bits do not hold them and eight do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import tiny
from trimexport import (
    BuildSpec,
    ParityError,
    PartialBuildError,
    SpecError,
    Texts,
    build,
    verify,
)
from trimexport.bundle.drop import drop_variants
from trimexport.cli import main
from trimexport.parity.report import NotRun
from trimexport.parity.verdict import failures, require
from trimexport.source.shipped import sample_texts
from trimexport_runtime import Classifier, Manifest, check_files, read_manifest
from trimexport_runtime.bundle import Engine
from trimexport_runtime.render import info_json, info_text

FACTOR = 18
READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def plant(tensors: dict[str, torch.Tensor]) -> None:
    """Make one input channel of each matrix `FACTOR` times as large, and what it multiplies as
    much smaller. The function stays, and the steps of codes are as wide as that channel asks."""
    for layer in range(2):
        for norm, readers in READERS.items():
            base = f"model.layers.{layer}."
            gain = tensors[f"{base}{norm}.weight"]
            gain[5] = (1 + gain[5]) / FACTOR - 1
            for reader in readers:
                tensors[f"{base}{reader}.weight"][:, 5] *= FACTOR


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint."""
    model = shutil.copytree(tiny.tiny_model(), tmp_path_factory.mktemp("planted") / "model")
    tiny.edit_tensors(model, plant)
    return model


def _spec(model: Path, *precision: str) -> BuildSpec:
    return BuildSpec(
        model=str(model),
        labels=("positive", "negative"),
        prompt=tiny.PROMPT,
        precision=precision,
    )


@pytest.fixture(scope="module")
def failed(planted: Path) -> PartialBuildError:
    """What a build raises whose first variant fails."""
    with pytest.raises(PartialBuildError) as caught:
        build(_spec(planted, "int4", "fp32", "int8"), planted.with_name("bundle"))
    return caught.value


@pytest.fixture(scope="module")
def kept(planted: Path) -> Path:
    """The bundle of the same build, which keeps it all the same."""
    spec = _spec(planted, "int4", "fp32", "int8")
    return build(spec, planted.with_name("kept"), keep=("int4", "int8")).directory


def _names(manifest: Manifest) -> list[str]:
    return [variant.name for variant in manifest.variants]


def _check_whole(bundle: Path, manifest: Manifest) -> None:
    """Files and hashes are those of the manifest, there is no other, and every variant runs."""
    check_files(bundle, manifest, hashes=True)
    others = {"trimexport.json", "README.md", "reports/parity.html"}
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    engines = {variant.engine.file for variant in manifest.variants if variant.engine}
    assert {entry.path for entry in manifest.files} == files - others - engines
    needed = {file for variant in manifest.variants for file in variant.files}
    assert {path for path in files if path.startswith("onnx/")} == needed
    first = manifest.variants[0]
    assert (bundle / "onnx/model.onnx").read_bytes() == (bundle / first.graph).read_bytes()
    for variant in manifest.variants:
        tiny.check_size(bundle, variant)
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    names = {"fp32": "fp32", "int8": "int8", "int4": "q4"}
    assert config["transformers.js_config"]["dtype"] == names[first.name]


def _logits(bundle: Path, variant: str) -> np.ndarray:
    return Classifier.load(bundle, variant=variant).logits(list(tiny.TEXTS))


def test_what_passes_is_kept(failed: PartialBuildError, kept: Path) -> None:
    bundle = failed.built.directory
    assert failed.dropped == ("int4",)
    assert _names(failed.built.manifest) == ["fp32", "int8"]
    assert failed.built.manifest == read_manifest(bundle)
    assert not any(variant.outside_tolerance for variant in failed.built.manifest.variants)
    assert failed.built.manifest.variant("fp32").graph == "onnx/model.onnx"
    _check_whole(bundle, failed.built.manifest)
    for variant in ("fp32", "int8"):
        assert np.array_equal(_logits(bundle, variant), _logits(kept, variant))
    report = verify(bundle, sample=Texts(tiny.TEXTS))
    assert [variant.name for variant in report.variants] == ["fp32", "int8"]
    require(report)


def test_data_that_variants_share_counts_by_what_each_reads(kept: Path) -> None:
    """int4 and int8 look tokens up in one table, and neither has the other's matrices."""
    manifest = read_manifest(kept)
    sizes = {file.path: file.bytes for file in manifest.files}
    four, _, eight = manifest.variants
    (shared,) = {it for it in four.files if it.endswith("_data")} & set(eight.files)
    assert sizes[shared] > 8000 * 32  # the table
    for variant in (four, eight):
        tiny.check_size(kept, variant)
    whole = sizes[eight.graph] + sum(sizes[it] for it in eight.files if it.endswith("_data"))
    assert 8000 * 32 < eight.bytes < whole - 10_000


def test_what_failed_is_named(failed: PartialBuildError) -> None:
    first, second, *_, doubt, last = str(failed).splitlines()
    assert first == f"{failed.built.directory} holds fp32, int8, without int4:"
    assert second.startswith("variant int4 is outside its tolerance: label agreement ")
    assert "; allowed: 92.20% or more), margin error " in second
    assert second.endswith("; allowed: under 0.25)")
    assert "  text " in str(failed)
    assert "these texts cannot judge" in doubt
    assert last == "judge by other texts with --texts, or keep it all the same with --keep int4"
    assert _measured(failed) == {"int4": False, "fp32": True, "int8": True}
    card = (failed.built.directory / "README.md").read_text(encoding="utf-8")
    page = (failed.built.directory / "reports/parity.html").read_text(encoding="utf-8")
    for text in (card, page):
        assert "fp32" in text
        assert "int4" not in text


def _measured(failed: PartialBuildError) -> dict[str, bool]:
    return {variant.name: variant.within for variant in failed.built.report.variants}


def test_a_variant_that_is_kept_all_the_same_is_marked(kept: Path) -> None:
    manifest = read_manifest(kept)
    marks = {variant.name: variant.outside_tolerance for variant in manifest.variants}
    assert marks == {"int4": True, "fp32": False, "int8": False}, "int8 is within"
    parity = manifest.variant("int4").parity
    assert parity is not None
    assert parity.margin_error is not None
    assert parity.margin_error > 0.5 > parity.margin_error_tolerance == 0.25
    _check_whole(kept, manifest)
    (line,) = [it for it in info_text(kept, manifest, checked=False).splitlines() if "int4:" in it]
    assert line.endswith("; OUTSIDE ITS TOLERANCE, kept")
    info = json.loads(info_json(kept, manifest, checked=False))
    assert [it["outside_tolerance"] for it in info["variants"]] == [True, False, False]
    for name in ("README.md", "reports/parity.html"):
        text = (kept / name).read_text(encoding="utf-8")
        assert "OUTSIDE, KEPT" in text
        assert "int4 is outside its tolerance and was kept: label agreement" in text


def test_verify_says_of_a_kept_variant_that_it_is_outside(kept: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(kept, tmp_path / "bundle")
    done = CliRunner().invoke(main, ["verify", str(bundle)])
    assert done.exit_code == 0, done.stderr
    assert "OUTSIDE, KEPT" in done.stdout
    manifest = (bundle / "trimexport.json").read_text(encoding="utf-8")
    unmarked = manifest.replace('"outside_tolerance": true', '"outside_tolerance": false')
    (bundle / "trimexport.json").write_text(unmarked, encoding="utf-8")
    done = CliRunner().invoke(main, ["verify", str(bundle), "--json"])
    assert done.exit_code == 1
    assert "variant int4 is outside its tolerance" in done.stderr
    assert json.loads(done.stdout)["variants"][0]["kept"] is False


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ({"int4", "fp32"}, ["int8"]),  # which takes the place of the first
        ({"fp32"}, ["int4", "int8"]),
        ({"int8"}, ["int4", "fp32"]),  # the first one stays, with what the others need of it
    ],
)
def test_dropping(kept: Path, tmp_path: Path, names: set[str], left: list[str]) -> None:
    work = shutil.copytree(kept, tmp_path / "work")
    manifest = drop_variants(work, read_manifest(work), names)
    assert _names(manifest) == left
    _check_whole(work, manifest)


def test_engines_are_dropped_and_those_that_stay_know_their_files(tmp_path: Path) -> None:
    """An engine is refused where the files that it was built from are others."""
    work = shutil.copytree(tiny.capped_bundle(), tmp_path / "work")
    manifest = read_manifest(work)
    assert _names(manifest) == ["int8", "fp32", "tensorrt-fp16"]
    (work / "tensorrt").mkdir()
    variants = []
    for variant in manifest.variants:
        engine = Engine(
            f"tensorrt/{variant.name}.plan", 1, "", "10", "8.9", "a GPU", (), {"a": "b"}
        )
        (work / engine.file).write_bytes(b"x")
        variants.append(replace(variant, engine=engine))
    changed = drop_variants(work, replace(manifest, variants=tuple(variants)), {"int8"})
    hashes = {entry.path: entry.sha256 for entry in changed.files}
    for variant in changed.variants:
        assert variant.engine is not None
        assert variant.engine.built_from == {file: hashes[file] for file in variant.files}
    left = sorted(path.name for path in (work / "tensorrt").iterdir())
    assert left == ["fp32.plan", "tensorrt-fp16.plan"]
    _check_whole(work, changed)


def test_where_nothing_passes_there_is_no_bundle(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        build(_spec(planted, "int4"), tmp_path / "bundle")
    assert not isinstance(caught.value, PartialBuildError)
    message = str(caught.value)
    assert message.startswith("variant int4 is outside its tolerance")
    assert message.endswith("or keep it all the same with --keep int4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_shows_all_and_fails(planted: Path, tmp_path: Path, as_json: bool) -> None:
    bundle = tmp_path / "bundle"
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(sample_texts()[:12]), encoding="utf-8")
    command = ["build", "--model", str(planted), "--labels", "positive,negative", "--prompt"]
    command += [tiny.PROMPT, "--precision", "int4,fp32", "-o", str(bundle), "--texts", str(texts)]
    done = CliRunner().invoke(main, [*command, *(["--json"] if as_json else [])])
    assert done.exit_code == 1
    assert f"Error: {bundle} holds fp32, without int4:\nvariant int4 is outside" in done.stderr
    assert _names(read_manifest(bundle)) == ["fp32"]
    if as_json:
        found = json.loads(done.stdout)
        assert found["dropped"] == ["int4"]
        assert found["bundle"] == str(bundle)
        assert [it["within_tolerance"] for it in found["variants"]] == [False, True]
    else:
        assert "OUTSIDE TOLERANCE" in done.stdout
        assert f"try: trimexport-run classify {bundle} TEXT" in done.stdout


def test_an_engine_that_did_not_run_is_not_kept(failed: PartialBuildError) -> None:
    """Nothing is known of it, so --keep is no help."""
    built, row = failed.built, NotRun("tensorrt-int8", "tensorrt", "no GPU")
    passed = tuple(variant for variant in built.report.variants if variant.within)
    report = replace(built.report, variants=passed, not_run=(row,))
    assert failures(report, ("onnxruntime",)) == {}
    expected = {"tensorrt-int8": ["tensorrt-int8 on tensorrt did not run: no GPU"]}
    assert failures(report, ("onnxruntime", "tensorrt")) == expected
    error = PartialBuildError(replace(built, report=report), expected)
    assert str(error).splitlines()[:2] == [
        f"{built.directory} holds fp32, int8, without tensorrt-int8:",
        *expected["tensorrt-int8"],
    ]
    assert "--keep" not in str(error)


def test_to_keep_what_is_not_built(tmp_path: Path, tiny_model: Path) -> None:
    message = "'int3' cannot be kept, for it is not built; the build's variants are int8, fp32$"
    with pytest.raises(SpecError, match=message):
        build(_spec(tiny_model, "int8", "fp32"), tmp_path / "bundle", keep=("fp32", "int3"))
    assert list(tmp_path.iterdir()) == []
