"""`trimexport calibrate`: the bias that is found, and what it does to a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tiny
from trimexport import (
    ExportError,
    OutputError,
    SpecError,
    Texts,
    calibrate,
    undo_calibration,
    verify,
)
from trimexport.bundle.written_graph import BIAS, CALIBRATION, add_bias, load_graph
from trimexport.cli import main
from trimexport.numerics import softmax
from trimexport.tensorrt.readable import require_readable
from trimexport.tuning.bias import check_prior
from trimexport.tuning.bias_methods import even_out, match_prior
from trimexport_runtime import BundleError, Classifier, IntegrityError, check_files, read_manifest
from trimexport_runtime.bundle import Engine, Profile
from trimexport_runtime.cli import main as runtime
from trimexport_runtime.engine import keep_engine
from tuning import Interrupted, files_up_to

TEXTS = (
    *tiny.TEXTS,
    "Shares fell after the bank reported a loss",
    "a warm and funny film",
    "nobody knows why",
)
PRIOR = {"positive": 0.6, "negative": 0.3, "neutral": 0.1}


@pytest.fixture
def capped(tmp_path: Path) -> Path:
    """A copy of the bundle with several variants, to change, alone in its directory."""
    return Path(shutil.copytree(tiny.capped_bundle(), tmp_path / "place" / "bundle"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


def refused(*arguments: object, code: int = 1) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# The numbers.

LOGITS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 30), st.integers(2, 5)),
    elements=st.floats(-40, 40, allow_nan=False, width=32),
)


def test_contextual_calibration_is_division_by_the_content_free_probabilities() -> None:
    """Zhao et al. (2021), equation 1 with W = diag(p_cf)^-1 and b = 0."""
    generator = np.random.default_rng(0)
    empty, texts = generator.normal(size=(3, 4)), generator.normal(size=(50, 4))
    divided = softmax(texts) / softmax(empty).mean(axis=0)
    expected = divided / divided.sum(axis=1, keepdims=True)
    assert softmax(texts + even_out(empty)) == pytest.approx(expected)


def test_one_text_that_says_nothing_is_answered_evenly() -> None:
    logits = np.array([[3.0, -1.0, 800.0]])  # of the first two no probability is left as a number
    assert softmax(logits + even_out(logits)) == pytest.approx(np.full((1, 3), 1 / 3))


@settings(max_examples=60, deadline=None)
@given(LOGITS, st.randoms(use_true_random=False))
def test_what_holds_for_every_bias(logits: np.ndarray, random: object) -> None:
    generator = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    rows, labels = (generator.permutation(size) for size in logits.shape)
    prior = generator.dirichlet(np.full(logits.shape[1], 5.0))
    shift = generator.normal(size=(len(logits), 1))
    matched = match_prior(logits, prior)
    assert matched.residual < 1e-9
    assert softmax(logits + matched.bias).mean(axis=0) == pytest.approx(prior, abs=1e-8)
    for bias, again in (
        (even_out(logits), even_out((logits + shift)[rows][:, labels])),
        (matched.bias, match_prior((logits + shift)[rows][:, labels], prior[labels]).bias),
    ):
        assert bias.sum() == pytest.approx(0, abs=1e-9)
        # Compared as shares: where every answer is sure, many biases give the same ones.
        left = softmax(logits + bias).mean(axis=0)[labels]
        right = softmax(logits[:, labels] + again).mean(axis=0)
        assert left == pytest.approx(right, abs=1e-6)


def test_priors_that_are_none() -> None:
    labels = ("a", "b")
    assert check_prior({"b": 0.25, "a": 0.75}, labels).tolist() == [0.75, 0.25]
    for prior, message in (
        ({"a": 0.5, "c": 0.5}, "the prior names 'c', the bundle's labels are a, b; give each"),
        ({"a": 1.0}, "the prior says nothing of 'b'; give every label its share: a, b"),
        ({"a": 0.5, "b": 0.6}, "the prior's shares sum to 1.1; make them sum to 1"),
        ({"a": 1.0, "b": 0.0}, "the prior of 'a' is 1; give a share above 0 and below 1"),
        ({"b": float("nan"), "a": 0.5}, "the prior of 'b' is nan; give a share above 0"),
    ):
        with pytest.raises(SpecError, match=message):
            check_prior(prior, labels)


# The bundle.


def test_the_bias_is_what_is_added_to_the_logits_of_every_variant(capped: Path) -> None:
    names = [it.name for it in read_manifest(capped).variants]
    assert names == ["int8", "fp32", "tensorrt-fp16"]
    before = {name: Classifier.load(capped, variant=name).logits(TEXTS) for name in names}
    found = calibrate(capped, TEXTS)
    bias = np.array(found.calibration.bias, dtype=np.float32)
    assert bias.astype(np.float64).tolist() == list(found.calibration.bias)
    assert np.abs(bias).max() > 0.1
    assert (found.calibration.method, found.calibration.variant) == ("batch", "int8")
    assert bias == pytest.approx(even_out(before["int8"].astype(np.float64)), abs=1e-6)
    for name in names:
        after = Classifier.load(capped, variant=name)
        assert np.array_equal(after.logits(TEXTS), before[name] + bias)
        assert np.array_equal(after.logits(TEXTS[:1]), after.logits(TEXTS)[:1])


def test_all_else_of_the_bundle_stays(capped: Path) -> None:
    (capped / "reports" / "mine").mkdir()
    write(capped / "reports" / "mine" / "eval.json", "{}")
    before, inode = tiny.snapshot(capped), (capped / "onnx" / "model_int8.onnx_data").stat().st_ino
    calibrate(capped)
    after, manifest = tiny.snapshot(capped), read_manifest(capped)
    changed = {name for name in before if before[name] != after[name]}
    graphs = {f"onnx/model{it}.onnx" for it in ("", "_int8", "_fp32", "_tensorrt_fp16")}
    assert changed == {*graphs, "trimexport.json", "README.md"}
    assert set(after) == set(before)
    assert after["onnx/model.onnx"] == after["onnx/model_int8.onnx"]
    assert (capped / "onnx" / "model_int8.onnx_data").stat().st_ino == inode
    assert list(capped.parent.iterdir()) == [capped]
    check_files(capped, manifest, hashes=True)
    for variant in manifest.variants:
        tiny.check_size(capped, variant)
        onnx.checker.check_model(str(capped / variant.graph))
        last = load_graph(capped / variant.graph).graph.node[-1]
        assert (last.op_type, last.name, last.input[1]) == ("Add", CALIBRATION, BIAS)
    require_readable(capped / manifest.variant("tensorrt-fp16").graph)
    card = (capped / "README.md").read_text(encoding="utf-8")
    assert "Calibrated: content-free on 3 texts, logits moved by positive " in card
    info = CliRunner().invoke(runtime, ["info", str(capped), "--check"])
    assert "calibration content-free on 3 texts: positive " in info.stdout


def test_a_card_in_another_encoding_stays_as_it_is(tiny_bundle_copy: Path) -> None:
    card = tiny_bundle_copy / "README.md"
    card.write_bytes("caf\u00e9\r\n".encode("latin-1"))
    calibrate(tiny_bundle_copy)
    assert card.read_bytes().startswith(b"caf\xe9")
    assert b"Calibrated" in card.read_bytes()


def test_undoing_restores_every_file(capped: Path) -> None:
    manifest = replace(read_manifest(capped), calibration=None)
    before = tiny.snapshot(capped)
    calibrate(capped)
    calibrate(capped, TEXTS, PRIOR)
    assert undo_calibration(capped) == ()
    after = tiny.snapshot(capped)
    assert read_manifest(capped) == manifest
    assert {name for name in before if before[name] != after[name]} <= {"trimexport.json"}


def test_calibrating_again_replaces_the_bias(capped: Path) -> None:
    once = calibrate(capped, TEXTS).calibration
    calibrate(capped)
    again = calibrate(capped, TEXTS)
    assert again.calibration.bias == pytest.approx(once.bias, abs=1e-6)
    graph = load_graph(capped / "onnx" / "model.onnx").graph
    assert sum(node.name == CALIBRATION for node in graph.node) == 1


def test_a_prior_is_met_by_the_bundle(capped: Path) -> None:
    found = calibrate(capped, TEXTS, PRIOR)
    assert found.residual is not None
    assert found.residual < 1e-6
    shares = np.array([it.probabilities for it in Classifier.load(capped).classify(TEXTS)])
    assert shares.mean(axis=0) == pytest.approx(list(PRIOR.values()), abs=1e-5)
    assert read_manifest(capped).calibration == found.calibration
    assert found.calibration.prior == PRIOR


def test_verify_adds_the_bias_that_is_recorded(capped: Path) -> None:
    calibrate(capped, TEXTS)
    sample = Texts(tiny.TEXTS)
    report = verify(capped, sample=sample, backends=("onnxruntime", "pytorch"))
    assert report.within
    assert {it.name for it in report.variants} == {"trimmed", "int8", "fp32", "tensorrt-fp16"}

    def wrong(raw: dict[str, dict[str, list[float]]]) -> None:
        raw["calibration"]["bias"][0] += 0.01

    tiny.edit_json(capped / "trimexport.json", wrong)
    assert not verify(capped, sample=sample).within


def test_an_engine_of_the_old_graph_is_left_behind(capped: Path) -> None:
    manifest = read_manifest(capped)
    files = {it.path: it.sha256 for it in manifest.files}
    graph = manifest.variant("tensorrt-fp16").graph
    shapes = (Profile((1, 32), (8, 64)),)
    engine = Engine("tensorrt/model_fp16.plan", 0, "", "10.12", "8.9", "GPU", shapes,
                    {graph: files[graph]})  # fmt: skip
    keep_engine(capped, "tensorrt-fp16", engine, b"plan")
    done = run(capped, "--content-free", "--json")
    assert json.loads(done.stdout)["engines_dropped"] == ["tensorrt-fp16"]
    assert "the TensorRT engine of tensorrt-fp16 was of the graph from before" in done.stderr
    assert f"trimexport-run build-engines {capped}" in done.stderr
    assert read_manifest(capped).variant("tensorrt-fp16").engine is None
    assert not (capped / "tensorrt" / "model_fp16.plan").exists()


# What goes wrong.


def test_the_bundle_survives_an_interruption_and_a_failed_write(capped: Path) -> None:
    before = tiny.snapshot(capped)
    with pytest.raises(KeyboardInterrupt):
        calibrate(capped, TEXTS, progress=Interrupted("writing the graphs"))
    with files_up_to(1000), pytest.raises(OutputError, match="Copy the bundle to where there is"):
        calibrate(capped, TEXTS)
    assert tiny.snapshot(capped) == before
    assert list(capped.parent.iterdir()) == [capped]


def test_a_graph_that_becomes_invalid_is_refused(capped: Path) -> None:
    model = load_graph(capped / "onnx" / "model.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="the changed graph is not valid ONNX"):
        add_bias(model, (1.0, -1.0, 0.0))
    with pytest.raises(ExportError, match="none that trimexport wrote"):
        add_bias(onnx.ModelProto(), (1.0,))


def test_a_damaged_bundle_is_refused_and_left_alone(capped: Path) -> None:
    data = capped / "onnx" / "model_int8.onnx_data"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    before = tiny.snapshot(capped)
    with pytest.raises(IntegrityError, match="was altered: its SHA-256"):
        calibrate(capped)
    with pytest.raises(SpecError, match="there is no text to calibrate on; give one at least"):
        calibrate(capped, ())
    with pytest.raises(SpecError, match="a prior is the labels' shares among texts; give texts"):
        calibrate(capped, prior=PRIOR)
    assert tiny.snapshot(capped) == before


def test_a_calibration_of_other_labels_makes_a_damaged_manifest(capped: Path) -> None:
    calibrate(capped)
    for change, message in (
        ({"bias": [1.0]}, "the calibration has 1 numbers, not 3"),
        ({"bias": ["1", "2", "3"]}, r"calibration\.bias\[0\] is"),
        ({"prior": {"positive": "much"}}, r'calibration\.prior\["positive"\] is'),
    ):
        raw = json.loads((capped / "trimexport.json").read_text())
        raw["calibration"] |= change
        path = write(capped.parent / "trimexport.json", json.dumps(raw))
        with pytest.raises(BundleError, match=message):
            read_manifest(path.parent)


def test_messages(tiny_bundle: Path, tmp_path: Path) -> None:
    empty, texts = write(tmp_path / "empty.txt", ""), write(tmp_path / "texts.txt", "a\nb\n")
    before = tiny.snapshot(tiny_bundle)
    for arguments, message in (
        (("--undo",), "has no calibration to undo; `trimexport calibrate"),
        (("--texts", empty), "holds no text; give a file with one text a line at least"),
        (("--texts", texts, "--prior", "positive=0.5,good=0.5"), "the prior names 'good'"),
        (("--texts", texts, "--prior", "positive=0.5,positive=0.5"), "names 'positive' twice"),
    ):
        assert message in refused(tiny_bundle, *arguments)
    for arguments, message in (
        ((), "give one of --content-free, --texts FILE and --undo."),
        (("--undo", "--content-free"), "give one of --content-free, --texts FILE and --undo."),
        (("--content-free", "--prior", "a=1"), "give --texts FILE too."),
        (("--texts", texts, "--prior", "positive"), "'positive' is none."),
        (("--texts", texts, "--prior", "positive=a lot"), "'positive=a lot' is none."),
    ):
        assert message in refused(tiny_bundle, *arguments, code=2)
    assert "does not exist" in refused(tmp_path / "nothing", "--content-free")
    assert tiny.snapshot(tiny_bundle) == before


def test_what_is_printed(tiny_bundle_copy: Path, tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.csv", "text,label\na gorgeous film,?\ndull,?\n")
    prior = ("--prior", "negative=0.25, positive=0.75")
    found = json.loads(run(tiny_bundle_copy, "--texts", texts, *prior, "--json").stdout)
    table = run(tiny_bundle_copy, "--texts", texts, *prior).stdout
    assert (found["method"], found["texts"], found["variant"]) == ("prior", 2, "fp32")
    assert found["prior"] == {"positive": 0.75, "negative": 0.25}
    assert found["mean_probabilities_after"]["positive"] == pytest.approx(0.75, abs=1e-6)
    for label, bias in found["bias"].items():
        (line,) = [it for it in table.splitlines() if it.startswith(label)]
        assert f"{bias:+.4f}" in line
        assert f"{found['mean_probabilities_before'][label]:.2%}" in line
    assert "the prior is met to within " in table
    assert f"{found['answers_changed']} of their answers change" in table
    undone = run(tiny_bundle_copy, "--undo")
    assert undone.stdout == f"{tiny_bundle_copy}: the calibration is undone\n"
    run(tiny_bundle_copy, "--content-free")
    assert json.loads(run(tiny_bundle_copy, "--undo", "--json").stdout)["calibration"] is None


def test_pytorch_is_not_needed(tiny_bundle_copy: Path) -> None:
    code = (
        "import sys; from trimexport.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print({name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "calibrate", str(tiny_bundle_copy), "--content-free"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = eval(done.stderr.splitlines()[-1])
    assert "onnx" in loaded
    assert not loaded & {"torch", "transformers", "sklearn"}
