"""Bundles from GGUF files, with transformers' own reading of the file as the judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM

from families import make
from gguf_models import write_gguf
from models import TEXTS, Untrimmed, segments_without_gap, without_one
from trimexport import BuildSpec, CheckpointError, SpecError, Texts, build, verify
from trimexport.bench import pytorch as bench
from trimexport.bench.subjects import find_subjects
from trimexport.cli import main
from trimexport_runtime import Classifier, Manifest, read_manifest
from trimexport_runtime.bundle import TakenOver
from trimexport_runtime.cli import main as run

PROMPT = "Read the review. Then say in one word what it is.\n\nReview: {text}\nSentiment:"
LABELS = ("positive", "negative", "World")
SAMPLE = Texts(tuple(text for text in TEXTS if text))


class Judge(Untrimmed):
    """The same as transformers reads it from a GGUF, with the tokenizer that was converted."""

    def __init__(self, directory: Path, file: Path) -> None:
        super().__init__(directory)
        self.model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
        ).eval()


def assert_agrees(bundle: Path, manifest: Manifest, judge: Judge) -> None:
    tokens = [label.token_ids[0] for label in manifest.labels]
    texts, rows = segments_without_gap(PROMPT, judge, manifest, bundle)
    found = Classifier.load(bundle, variant="fp32").logits(texts)
    expected = judge.logits_of(rows, tokens)
    assert expected.std(axis=0).mean() >= 1
    assert np.abs(found - expected).max() < 1e-3
    last = len(manifest.prompt.prefix_ids) - 1
    mutant = judge.logits_of([without_one(row, last) for row in rows], tokens)
    assert np.abs(found - mutant).max() > 0.1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, each as transformers saved it and as a GGUF, and a bundle of the one with the
    file's own tokenizer, `int4` too."""
    work = tmp_path_factory.mktemp("gguf")
    heads: dict[str, Any] = {"head_dim": 256, "query_pre_attn_scalar": 256, "layer_types": None}
    gemma = make("gemma3", work / "gemma3", layers=1, **heads)
    file = write_gguf(gemma, work / "gemma3.gguf", Kind.Q8_0)
    spec = BuildSpec(str(file), LABELS, PROMPT, precision=("fp32", "int4"))
    build(spec, work / "gemma3-bundle", sample=SAMPLE)
    smollm = make("smollm", work / "smollm", layers=1, rope_parameters=None)
    write_gguf(smollm, work / "smollm.gguf", Kind.Q4_1)
    place = smollm / "tokenizer.json"
    definition = json.loads(place.read_text(encoding="utf-8"))
    merges = definition["model"]["merges"]
    definition["model"]["merges"] = [pair for pair in merges if "".join(pair) != "▁movie"]
    place.write_text(json.dumps(definition), encoding="utf-8")
    return work


@pytest.fixture(scope="module")
def said(made: Path) -> str:
    """What a build by command line says, where a tokenizer is named that is not the file's."""
    texts = made / "texts.txt"
    texts.write_text("a movie\nanother film\n", encoding="utf-8")
    command = ["build", "--model", str(made / "smollm.gguf"), "--labels", ",".join(LABELS)]
    command += ["--prompt", PROMPT, "--precision", "fp32", "--texts", str(texts)]
    command += ["--tokenizer", str(made / "smollm"), "-o", str(made / "smollm-bundle")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize("name", ["gemma3", "smollm"])
def test_a_bundle_answers_as_transformers_with_the_same_file(
    name: str, made: Path, said: str
) -> None:
    bundle, file = made / f"{name}-bundle", made / f"{name}.gguf"
    manifest = Classifier.load(bundle).manifest
    assert manifest.source.model == file.name
    assert manifest.source.directory == str(file)
    assert manifest.source.architecture.endswith("ForCausalLM")
    assert_agrees(bundle, manifest, Judge(made / name, file))
    fp32, *others = verify(bundle, sample=SAMPLE).variants
    assert fp32.agreement == 1
    assert fp32.taken_over is None
    assert all(variant.within for variant in others)


def test_what_int4_took_over_is_said(made: Path, tmp_path: Path) -> None:
    """In the manifest, the parity row, the model card, the page, and by both commands."""
    bundle = made / "gemma3-bundle"
    fp32, int4 = read_manifest(bundle).variants
    assert (fp32.taken_over, int4.taken_over) == (None, TakenOver(7, 7, embedding=True))
    texts = tmp_path / "texts.txt"
    texts.write_text("a movie\nanother film\n", encoding="utf-8")
    command = ["verify", str(bundle), "--texts", str(texts)]
    shown, as_json = (CliRunner().invoke(main, [*command, *more]) for more in ([], ["--json"]))
    page = (bundle / "reports" / "parity.html").read_text(encoding="utf-8")
    for report in (shown.stdout, (bundle / "README.md").read_text(encoding="utf-8"), page):
        assert "ok; 7 of 7 as in the GGUF file" in report
        assert "int4 has 7 of 7 matrices and the embedding with the GGUF file" in report
    recorded = {"matrices": 7, "of": 7, "embedding": True}
    assert [it["taken_over"] for it in json.loads(as_json.stdout)["variants"]] == [None, recorded]
    about = [CliRunner().invoke(run, ["info", str(bundle), *more]) for more in ([], ["--json"])]
    rows = [row for row in about[0].stdout.splitlines() if row.startswith("variant ")]
    said = ["7 of 7 matrices and the embedding with the GGUF" in row for row in rows]
    assert said == [False, True]
    assert json.loads(about[1].stdout)["variants"][1]["taken_over"] == recorded


def test_the_bench_runs_the_same_model(made: Path) -> None:
    bundle, texts = made / "gemma3-bundle", list(SAMPLE.texts)
    expected = [it.label for it in Classifier.load(bundle, variant="fp32").classify(texts)]
    assert len(set(expected)) > 1
    (subject,) = find_subjects(f"{bundle}:fp32", ["pytorch"], None).subjects[1:]
    assert subject.model == made / "gemma3.gguf"
    assert subject.bytes == (made / "gemma3.gguf").stat().st_size
    model = bench.Untrimmed(str(bundle), str(subject.model), "float32", None)
    assert model.labels(texts) == expected


@pytest.fixture
def copy(made: Path, said: str, tmp_path: Path) -> Path:
    """All of it, to move and to alter."""
    work = tmp_path / "work"
    shutil.copytree(made, work)
    for path in work.glob("*/trimexport.json"):  # they name what they were made from
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(str(made), str(work)), encoding="utf-8")
    return work


def test_the_file_has_moved(copy: Path) -> None:
    bundle, file = copy / "gemma3-bundle", copy / "gemma3.gguf"
    (copy / "elsewhere").mkdir()
    moved = file.rename(copy / "elsewhere" / "model.gguf")
    with pytest.raises(CheckpointError, match=r"gemma3.gguf, which is not there any more"):
        verify(bundle, sample=SAMPLE)
    for place in (moved, moved.parent):  # it is the only one there
        assert verify(bundle, sample=SAMPLE, model=str(place)).within


def test_another_file(copy: Path) -> None:
    bundle, file = copy / "gemma3-bundle", copy / "gemma3.gguf"
    with pytest.raises(CheckpointError, match=r"is not the checkpoint .* its file differs"):
        verify(bundle, sample=SAMPLE, model=str(copy / "smollm.gguf"))
    with pytest.raises(CheckpointError, match=r"is not the checkpoint .* its config.json differs"):
        verify(bundle, sample=SAMPLE, model=str(copy / "gemma3"))
    write_gguf(copy / "gemma3", file, Kind.Q5_0)
    with pytest.raises(CheckpointError, match=r"is not the checkpoint .* its file differs"):
        verify(bundle, sample=SAMPLE)


def test_the_tokenizer_has_moved(copy: Path) -> None:
    bundle, place = copy / "smollm-bundle", copy / "smollm"
    manifest = json.loads((bundle / "trimexport.json").read_text(encoding="utf-8"))
    assert manifest["source"]["tokenizer"] == str(place)
    moved = place.rename(copy / "mine")
    with pytest.raises(CheckpointError, match=r"with the tokenizer .*, which is not there any"):
        verify(bundle, sample=SAMPLE)
    result = CliRunner().invoke(main, ["verify", str(bundle), "--tokenizer", str(moved)])
    assert result.exit_code == 0, result.output
    file = moved / "tokenizer.json"
    assert verify(bundle, sample=SAMPLE, tokenizer=str(file)).within
    file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"is not the tokenizer .*: its file differs; name"):
        verify(bundle, sample=SAMPLE, tokenizer=str(moved))
    with pytest.raises(SpecError, match="was made with the model's own tokenizer; drop --tokeni"):
        verify(copy / "gemma3-bundle", sample=SAMPLE, tokenizer=str(moved))


def test_tokenizers_that_differ(made: Path, said: str) -> None:
    own, named = made / "smollm.gguf", made / "smollm"
    assert f"{named} gives other tokens than the tokenizer of {own} for 1 of 2 texts" in said
    assert "the first of them 'a movie'; the former is used, as it was named" in said
