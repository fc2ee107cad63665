"""What `bench` measures and compares, what it leaves out, and how it ends. Never how fast it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM, GemmaForSequenceClassification

import tiny
from models import harden
from trimexport.bench import process
from trimexport.bench import render as output
from trimexport.bench.machine import Machine, this_machine
from trimexport.bench.process import worker
from trimexport.bench.pytorch import Untrimmed
from trimexport.bench.rounds import BenchReport, Measured, Turn, rotated
from trimexport.bench.subjects import Subject, find_subjects
from trimexport.cli import main
from trimexport.errors import BenchError
from trimexport.texts import Texts
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.bundle import MANIFEST
from trimexport_runtime.tokenize import TextEncoder

Invoke = Callable[..., Result]
Refused = Callable[..., str]
GPU = "TensorrtExecutionProvider"
FIGURES = [
    "latency_p50_s",
    "latency_p90_s",
    "latency_p99_s",
    "texts_per_s",
    "startup_s",
    "resident_bytes",
    "peak_bytes",
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def _edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    tiny.edit_json(bundle / MANIFEST, change)
    return bundle


def _needs_gpu(variant: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {**variant, "providers": [GPU], **changes}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> tuple[Any, Path]:
    """A run with a variant that cannot run here, and a bundle to compare with: its JSON, and the
    bundle."""
    place = tmp_path_factory.mktemp("bench")
    bundle = _edit(
        shutil.copytree(tiny_bundle, place / "bundle"),
        lambda raw: raw["variants"].insert(0, _needs_gpu(raw["variants"][0], name="gpu")),
    )
    texts = [{"text": text, "label": "positive"} for text in tiny.TEXTS]
    (place / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    command = ["bench", bundle, "--against", tiny_bundle, "--texts", place / "texts.jsonl"]
    command += ["--rounds", "2", "--threads", "1", "--json"]
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == 0, done.output
    assert "round 1 of 2: " in done.stderr
    assert "round 2 of 2: " in done.stderr
    return json.loads(done.stdout), bundle


def test_what_is_measured(whole: tuple[Any, Path], tiny_bundle: Path) -> None:
    found, bundle = whole
    assert (found["rounds"], found["threads"]) == (2, 1)
    assert found["texts"] == found["texts_one_at_a_time"] == len(tiny.TEXTS)
    ours, other = found["subjects"]
    assert (ours["name"], ours["bundle"], ours["variant"]) == ("fp32", str(bundle), "fp32")
    assert (other["name"], other["bundle"]) == (f"{tiny_bundle}:fp32", str(tiny_bundle))
    assert found["versions"].keys() == {"trimexport_runtime", "onnxruntime", "numpy"}
    answers = [it.label for it in Classifier.load(bundle, variant="fp32").classify(tiny.TEXTS)]
    for subject in found["subjects"]:
        assert subject["file_bytes"] == read_manifest(tiny_bundle).variants[0].bytes
        assert subject["labels"] == answers
        assert subject["agreement"] == 1.0
        assert subject["accuracy"] == answers.count("positive") / len(answers)


def test_how_the_figures_hang_together(whole: tuple[Any, Path]) -> None:
    found, _ = whole
    for subject in found["subjects"]:
        figures = subject["figures"]
        assert list(figures) == FIGURES
        for figure in figures.values():
            assert len(figure["rounds"]) == 2
            assert min(figure["rounds"]) <= figure["median"] <= max(figure["rounds"])
            assert figure["median"] > 0
        at = {name: figure["median"] for name, figure in figures.items()}
        assert at["latency_p50_s"] <= at["latency_p90_s"] <= at["latency_p99_s"]
        assert at["latency_p50_s"] < at["startup_s"]
        assert subject["file_bytes"] < at["resident_bytes"] <= at["peak_bytes"]
    first, other = (subject["figures"] for subject in found["subjects"])
    for name in FIGURES:
        assert first[name]["ratio"] == 1.0
        rounds = zip(other[name]["rounds"], first[name]["rounds"], strict=True)
        ratios = [a / b for a, b in rounds]
        assert min(ratios) <= other[name]["ratio"] <= max(ratios)


def test_a_variant_that_cannot_run_here_is_left_out(whole: tuple[Any, Path]) -> None:
    found, _ = whole
    (left_out,) = found["left_out"]
    assert left_out["name"] == "gpu"
    assert f'variant "gpu" needs {GPU}' in left_out["reason"]


def test_this_machine_is_named(whole: tuple[Any, Path]) -> None:
    machine = whole[0]["machine"]
    assert machine == json.loads(json.dumps(vars(this_machine())))
    assert machine["processor"]
    assert 1 <= machine["cores"] <= (os.cpu_count() or 1)
    if sys.platform == "linux":
        assert machine["memory_bytes"] > 1 << 28
        assert machine["instructions"] is not None


def test_the_runtime_s_worker_loads_nothing_else(tiny_bundle: Path) -> None:
    request = {"do": "load", "bundle": str(tiny_bundle), "variant": None, "threads": 1}
    lines = [
        {**request, "model": None, "dtype": None},
        {"do": "answer", "texts": ["a"]},
        {"do": "memory"},
    ]
    command = [sys.executable, "-X", "importtime", *process.COMMAND[1:]]
    done = subprocess.run(
        command, input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, check=True
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(reply) for reply in replies] == [["versions"], ["labels"], ["peak", "resident"]]
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    loaded = {name.partition(".")[0] for name in imported}
    assert {"trimexport_runtime", "onnxruntime", "numpy", "tokenizers"} <= loaded
    assert not loaded & {"torch", "transformers", "onnx", "trimexport", "safetensors", "click"}


def test_pytorch_answers_in_a_process_of_its_own(tiny_bundle: Path, tiny_model: Path) -> None:
    found = find_subjects(f"{tiny_bundle}:fp32", ["pytorch-bf16"], None)
    ours, theirs = found.subjects
    assert (ours.name, ours.variant, ours.optional) == ("fp32", "fp32", False)
    assert theirs.bytes == (tiny_model / "model.safetensors").stat().st_size
    assert (theirs.model, theirs.dtype) == (tiny_model, "bfloat16")
    with worker(theirs) as ask:
        loaded = ask("load", **theirs.request(), threads=1)
        assert {"torch", "transformers"} <= loaded["versions"].keys()
        assert set(ask("answer", texts=list(tiny.TEXTS))["labels"]) <= set(found.labels)


def test_pytorch_answers_as_the_bundle_does(tiny_bundle: Path, tiny_model: Path) -> None:
    texts = [*tiny.TEXTS, "a", "a long and winding text " * 3]
    answers = [it.label for it in Classifier.load(tiny_bundle).classify(texts)]
    untrimmed = Untrimmed(str(tiny_bundle), str(tiny_model), "float32", None)
    assert untrimmed.labels(texts) == answers
    assert len(set(answers)) == 2


def _rows(bundle: Path) -> list[torch.Tensor]:
    """Each text's whole prompt, [1, tokens]."""
    manifest = read_manifest(bundle)
    encoder, prompt = TextEncoder.load(bundle, manifest), manifest.prompt
    return [
        torch.tensor([[*prompt.prefix_ids, *encoder.encode(it).ids.tolist(), *prompt.suffix_ids]])
        for it in tiny.TEXTS
    ]


def test_pytorch_adds_the_words_of_a_label(tiny_bundle_copy: Path, tiny_model: Path) -> None:
    words = ([7, 500, 4242], [923])
    for label, ids in zip((0, 1), words, strict=True):
        _edit(
            tiny_bundle_copy, lambda raw, at=label, to=ids: raw["labels"][at].update(token_ids=to)
        )
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        shares = [model(row).logits[0, -1].softmax(-1) for row in _rows(tiny_bundle_copy)]
    expected = [
        "positive" if share[words[0]].sum() > share[words[1]].sum() else "negative"
        for share in shares
    ]
    untrimmed = Untrimmed(str(tiny_bundle_copy), str(tiny_model), "float32", None)
    assert untrimmed.labels(tiny.TEXTS) == expected
    assert len(set(expected)) == 2


def test_pytorch_runs_a_fine_tuned_classifier(tiny_bundle_copy: Path, tmp_path: Path) -> None:
    config = tiny.tiny_config(num_labels=2, architectures=["GemmaForSequenceClassification"])
    model = harden(GemmaForSequenceClassification(config), seed=3)
    model.save_pretrained(tmp_path / "classifier")
    _edit(tiny_bundle_copy, lambda raw: raw["source"].update(architecture=config.architectures[0]))
    names = read_manifest(tiny_bundle_copy).label_names
    with torch.no_grad():
        expected = [names[int(model(row).logits.argmax())] for row in _rows(tiny_bundle_copy)]
    untrimmed = Untrimmed(str(tiny_bundle_copy), str(tmp_path / "classifier"), "float32", None)
    assert untrimmed.labels(tiny.TEXTS) == expected
    assert len(set(expected)) == 2


def _measured(name: str, values: list[float | None], labels: str) -> Measured:
    turns = [Turn(dict.fromkeys(FIGURES, it), tuple(labels), {"numpy": "2"}) for it in values]
    return Measured(Subject(name, Path("b"), 4_000_000), tuple(turns))


def test_rounds_are_compared_one_by_one() -> None:
    first, other = _measured("a", [1, 4, 10], "xxyy"), _measured("b", [2, 4, 40], "xyyy")
    assert (first.figure("startup_s"), other.figure("startup_s")) == (4, 4)
    assert other.ratio("startup_s", first) == 2  # of 2, 1 and 4
    assert other.agreement(first.labels) == 0.75
    assert [rotated([0, 1, 2], by) for by in (0, 1, 3)] == [[0, 1, 2], [1, 2, 0], [0, 1, 2]]


def test_the_table() -> None:
    measured = (_measured("fp32", [0.5], "xx"), _measured("pytorch", [2.0], "xy"))
    sample = Texts(("s", "t"), ("x", "y"))
    report = BenchReport(measured, {"gpu": "gpu: needs one"}, sample, 2, None, 1)
    machine = Machine("a processor", 2, ("avx2", "avx512_vnni"), 3 << 30, "Linux", "3.11")
    lines = output.table(report, machine).splitlines()
    assert lines[0] == "a processor, cores: 2, memory: 3.0 GiB (avx2 avx512_vnni)"
    assert lines[1:3] == ["Linux, Python 3.11", "numpy 2"]
    assert lines[3].startswith("2 texts, 2 of them one at a time; each engine's own choice")
    heading = (
        "p50 ms p90 ms p99 ms texts/s start s resident MB peak MB files MB same labels accuracy"
    )
    assert " ".join(lines[5].split()) == heading
    shown = "fp32 500.00 500.00 500.00 0.5 0.50 0 0 4.0 100.00% 50.00%"
    assert " ".join(lines[6].split()) == shown
    assert lines[7].split()[-2:] == ["50.00%", "100.00%"]
    assert lines[9].startswith("against fp32, round by round")
    assert lines[11].split() == ["pytorch", *["4.00x"] * 7, "1.00x"]
    assert lines[-1] == "left out: gpu: needs one"


def test_the_table_of_a_machine_that_tells_little() -> None:
    measured = (_measured("fp32", [None, None], "x"), _measured("int8", [None, None], "x"))
    report = BenchReport(measured, {}, Texts(("t",)), 1, 3, 2)
    lines = output.table(report, Machine("", 1, None, None, "other", "3.11")).splitlines()
    assert lines[0].endswith("memory: ? GiB (instruction sets unknown)")
    assert "threads: 3" in lines[3]
    assert lines[6].split() == ["fp32", *["?"] * 7, "4.0", "100.00%"]
    assert lines[-1].split() == ["int8", *["?"] * 7, "1.00x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'BUNDLE'"),
        (["B", "--threads", "0"], "0 is not in the range x>=1"),
        (["B", "--rounds", "0"], "0 is not in the range x>=1"),
        (["B", "--texts", "none.txt"], "'none.txt' does not exist"),
        (["B", "--model", "x"], "--model is where --against pytorch finds the model"),
    ],
)
def test_wrong_usage(tiny_refused: Refused, arguments: list[str], message: str) -> None:
    assert message in tiny_refused("bench", *arguments, code=2)


def test_wrong_subjects(tiny_refused: Refused, tiny_bundle: Path) -> None:
    for arguments, message in (
        (["none"], "none does not exist; give the directory that `trimexport build -o` wrote"),
        (["none:int8"], "none does not exist"),
        ([f"{tiny_bundle}:int3"], 'the bundle has no variant "int3"; it has: fp32'),
        ([tiny_bundle, "--against", f"{tiny_bundle}:int3"], 'has no variant "int3"'),
        ([tiny_bundle, "--against", "torch"], "--against torch is neither a bundle's directory"),
        ([tiny_bundle, "--against", "none:int8"], "nor one of pytorch, pytorch-bf16; name one"),
        ([tiny_bundle, "--against", "pytorch", "--model", "none"], "none does not exist"),
    ):
        assert message in tiny_refused("bench", *arguments)


def test_a_bundle_with_other_labels(
    tiny_refused: Refused, tiny_bundle: Path, tiny_bundle_copy: Path
) -> None:
    other = _edit(tiny_bundle_copy, lambda raw: raw["labels"][0].update(name="good"))
    said = tiny_refused("bench", tiny_bundle, "--against", other)
    assert "answers with good, negative, the bundle with positive, negative; give one" in said


def test_texts_with_other_labels(tiny_refused: Refused, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,label\na,mixed\n", encoding="utf-8")
    said = tiny_refused("bench", tiny_bundle, "--texts", tmp_path / "texts.csv")
    assert "the texts are labelled mixed" in said


def test_a_checkpoint_that_has_moved(tiny_refused: Refused, tiny_bundle_copy: Path) -> None:
    _edit(tiny_bundle_copy, lambda raw: raw["source"].update(directory="gone"))
    said = tiny_refused("bench", tiny_bundle_copy, "--against", "pytorch")
    assert "was made from gone, which is not there any more" in said


def test_no_variant_can_run_here(
    tiny_refused: Refused, tiny_bundle: Path, tiny_bundle_copy: Path
) -> None:
    _edit(tiny_bundle_copy, lambda raw: raw["variants"][0].update(providers=[GPU]))
    said = tiny_refused("bench", tiny_bundle_copy, "--against", tiny_bundle)
    assert f'Error: no variant can run here; fp32: variant "fp32" needs {GPU}' in said
    named = tiny_refused("bench", f"{tiny_bundle_copy}:fp32")
    assert f'Error: fp32: variant "fp32" needs {GPU}' in named


def test_a_damaged_bundle(tiny_refused: Refused, tiny_bundle_copy: Path) -> None:
    (tiny_bundle_copy / "tokenizer.json").unlink()
    said = tiny_refused("bench", tiny_bundle_copy)
    assert f"Error: fp32: {tiny_bundle_copy}/tokenizer.json is missing from the bundle" in said


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "fp32 was ended by SIGKILL, as systems do when"),
        ("import os; os.abort()", "fp32 was ended by SIGABRT"),
        ("import none", "fp32 ended with exit status 1: ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "fp32 ended with exit status 3: it said nothing"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_worker_that_dies(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, code: str, message: str
) -> None:
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-c", code])
    with (
        worker(Subject("fp32", tiny_bundle, 1)) as ask,
        pytest.raises(BenchError, match=message) as caught,
    ):
        ask("answer", texts=["a"] * 100_000)  # more than a pipe holds
    assert "\n" not in str(caught.value)


def test_an_error_that_nobody_foresaw(tiny_bundle: Path) -> None:
    with worker(Subject("fp32", tiny_bundle, 1)) as ask:
        with pytest.raises(BenchError, match="fp32: AssertionError: load comes first"):
            ask("answer", texts=["a"])
        assert ask("memory").keys() == {"resident", "peak"}  # it goes on


def _children(parent: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


def _wait_for_the_end(workers: list[int]) -> None:
    """An interruption in the middle of a start leaves the worker only the end of its input, which
    it reads once its imports are done."""
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_worker(tiny_bundle: Path, tmp_path: Path, number: int) -> None:
    command = [*tiny.PROGRAM, "bench", str(tiny_bundle), "--rounds", "1000"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (workers := _children(running.pid)):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(number)
        printed, said = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert (running.returncode, printed) == (130, "")
    assert said.splitlines()[-1] == "Interrupted"
    assert "Traceback" not in said
    _wait_for_the_end(workers)
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_worker_ends_with_its_input(tiny_bundle: Path) -> None:
    """So that it does not outlive a parent that was killed."""
    done = subprocess.run(process.COMMAND, stdin=subprocess.DEVNULL, timeout=60, check=True)
    assert done.returncode == 0
