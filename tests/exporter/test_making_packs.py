"""What cannot be a backbone, a pack or a bundle of the two, and what calibrating a pack does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tiny
from packs import CAPPED, SENTIMENT, capped_backbone, tiny_backbone, tiny_pack
from trimexport import BuildSpec, CheckpointError, OutputError, SpecError, Texts, calibrate, fit
from trimexport.cli import main
from trimexport.packs.backbone import build_backbone, check_backbone_spec
from trimexport.packs.fitting import check_tokens, spec_of
from trimexport.packs.pack import other_keys, pack
from trimexport.packs.whole_bundle import bundle_of
from trimexport.planning import plan
from trimexport.progress import Silent
from trimexport.tuning.bias import undo_calibration
from trimexport.tuning.hidden_states import read_states
from trimexport_runtime import BundleError, Classifier, TrimexportRuntimeError
from trimexport_runtime.backbone_manifest import (
    BACKBONE,
    BackboneManifest,
    backbone_json,
    read_backbone_manifest,
)
from trimexport_runtime.pack import read_pack
from tuning import FRAMES, made

ROWS = [text for text in tiny.TEXTS if text]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ("a", "b")}, "labels is of one; give that to `trimexport pack`"),
        ({"prompt": "{text}", "score": "log-odds"}, "prompt, score are of one"),
        ({"precision": ("int8", "fp16")}, "built in fp32, int8, int4, not in fp16"),
        ({"tensorrt": ("fp16",)}, "tensorrt is of one"),
        ({"layers": 1}, "layers 1 cannot be had with a backbone, which runs all of its model's"),
    ],
)
def test_what_a_backbone_has_not(given: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_backbone_spec(BuildSpec(**{"model": "somewhere", **given}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokenizer": "elsewhere"}, "tokenizer is given for a pack, and it is the backbone's"),
        ({"max_tokens": 4096}, "max-tokens is 4096, and the backbone takes up to 128"),
        ({"layers": 1, "pool": "mean"}, 'layers 1 and pool "mean" cannot be had with a backbone'),
    ],
)
def test_what_a_pack_has_not(given: dict[str, object], message: str) -> None:
    known = read_backbone_manifest(tiny_backbone())
    with pytest.raises(SpecError, match=message):
        spec_of(replace(SENTIMENT, **given), known)  # type: ignore[arg-type]


def test_a_lora_adapter_is_the_backbone_s(tmp_path: Path) -> None:
    settings = json.dumps({"peft_type": "LORA", "r": 4})
    (tmp_path / "adapter_config.json").write_text(settings, encoding="utf-8")
    known = read_backbone_manifest(tiny_backbone())
    spec = replace(SENTIMENT, adapter=str(tmp_path))
    with pytest.raises(SpecError, match=r"LoRA changes the backbone.*build --backbone --adapter"):
        spec_of(spec, known)
    merged = replace(known, source=replace(known.source, adapter="lora"))
    with pytest.raises(SpecError, match="has lora merged into it, so another adapter was not"):
        spec_of(spec, merged)


def test_a_pack_of_an_older_backbone_has_no_vocabulary(tmp_path: Path) -> None:
    """Which wrote merges that are never made, and its vocabulary in another order."""
    older = json.loads((tiny_backbone() / "tokenizer.json").read_text(encoding="utf-8"))
    planned = plan(SENTIMENT)
    older["model"]["merges"] = [it.split(" ") for it in older["model"]["merges"]]
    older["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(older), encoding="utf-8")
    kept = other_keys(planned, tmp_path)
    assert "model" not in kept
    assert kept["normalizer"] == planned.text_tokenizer["normalizer"]


def test_a_prompt_that_steers_with_tokens_that_texts_may_have() -> None:
    planned = plan(SENTIMENT)
    bare = {**planned.text_tokenizer, "added_tokens": []}
    some = [{"content": "<think>", "special": False, "id": 7}]
    source = replace(
        planned.tokenizer, definition={**planned.tokenizer.definition, "added_tokens": some}
    )
    with pytest.raises(SpecError, match=r"steers the model with '<think>'.*build a bundle"):
        check_tokens(replace(planned, text_tokenizer=bare, tokenizer=source))


def test_a_pack_of_another_model(tiny_copy: Path, tmp_path: Path) -> None:
    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(rms_norm_eps=1e-5))
    with pytest.raises(CheckpointError, match=r"its config.json differs.*--model"):
        pack(tiny_backbone(), replace(SENTIMENT, model=str(tiny_copy)), tmp_path / "a.pack")
    assert not list(tmp_path.glob("*.pack"))


def test_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"it has no backbone.json; give the directory"):
        pack(tiny.tiny_bundle(), SENTIMENT, tmp_path / "a.pack")


def test_a_backbone_that_was_rebuilt(tmp_path: Path) -> None:
    """The same files but for one, so that its hash is another."""
    other = shutil.copytree(tiny_backbone(), tmp_path / "other")
    rehashed(other, "config.json")
    with pytest.raises(TrimexportRuntimeError, match="write the pack again") as caught:
        bundle_of(other, tiny_pack("sentiment"), tmp_path / "bundle")
    for directory in (other, tiny_backbone()):
        assert read_backbone_manifest(directory).sha256[:12] in str(caught.value)


def rehashed(directory: Path, name: str) -> BackboneManifest:
    """Change a file of a backbone by white space, and its manifest with it."""
    from trimexport.bundle.files import bundle_file
    from trimexport_runtime.backbone_manifest import backbone_sha256

    path = directory / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    known = read_backbone_manifest(directory)
    files = tuple(bundle_file(directory, it.path) for it in known.files)
    changed = replace(known, files=files, sha256=backbone_sha256(files))
    (directory / BACKBONE).write_text(backbone_json(changed), encoding="utf-8")
    return changed


def test_outputs_that_exist(tmp_path: Path) -> None:
    taken = tmp_path / "taken.pack"
    taken.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"taken.pack exists; give --force"):
        pack(tiny_backbone(), SENTIMENT, taken)
    with pytest.raises(OutputError, match="is a directory, and a pack is one file"):
        pack(tiny_backbone(), SENTIMENT, tmp_path, force=True)
    with pytest.raises(OutputError, match="exists; give --force"):
        bundle_of(tiny_backbone(), tiny_pack("sentiment"), tmp_path)
    with pytest.raises(OutputError, match="exists; give --force"):
        build_backbone(BuildSpec(model=str(tiny.tiny_model())), tmp_path)
    assert taken.read_text(encoding="utf-8") == "mine"


def test_calibration_texts_that_nothing_needs(tmp_path: Path) -> None:
    spec = BuildSpec(model=str(tiny.tiny_model()), precision=("fp32",))
    with pytest.raises(SpecError, match="fp32 needs none"):
        build_backbone(spec, tmp_path / "backbone", calibration=Texts(("a",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "int8"], "--keep goes with a task"),
        (["--texts", __file__, "--keep", "int8"], "--texts, --keep go with a task"),
        (["--labels", "a,b"], "a backbone has no task, and labels is of one"),
    ],
)
def test_options_of_tasks_on_the_command_line(options: list[str], message: str) -> None:
    run = CliRunner().invoke(main, ["build", "--backbone", *options])
    assert run.exit_code
    assert message in run.output + repr(run.exception)


def test_a_bundle_of_both(tmp_path: Path) -> None:
    """It is what a build makes: the same answers, tokenizer and labels, to the last bit the pack's;
    and the checkpoint is not read."""
    made = bundle_of(tiny_backbone(), tiny_pack("sentiment"), tmp_path / "bundle")
    assert made.apart == {"int8": 0.0, "fp32": 0.0}
    assert all(variant.parity is not None for variant in made.manifest.variants)
    whole = Classifier.load(made.directory, variant="fp32").logits(ROWS)
    built = Classifier.load(tiny.tiny_bundle(), variant="fp32")
    assert np.abs(whole - built.logits(ROWS)).max() < 1e-4
    assert made.manifest.prompt == built.manifest.prompt
    assert made.manifest.format_version == built.manifest.format_version
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        ours, theirs = (
            json.loads((at / name).read_text(encoding="utf-8"))
            for at in (made.directory, tiny.tiny_bundle())
        )
        for each in (ours, theirs):
            each.pop("transformers.js_config", None)  # of other variants
        assert ours == theirs, name
    tiny.check_size(made.directory, made.manifest.variants[1])


def test_calibrating_a_pack(tmp_path: Path) -> None:
    task = Path(shutil.copyfile(tiny_pack("sentiment"), tmp_path / "task.pack"))
    before = Classifier.load(tiny_backbone(), task=task, variant="fp32").logits(ROWS)
    calibrated = calibrate(tiny_backbone(), ROWS, pack=task)
    after = Classifier.load(tiny_backbone(), task=task, variant="fp32").logits(ROWS)
    bias = np.array(calibrated.calibration.bias)
    assert np.abs(bias).max() > 0.01
    assert np.abs(after - before - bias).max() < 1e-5
    assert read_pack(task).manifest.calibration == calibrated.calibration
    undo_calibration(tiny_backbone(), pack=task)
    assert task.read_bytes() == tiny_pack("sentiment").read_bytes()


def test_fitting_a_pack(tmp_path: Path) -> None:
    """The new head answers, and nothing else: the soft-cap of the old one is gone. The old pack
    stays as it was."""
    task, output = tmp_path / "task.pack", tmp_path / "fitted.pack"
    pack(capped_backbone(), CAPPED, task, sample=Texts(tiny.TEXTS))
    before = task.read_bytes()
    fitted = fit(capped_backbone(), output, made(FRAMES[:3]), pack=task)
    assert task.read_bytes() == before
    assert read_pack(output).manifest.fit == fitted.manifest.fit is not None
    states = read_states(
        capped_backbone(),
        fitted.manifest,
        fitted.manifest.variants[0],
        ROWS,
        Silent(),
        pack=output,
    )
    found = Classifier.load(capped_backbone(), task=output).logits(ROWS)
    assert found == pytest.approx(states.hidden @ states.head.weight.T + states.head.bias, abs=1e-4)
    assert np.abs(found).max() > 4.0, "the soft-cap's size"
