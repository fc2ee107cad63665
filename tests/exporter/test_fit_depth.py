"""`trimexport fit --depth --pool`: which depth is taken, and the bundle that is cut there."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import families
import tiny
from trimexport import BuildSpec, SpecError, Texts, build, fit_depth, verify
from trimexport.bundle.rewrite import write_manifest
from trimexport.bundle.written_head import Head
from trimexport.cli import main
from trimexport.model.layer_states import layer_states
from trimexport.model.layerwise import LayerwiseModel
from trimexport.source.checkpoint import open_checkpoint
from trimexport.source.depth import cut_layers
from trimexport.tuning.depth import Depth, depth_scores, least_depth
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.cli import main as runtime
from tuning import FRAMES, LABELS, made, rows_of, write_rows

PROMPT = "Review: {text}\nSentiment:"


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of four layers, with and without windows."""
    root = tmp_path_factory.mktemp("deep")
    types = ["sliding_attention", "full_attention"] * 2
    directory = families.make("gemma3", root / "model", layers=4, layer_types=types)
    spec = BuildSpec(str(directory), LABELS, PROMPT, precision=("fp32", "int8"))
    sample = Texts(("dull",))
    return build(spec, root / "bundle", sample=sample, keep=spec.precision).directory


@pytest.mark.parametrize(("depth", "pool"), [(2, "mean"), (3, "last")])
def test_a_head_behind_the_first_layers(deep: Path, depth: int, pool: str, tmp_path: Path) -> None:
    """It separates texts that it has not seen, and is the same cut in PyTorch."""
    output = tmp_path / "cut"
    test = made(FRAMES[3:])
    fitted = fit_depth(deep, output, made(FRAMES[:3]), depth=depth, pool=pool, test=test)
    manifest = read_manifest(output)
    assert manifest == fitted.manifest
    assert (manifest.source.layers, manifest.prompt.pool) == (depth, pool)
    assert [it.name for it in manifest.variants] == ["fp32", "int8"]
    assert not any(it.outside_tolerance for it in manifest.variants)
    assert fitted.compared.fitted.accuracy > 0.6  # of three labels, by a model of random weights
    data = "onnx/model.onnx_data"
    assert os.path.getsize(output / data) < os.path.getsize(deep / data)
    report = verify(output, sample=Texts(test.texts[:6]))
    assert report.variants[0].max_logit_difference < 1e-4
    whole = Classifier.load(deep, variant="fp32").logits(test.texts)
    assert np.abs(Classifier.load(output, variant="fp32").logits(test.texts) - whole).max() > 0.1
    assert not list(tmp_path.glob("*/cut"))  # of the bundle that was built on the way
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_what_only_the_whole_bundle_knows_is_kept(deep: Path, tmp_path: Path) -> None:
    """The name that its checkpoint goes by, and the texts that its prompt shows."""
    whole = tmp_path / "whole"
    shutil.copytree(deep, whole)
    held = read_manifest(whole)
    source = replace(held.source, model="maker/model", revision="main", notice="terms")
    examples = ("0" * 64, "a" * 64)
    write_manifest(
        replace(held, source=source, prompt=replace(held.prompt, examples=examples)), whole
    )
    cut = fit_depth(whole, tmp_path / "cut", made(FRAMES[:1]), depth=2).manifest
    assert cut.source == replace(source, layers=2)
    assert cut.prompt.examples == examples
    assert held.source.directory is not None
    moved = fit_depth(
        whole, tmp_path / "moved", made(FRAMES[:1]), depth=2, model=held.source.directory
    )
    assert moved.manifest.source == replace(held.source, layers=2, notice="terms")


@pytest.mark.parametrize("mean_behind", [None, 2])
def test_one_pass_gives_every_depth(mean_behind: int | None) -> None:
    """They are what a model of so many layers gives."""
    checkpoint = open_checkpoint(tiny.tiny_model(), "", None)
    rows = [(2, 5, 9, 11), (2, 5, 7), (2, 5, 9, 30, 31, 32)]
    found = layer_states(LayerwiseModel(checkpoint, mean_behind), rows)
    for layers in (1, 2):
        cut = LayerwiseModel(cut_layers(checkpoint, layers), mean_behind)
        assert torch.allclose(found[layers - 1], cut.hidden_states(rows), atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_the_least_depth_within_a_standard_error() -> None:
    scores = (Depth(1, 0.5, 0.01), Depth(2, 0.89, 0.2), Depth(3, 0.92, 0.03), Depth(4, 0.92, 0.0))
    assert least_depth(scores) == 2
    assert least_depth(scores[2:]) == 3
    assert least_depth((Depth(1, 0.7, 0.0), Depth(2, 0.8, 0.05))) == 2


def test_a_depth_without_the_answer_is_not_taken() -> None:
    """Noise below, the label above: the layer that has it is found, by held-out examples."""
    rng = np.random.default_rng(3)
    gold = np.arange(60) % 3
    noise = rng.normal(size=(2, 60, 8))
    states = np.stack([noise[0], noise[1] + 9 * np.eye(8)[gold], noise[1] + 9 * np.eye(8)[gold]])
    start = Head(np.zeros((3, 8), np.float32), np.zeros(3, np.float32))
    scores = depth_scores(states.astype(np.float32), gold, start, np.arange(60) // 3 % 5)
    assert scores[0].accuracy < 0.6 < 0.9 < scores[1].accuracy
    assert least_depth(scores) == 2


def test_the_command_finds_a_depth(deep: Path, tmp_path: Path) -> None:
    examples = write_rows(tmp_path / "train.jsonl", rows_of(made(FRAMES[:1])))
    arguments = ["fit", str(deep), "--examples", str(examples), "--depth", "auto", "--pool", "mean"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "cut")])
    assert result.exit_code == 0, result.stderr
    assert "layers  accuracy  standard error" in result.stderr
    chosen = next(line for line in result.stderr.splitlines() if line.endswith(" *"))
    assert read_manifest(tmp_path / "cut").source.layers == int(chosen.split()[0])
    said = f"the model's first {chosen.split()[0]} layers, mean of the text's hidden states"
    assert said in CliRunner().invoke(runtime, ["info", str(tmp_path / "cut")]).stdout
    assert f"| depth | {said} |" in (tmp_path / "cut" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--depth", "5"], 1, "5 layers of .* cannot be had; give 1 to 4"),
        (["--depth", "0"], 1, "layers is 0; give 1 or more"),
        (["--depth", "half"], 2, "--depth is auto or a number of layers, not 'half'"),
        (["--depth", "2", "--question", "a"], 2, "--depth and --pool are of a bundle with one"),
        (["--model", "x"], 2, "--model is where --depth and --pool read"),
    ],
)
def test_what_is_refused(
    deep: Path, arguments: list[str], status: int, message: str, tmp_path: Path
) -> None:
    examples = write_rows(tmp_path / "train.jsonl", rows_of(made(FRAMES[:1])))
    options = ["--examples", str(examples), "-o", str(tmp_path / "cut"), *arguments]
    result = CliRunner().invoke(main, ["fit", str(deep), *options])
    assert result.exit_code == status
    assert re.search(message, result.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


def test_bundles_that_have_no_one_head_to_cut(deep: Path, tmp_path: Path) -> None:
    once = fit_depth(deep, tmp_path / "once", made(FRAMES[:1]), depth=1)
    with pytest.raises(SpecError, match="was cut before; name the bundle that it was made from"):
        fit_depth(once.directory, tmp_path / "twice", made(FRAMES[:1]), depth=1)
    with pytest.raises(SpecError, match="asks several questions"):
        fit_depth(tiny.questions_bundle(), tmp_path / "no", made(FRAMES[:1]), depth=1)
    with pytest.raises(SpecError, match="is log-odds, no softmax over labels"):
        fit_depth(tiny.odds_bundle(), tmp_path / "no", made(FRAMES[:1]), depth=1)
