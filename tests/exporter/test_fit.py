"""`trimexport fit`: the head that is found, the bundle that has it, and what is said of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import families
import tiny
from models import needs_data, read_jsonl
from trimexport import BuildSpec, Fitted, Texts, build, calibrate, fit, verify
from trimexport.bench.pytorch import Untrimmed
from trimexport.bundle.written_graph import load_graph
from trimexport.bundle.written_head import Head, put_head, read_head
from trimexport.cli import main
from trimexport.evaluation import known_texts
from trimexport.progress import Silent
from trimexport.tensorrt.readable import require_readable
from trimexport.tuning import examples as material
from trimexport.tuning.hidden_states import read_states
from trimexport.tuning.regression import logits_of
from trimexport_runtime import Classifier, check_files, read_manifest
from trimexport_runtime.cli import main as runtime
from trimexport_runtime.integrity import sha256_of
from tuning import FRAMES, LABELS, made, rows_of, write_rows


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["fit", *map(str, arguments)])


@pytest.fixture(scope="module")
def examples() -> Texts:
    return made(FRAMES[:3])


@pytest.fixture(scope="module")
def test_texts() -> Texts:
    return made(FRAMES[3:])


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, examples: Texts, test_texts: Texts
) -> tuple[Path, Fitted]:
    """The bundle with several variants, fitted. Shared: do not change it."""
    output = tmp_path_factory.mktemp("fit") / "fitted"
    return output, fit(tiny.capped_bundle(), output, examples, test=test_texts, shots=(4, 8))


@pytest.fixture
def fitted(whole: tuple[Path, Fitted], tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(whole[0], tmp_path / "place" / "bundle"))


def test_every_variant_answers_with_the_head_and_nothing_else(
    whole: tuple[Path, Fitted], test_texts: Texts
) -> None:
    """What followed the old head, a soft-cap and a sum over words, is gone."""
    bundle, _ = whole
    manifest = read_manifest(bundle)
    heads = []
    for variant in manifest.variants:
        states = read_states(bundle, manifest, variant, test_texts.texts, Silent())
        assert states.rows == 2
        assert states.head.weight.shape == (3, 32)
        classifier = Classifier.load(bundle, variant=variant.name)
        found = classifier.logits(test_texts.texts)
        expected = logits_of(states.head, states.hidden.astype(np.float64))
        assert found == pytest.approx(expected, abs=2e-4)
        assert np.array_equal(classifier.logits(test_texts.texts[:1]), found[:1])
        heads.append(states.head)
        onnx.checker.check_model(str(bundle / variant.graph))
        operators = {node.op_type for node in load_graph(bundle / variant.graph).graph.node}
        assert "ReduceLogSumExp" not in operators
    assert all(np.array_equal(it.weight, heads[0].weight) for it in heads)
    assert all(np.array_equal(it.bias, heads[0].bias) for it in heads)
    require_readable(bundle / manifest.variant("tensorrt-fp16").graph)


def test_the_hidden_states_are_what_the_old_head_reads(test_texts: Texts) -> None:
    """The old head with its soft-cap and its sum over words, in numpy, gives its logits."""
    bundle = tiny.capped_bundle()
    manifest = read_manifest(bundle)
    states = read_states(bundle, manifest, manifest.variant("fp32"), test_texts.texts, Silent())
    rows = 4.0 * np.tanh(logits_of(states.head, states.hidden.astype(np.float64)) / 4.0)
    positive = np.log(np.exp(rows[:, :2]).sum(axis=1))
    expected = np.column_stack([positive, rows[:, 2:]])
    assert states.logits == pytest.approx(expected, abs=1e-5)
    again = Classifier.load(bundle, variant="fp32").logits(test_texts.texts)
    assert states.logits == pytest.approx(again, abs=1e-5)


def test_what_the_new_bundle_says_of_itself(whole: tuple[Path, Fitted], examples: Texts) -> None:
    bundle, found = whole
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, hashes=True)
    assert manifest == found.manifest
    record = manifest.fit
    assert record is not None
    assert record.examples == dict.fromkeys(LABELS, 60)
    assert record.examples_sha256 == material.digest(examples)
    assert (record.shots, record.seed, record.folds, record.variant) == (None, None, 5, "int8")
    assert manifest.label_names == LABELS
    assert manifest.label_mass is None
    assert all(it.parity is None for it in manifest.variants)
    graph = (bundle / "onnx" / "model.onnx").read_bytes()
    assert graph == (bundle / "onnx" / "model_int8.onnx").read_bytes()
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "Fitted on 60 examples of positive, 60 examples of negative, 60 " in card
    assert "label tokens" not in card
    assert "## Parity" not in card
    info = CliRunner().invoke(runtime, ["info", str(bundle), "--check"])
    assert "fitted head on positive 60, negative 60, neutral 60; " in info.stdout
    source = tiny.capped_bundle()
    for entry in read_manifest(source).files:
        if not entry.path.endswith(".onnx"):
            assert (bundle / entry.path).read_bytes() == (source / entry.path).read_bytes()
            assert (bundle / entry.path).stat().st_ino != (source / entry.path).stat().st_ino


def test_the_scores_are_those_of_the_bundles(whole: tuple[Path, Fitted], test_texts: Texts) -> None:
    bundle, found = whole
    for directory, scores in (
        (tiny.capped_bundle(), found.compared.zero_shot),
        (bundle, found.compared.fitted),
    ):
        answers = Classifier.load(directory).logits(test_texts.texts).argmax(axis=1)
        assert scores.accuracy == pytest.approx((answers == test_texts.places(LABELS)).mean())
    assert found.compared.fitted.accuracy > found.compared.zero_shot.accuracy + 0.2
    assert found.compared.majority == pytest.approx(1 / 3)


def test_eval_says_that_it_judges_by_examples(
    whole: tuple[Path, Fitted], examples: Texts, test_texts: Texts, tmp_path: Path
) -> None:
    bundle, _ = whole
    page = ("-o", str(tmp_path / "page.html"))
    for name, given, said in (("seen", examples, True), ("new", test_texts, False)):
        path = write_rows(tmp_path / f"{name}.jsonl", rows_of(given))
        done = CliRunner().invoke(main, ["eval", str(bundle), str(path), *page])
        assert done.exit_code == 0, done.output
        note = f"the head was fitted on {len(set(examples.texts)):,} texts of {path}"
        assert (note in done.stderr) == said


def test_a_head_knows_what_the_one_before_it_was_fitted_on(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    before = known_texts.read_learned(tmp_path / "none.txt")
    known_texts.write_learned(known_texts.learned_with(["a", "b"], before), first)
    one = known_texts.read_learned(first)
    known_texts.write_learned(known_texts.learned_with(["b", "c"], one), second)
    other = known_texts.read_learned(second)
    assert known_texts.learned_from(one, ["a", "b", "c"]) == {"a", "b"}
    assert known_texts.learned_from(other, ["a", "b", "c", "d"]) == {"a", "b", "c"}


def test_the_reports(whole: tuple[Path, Fitted]) -> None:
    bundle, found = whole
    assert {it.name for it in (bundle / "reports").iterdir()} == {
        "fit-examples.txt",
        "fit.json",
        "fit.png",
        "fit.svg",
    }
    report = json.loads((bundle / "reports" / "fit.json").read_text(encoding="utf-8"))
    assert found.manifest.fit is not None
    assert report["fit"] == asdict(found.manifest.fit)
    assert report["fitted"]["accuracy"] == found.compared.fitted.accuracy
    assert [(it["shots"], it["seeds"]) for it in report["curve"]] == [(4, 5), (8, 5)]
    for point in report["curve"]:
        scores = [
            it["fitted"]["accuracy"] for it in report["trials"] if it["shots"] == point["shots"]
        ]
        assert len(scores) == 5
        assert point["accuracy"] == pytest.approx(np.mean(scores))
        assert point["deviation"] == pytest.approx(np.std(scores, ddof=1))
        assert (point["least"], point["most"]) == (min(scores), max(scores))
    assert (bundle / "reports" / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert "Data efficiency" in (bundle / "reports" / "fit.svg").read_text(encoding="utf-8")


def test_verify_takes_the_fitted_head_for_the_reference(fitted: Path) -> None:
    sample = Texts(tiny.TEXTS)
    report = verify(fitted, sample=sample, backends=("onnxruntime", "pytorch"))
    assert report.within
    assert report.mass is None
    (exact,) = [it for it in report.variants if it.name == "fp32"]
    assert 0 < exact.max_logit_difference < 1e-3
    manifest = read_manifest(fitted)
    path = fitted / manifest.variant("fp32").graph
    model = load_graph(path)
    head = read_head(model)
    put_head(model, Head(head.weight[::-1].copy(), head.bias[::-1].copy()), 2)
    path.write_bytes(model.SerializeToString())

    def change(raw: dict[str, list[dict[str, object]]]) -> None:
        for entry in raw["files"]:
            if entry["path"] == manifest.variant("fp32").graph:
                entry.update(bytes=path.stat().st_size, sha256=sha256_of(path))

    tiny.edit_json(fitted / "trimexport.json", change)
    wrong = verify(fitted, sample=sample)
    assert [it.name for it in wrong.variants if it.outside] == ["fp32"]


def test_a_fitted_bundle_can_be_calibrated_and_fitted_again(
    fitted: Path, tmp_path: Path, examples: Texts, test_texts: Texts
) -> None:
    plain = Classifier.load(fitted, variant="fp32")
    before = plain.logits(test_texts.texts)
    as_it_was = (
        Classifier.load(fitted).logits(test_texts.texts).argmax(1) == test_texts.places(LABELS)
    ).mean()
    prior = {"positive": 0.7, "negative": 0.2, "neutral": 0.1}
    bias = calibrate(fitted, test_texts.texts, prior).calibration.bias
    calibrated = Classifier.load(fitted, variant="fp32")
    assert np.array_equal(calibrated.logits(test_texts.texts), before + np.float32(bias))
    assert verify(fitted, sample=Texts(tiny.TEXTS)).within
    in_pytorch = Untrimmed(str(fitted), str(tiny.tiny_root() / "capped"), "float32", None)
    texts = list(test_texts.texts)
    assert in_pytorch.labels(texts) == [it.label for it in calibrated.classify(texts)]
    assert in_pytorch.labels(texts) != [it.label for it in plain.classify(texts)]

    again = fit(fitted, tmp_path / "again", examples, test=test_texts)
    assert again.manifest.calibration is None
    right = Classifier.load(tmp_path / "again").logits(test_texts.texts).argmax(axis=1)
    assert again.compared.fitted.accuracy == pytest.approx(
        (right == test_texts.places(LABELS)).mean()
    )
    # As it was means without the calibration, which is not part of the head.
    assert again.compared.zero_shot.accuracy == pytest.approx(as_it_was)


def test_a_fine_tuned_classifier_can_be_fitted(tmp_path: Path, examples: Texts) -> None:
    names = dict(enumerate(LABELS))
    model = families.make("llama3", tmp_path / "stars", classifier=True, layers=1, id2label=names)
    spec = BuildSpec(model=str(model), precision=("fp32",))
    source = build(spec, tmp_path / "bundle", sample=Texts(tiny.TEXTS[:2])).directory
    found = fit(source, tmp_path / "fitted", examples)
    assert found.compared.fitted.accuracy > found.compared.zero_shot.accuracy
    assert verify(tmp_path / "fitted", sample=Texts(tiny.TEXTS[:2])).within


def test_labels_that_are_read_whole_can_be_calibrated_and_fitted(
    tmp_path: Path, examples: Texts, test_texts: Texts
) -> None:
    """The graph computes hidden states wherever such labels part, the answer's first."""
    names = ("very very good", "very very bad", "very dull")
    examples, test_texts = (
        Texts(it.texts, tuple(names[place] for place in it.places(LABELS)))
        for it in (examples, test_texts)
    )
    spec = BuildSpec(
        model=str(tiny.tiny_model()), labels=names, prompt=tiny.PROMPT, precision=("fp32",)
    )
    sample = Texts(tiny.TEXTS[:3])
    source = build(spec, tmp_path / "bundle", sample=sample).directory
    manifest = read_manifest(source)
    states = read_states(source, manifest, manifest.variants[0], test_texts.texts, Silent())
    assert states.rows == 3
    calibrate(source, test_texts.texts)
    assert verify(source, sample=sample).within
    found = fit(source, tmp_path / "fitted", examples)
    assert verify(tmp_path / "fitted", sample=sample).within
    assert found.compared.fitted.accuracy > found.compared.zero_shot.accuracy + 0.1
    classifier = Classifier.load(tmp_path / "fitted")
    in_pytorch = Untrimmed(str(tmp_path / "fitted"), str(tiny.tiny_model()), "float32", None)
    texts = list(test_texts.texts)
    assert in_pytorch.labels(texts) == [it.label for it in classifier.classify(texts)]


def test_one_draw_makes_the_bundle(tmp_path: Path, examples: Texts) -> None:
    found = fit(tiny.capped_bundle(), tmp_path / "new", examples, shots=(6,), seeds=1)
    record = found.manifest.fit
    assert record is not None
    assert (record.examples, record.shots, record.seed) == (dict.fromkeys(LABELS, 6), 6, 0)
    drawn = material.subset(examples, material.drawn_places(examples, LABELS, 6, 0))
    assert record.examples_sha256 == material.digest(drawn)
    left = [it for it in examples.texts if it not in drawn.texts]
    assert found.compared.fitted.texts == len(left)
    (trial,) = found.trials
    assert trial.compared is found.compared


# Real texts.


@pytest.fixture(scope="module")
def messages() -> list[tuple[str, str]]:
    """600 messages of the SMS Spam Collection, a third of them spam, each once."""
    rows = read_jsonl(needs_data("sms", "all.jsonl"))
    kept = dict.fromkeys((row["text"], row["label"]) for row in rows)
    spam = [it for it in kept if it[1] == "spam"][:200]
    return spam + [it for it in kept if it[1] == "ham"][:400]


def test_a_task_that_the_model_never_saw(
    sentiment: Path, messages: list[tuple[str, str]], tmp_path: Path
) -> None:
    """gemma-mini was trained on reviews and news; its head for reviews learns to find spam."""
    train = write_rows(tmp_path / "train.jsonl", messages[::2])
    test = write_rows(tmp_path / "test.jsonl", messages[1::2])
    names = ("--map", "ham=positive,spam=negative", "--json")
    done = run(sentiment, "--examples", train, "--test", test, "-o", tmp_path / "new", *names)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["scored_texts"] == 300
    assert report["majority"] == pytest.approx(2 / 3)
    assert report["fitted"]["accuracy"] > 0.85
    assert report["fitted"]["accuracy"] > report["zero_shot"]["accuracy"] + 0.1


def test_labels_that_mean_nothing_teach_nothing(
    sentiment: Path, messages: list[tuple[str, str]], tmp_path: Path
) -> None:
    generator = np.random.default_rng(3)
    texts = tuple(text for text, _ in messages)
    gold = tuple(np.array(LABELS)[generator.permutation(np.arange(len(texts)) % 2)].tolist())
    data = Texts(texts[:300], gold[:300]), Texts(texts[300:], gold[300:])
    found = fit(sentiment, tmp_path / "new", data[0], test=data[1]).compared.fitted
    low, high = found.interval
    assert low < 0.5 < high
