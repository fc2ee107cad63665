"""Bundles against the model they came from, whole, moved, altered and wrong."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

import tiny
from trimexport import CheckpointError, ParityError, SpecError, Texts, verify
from trimexport.parity.verdict import require
from trimexport_runtime import Classifier, IntegrityError, check_files, read_manifest
from trimexport_runtime.bundle import MANIFEST, BundleFile, to_json
from trimexport_runtime.integrity import sha256_of

SAMPLE = Texts(tiny.TEXTS)
NORM = "model.norm.weight"


def negate_head(bundle: Path) -> None:
    """Make the graph give each logit the other sign, and the manifest agree with its new hash."""
    path = bundle / "onnx" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    (weight,) = [it for it in model.graph.initializer if it.name.startswith("head.weight")]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path)
    manifest = read_manifest(bundle)
    entry = BundleFile("onnx/model.onnx", path.stat().st_size, sha256_of(path))
    files = tuple(entry if it.path == entry.path else it for it in manifest.files)
    text = to_json(replace(manifest, files=files))
    (bundle / MANIFEST).write_text(text, encoding="utf-8")


def test_a_whole_bundle(tiny_bundle_copy: Path) -> None:
    shutil.rmtree(tiny_bundle_copy / "reports")
    before = tiny.snapshot(tiny_bundle_copy)
    report = verify(tiny_bundle_copy, sample=SAMPLE)
    assert report.within
    assert report.texts == tiny.TEXTS
    (variant,) = report.variants
    assert variant.agreement == 1.0
    assert 0 < variant.max_logit_difference < 1e-3
    assert report.logit_deviation > 1
    require(report)
    after = tiny.snapshot(tiny_bundle_copy)
    assert set(after) - set(before) == {"reports/parity.html"}
    assert {name: after[name] for name in before} == before
    check_files(tiny_bundle_copy, read_manifest(tiny_bundle_copy), hashes=True)


def test_the_texts_that_ship_are_taken_where_none_are_given(tiny_bundle_copy: Path) -> None:
    from trimexport.source.shipped import sample_texts

    assert list(verify(tiny_bundle_copy).texts) == sample_texts()


def test_a_bundle_that_cannot_be_written_is_verified_all_the_same(tiny_bundle_copy: Path) -> None:
    shutil.rmtree(tiny_bundle_copy / "reports")
    (tiny_bundle_copy / "reports").write_text("in the way", encoding="utf-8")
    said: list[str] = []

    class Listening:
        def say(self, line: str) -> None:
            said.append(line)

        def bar(self, what: str, total: int) -> object:
            from trimexport.progress import Silent

            return Silent().bar(what, total)

    assert verify(tiny_bundle_copy, sample=SAMPLE, progress=Listening()).within
    assert said == [f"{tiny_bundle_copy}/reports/parity.html could not be written: File exists"]


@pytest.fixture
def moved(tiny_copy: Path, tiny_bundle_copy: Path) -> Path:
    """A bundle whose checkpoint is not where it was."""
    manifest = read_manifest(tiny_bundle_copy)
    source = replace(manifest.source, directory=str(tiny_copy.with_name("gone")))
    text = to_json(replace(manifest, source=source))
    (tiny_bundle_copy / MANIFEST).write_text(text, encoding="utf-8")
    return tiny_bundle_copy


def test_a_checkpoint_that_has_moved(moved: Path, tiny_copy: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone, which is not there any more; .* --model"):
        verify(moved, sample=SAMPLE)
    assert verify(moved, sample=SAMPLE, model=str(tiny_copy)).within


def test_another_checkpoint(tiny_bundle_copy: Path, tiny_copy: Path) -> None:
    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(rms_norm_eps=1e-5))
    with pytest.raises(CheckpointError, match=r"is not the checkpoint .* its config.json differs"):
        verify(tiny_bundle_copy, sample=SAMPLE, model=str(tiny_copy))


def test_other_weights_with_the_same_configuration(tiny_bundle_copy: Path, tiny_copy: Path) -> None:
    tiny.edit_tensors(tiny_copy, lambda it: it.update({NORM: it[NORM] + 0.5}))
    report = verify(tiny_bundle_copy, sample=SAMPLE, model=str(tiny_copy))
    assert not report.within
    with pytest.raises(ParityError, match="variant fp32 is outside its tolerance"):
        require(report)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "config.json"])
def test_an_altered_bundle(tiny_bundle_copy: Path, name: str) -> None:
    data = bytearray((tiny_bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tiny_bundle_copy / name).write_bytes(data)
    with pytest.raises(IntegrityError, match="was altered"):
        verify(tiny_bundle_copy, sample=SAMPLE)


def test_right_answers_give_accuracies(tiny_bundle: Path, tiny_bundle_copy: Path) -> None:
    answers = [it.label for it in Classifier.load(tiny_bundle).classify(list(tiny.TEXTS))]
    other = {"positive": "negative", "negative": "positive"}
    gold = (*answers[:3], *(other[name] for name in answers[3:]))
    report = verify(tiny_bundle_copy, sample=Texts(tiny.TEXTS, gold))
    assert report.reference_accuracy == report.variants[0].accuracy == 3 / 5
    unlabelled = verify(tiny_bundle_copy, sample=SAMPLE)
    assert unlabelled.reference_accuracy is None
    assert unlabelled.variants[0].accuracy is None


def test_right_answers_outside_the_labels(tiny_bundle_copy: Path) -> None:
    strange = Texts(("a", "b"), ("positive", "mixed"))
    with pytest.raises(SpecError, match="labelled mixed, the bundle's labels are positive, neg"):
        verify(tiny_bundle_copy, sample=strange)


def test_no_texts(tiny_bundle_copy: Path) -> None:
    with pytest.raises(SpecError, match="there is no text to compare on"):
        verify(tiny_bundle_copy, sample=Texts(()))


def test_a_variant_that_answers_differently(tiny_bundle_copy: Path) -> None:
    negate_head(tiny_bundle_copy)
    report = verify(tiny_bundle_copy, sample=SAMPLE)
    (variant,) = report.variants
    assert not report.within
    assert variant.agreement == 0.0
    assert [it.index for it in variant.disagreements] == list(range(len(tiny.TEXTS)))
    for item in variant.disagreements:
        assert item.reference != item.variant
        assert item.reference_margin > 0
        assert item.variant_margin == pytest.approx(item.reference_margin, abs=1e-3)
    with pytest.raises(ParityError) as caught:
        require(report)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("variant fp32 is outside its tolerance: largest logit difference")
    first = variant.disagreements[0]
    assert lines[1] == (
        f"  text 1: {first.reference} (by {first.reference_margin:.4f}) became {first.variant} "
        f"(by {first.variant_margin:.4f}): 'a gorgeous, witty movie'"
    )
    page = (tiny_bundle_copy / "reports" / "parity.html").read_text(encoding="utf-8")
    assert "OUTSIDE TOLERANCE" in page
    assert "a gorgeous, witty movie" in page
