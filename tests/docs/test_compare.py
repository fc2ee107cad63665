"""The comparison with other engines: real peers on gemma-mini, and what its tables say of numbers
that are known."""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import scatter
import tables
from compare import main
from exactness import exactness
from models import GEMMA_MINI
from workloads import Texts, read_texts

WORDS = ["the", "film", "was", "warm", "funny", "slow", "dull", "and", "then", "it", "ended"]
RECIPE = 'prompt = "Review: {text}\\nSentiment:"\n'
OTHER_PROMPT = "A review of a film: {text}\nSentiment:"
LABELLED = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and sentences of 22 tokens with labels."""
    directory = tmp_path_factory.mktemp("data")
    (directory / "reviews.toml").write_text(RECIPE, encoding="utf-8")
    (directory / "other.txt").write_text(OTHER_PROMPT, encoding="utf-8")
    file = directory / "test.jsonl"
    words = {"text": " ".join(random.Random(0).choices(WORDS, k=300))}
    file.write_text(json.dumps(words), encoding="utf-8")
    texts: Texts = read_texts(file, GEMMA_MINI / "tokenizer.json")
    labels = itertools.cycle(("positive", "negative"))
    rows = [
        {"text": text, "label": label}
        for text, label in zip(texts.composed(22, 8), labels, strict=False)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return directory


def peers_file(directory: Path, bundle: Path, *others: str) -> Path:
    """A peers file: the bundle, PyTorch as the reference, and others."""
    common = f"python = {json.dumps(sys.executable)}\n"
    checkpoint = f'script = "pytorch.py"\nartefact = {json.dumps(str(GEMMA_MINI))}\n'
    ours = f'name = "ours"\nscript = "trimexport_peer.py"\nartefact = {json.dumps(str(bundle))}\n'
    float32 = 'arguments = ["--dtype", "float32"]\nreference = true\nworkloads = ["one sentence"]\n'
    tables = [ours, f'name = "PyTorch fp32"\n{checkpoint}{float32}']
    tables += [f"{checkpoint}{other}" for other in others]
    file = directory / "peers.toml"
    file.write_text("".join(f"[[peer]]\n{common}{it}\n" for it in tables), encoding="utf-8")
    return file


def compare(peers: Path, data: Path, *options: str) -> Result:
    """Run the comparison; its output is beside the peers file."""
    always = [
        *("--recipe", str(data / "reviews.toml"), "--data", str(data)),
        *("--tokenizer", str(GEMMA_MINI / "tokenizer.json"), "-o", str(peers.parent / "out")),
        *("--threads", "1", "--rounds", "2", "--shape", "2x5", "--sentences", "3"),
    ]
    return CliRunner().invoke(main, [str(peers), *always, *options])


def test_peers_are_timed_and_judged(sentiment: Path, data: Path, tmp_path: Path) -> None:
    other = json.dumps(f"--prompt-file={data / 'other.txt'}")
    peers = peers_file(
        tmp_path,
        sentiment,
        f'name = "other prompt"\narguments = ["--dtype", "float32", {other}]\ngroup = 2\n',
    )
    counted = ("--labelled", str(LABELLED))
    first = compare(peers, data, *counted, "--group", "1")
    assert first.exit_code == 0, first.output
    second = compare(peers, data, *counted, "--group", "2", "--append")
    assert second.exit_code == 0, second.output
    out = peers.parent / "out"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    timed = {(run["workload"], tuple(sorted(run["seconds"]))) for run in results["runs"]}
    assert timed == {
        ("one sentence", ("PyTorch fp32", "ours")),
        ("2x5 tokens", ("ours",)),
        ("3 sentences", ("ours",)),
        *((name, ("other prompt", "ours")) for name in ("one sentence", "2x5 tokens")),
        ("3 sentences", ("other prompt", "ours")),
    }
    exact = exactness(results)
    assert list(exact) == ["ours", "PyTorch fp32", "other prompt"]
    assert exact["ours"].same_ids == exact["ours"].same == exact["ours"].texts == LABELLED
    error = exact["ours"].margin_error
    assert error is not None
    assert error < 1e-4, "the bundle's fp32 is PyTorch's"
    assert exact["other prompt"].same_ids == 0
    assert (exact["other prompt"].margin_error or 0) > 1e-3, "another prompt, other answers"
    weights = results["peers"]["PyTorch fp32"]["files_bytes"]
    assert weights == sum(file.stat().st_size for file in GEMMA_MINI.iterdir())
    table = (out / "table.md").read_text(encoding="utf-8")
    assert f"other prompt reads other ids than the reference on {LABELLED} of {LABELLED}" in table
    assert "| ours | < 0.001 |" in table
    assert "| PyTorch fp32 | reference |" in table
    drawn = (out / "scatter.svg").read_text(encoding="utf-8")
    assert drawn.count("<circle") == 3


def test_a_run_of_the_same_peers_is_replaced(sentiment: Path, data: Path, tmp_path: Path) -> None:
    peers = peers_file(tmp_path, sentiment)
    options = ("--only", "one sentence", "--labelled", str(LABELLED), "--append")
    for _ in range(2):
        result = compare(peers, data, *options)
        assert result.exit_code == 0, result.output
    out = peers.parent / "out"
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(results["runs"]) == 1
    assert "margin error" not in result.stdout, "nobody has been asked about labelled sentences"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--labelled", "9"), "there are 8 labelled sentences, not 9"),
        (("--group", "4"), "the groups are [1], not all of [4]"),
        (("--only", "two sentences"), "no such workload: two sentences"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    options: tuple[str, str], said: str, data: Path, tmp_path: Path
) -> None:
    result = compare(peers_file(tmp_path, tmp_path / "none"), data, *options)
    assert result.exit_code == 1
    assert said in result.stderr


def test_labelled_sentences_need_one_reference(data: Path, tmp_path: Path) -> None:
    again = 'name = "again"\narguments = ["--dtype", "float32"]\nreference = true\n'
    result = compare(peers_file(tmp_path, tmp_path / "none", again), data)
    assert result.exit_code == 1
    assert "2 peers have `reference = true`" in result.stderr


def known_results() -> dict[str, Any]:
    """Two workloads and four texts, of the first row, another peer of ours, two others, and one
    that was not asked about labelled sentences."""
    margins = {
        "ours int8": (2.1, -1.0, 1.0, -2.0),
        "ours fp32": (2.0, -1.0, 1.0, -2.0),
        "fast": (1.0, 1.0, -1.0, 1.0),
        "reference": (2.0, -1.0, 1.0, -2.0),
        "not asked": None,
    }
    seconds = {"ours int8": 0.02, "ours fp32": 0.04, "fast": 0.01, "reference": 0.06}

    def run(workload: str, factor: float) -> dict[str, Any]:
        times = {name: [factor * value] * 3 for name, value in seconds.items()}
        throughput = "sentences" in workload
        about = {"workload": workload, "texts": 10, "calls": 1, "throughput": throughput}
        return {**about, "prompt": "p", "seconds": times, "logits": {}}

    answered = {name: [[it, 0.0] for it in rows] for name, rows in margins.items() if rows}
    known = {"version": "1", "start_seconds": 1.0, "first_answer_seconds": 0.1}
    sizes = {"peak_rss_bytes": 10**9, "gpu_bytes": None, "files_bytes": 5 * 10**6}
    return {
        "machine": {
            "processor": "P",
            "cores": 2,
            "instructions": ["avx2"],
            "memory_bytes": 2**30,
        },
        "threads": 2,
        "peers": {
            name: {
                **known,
                **sizes,
                "own": name.startswith("ours"),
                "reference": name == "reference",
            }
            for name in margins
        },
        "failures": {},
        "runs": [run("one sentence", 1.0), run("10 sentences", 5.0)],
        "labelled": {
            "workload": "4 labelled sentences",
            "gold": [0, 1, 1, 1],
            "reference": "reference",
            "logits": answered,
            "ids": {name: ["a", "b", "c", "d"] for name in answered},
        },
    }


def test_exactness_is_that_of_the_margins() -> None:
    found = exactness(known_results())
    assert found["reference"].margin_error == 0
    error = found["ours int8"].margin_error
    # Errors (0.1, 0, 0, 0) have a standard deviation of 0.0433, the margins one of 1.5811.
    assert error == pytest.approx(0.0433 / 1.5811, rel=1e-3)
    assert (found["ours int8"].same, found["ours int8"].right) == (4, 3)
    assert (found["fast"].same, found["fast"].right) == (1, 2)
    assert not found["fast"].equal
    assert "not asked" not in found


def test_nothing_is_exact_before_the_reference_has_answered() -> None:
    results = known_results()
    del results["labelled"]["logits"]["reference"]
    assert exactness(results) == {}
    assert "margin error" not in tables.markdown(results, "ours int8")


def test_only_those_that_are_equally_exact_are_compared() -> None:
    one, many = tables.fastest(known_results(), "ours int8")
    assert (one.own.peer, one.other.peer, one.ratio) == ("ours int8", "reference", 3.0)
    assert (many.own.peer, many.other.peer) == ("ours int8", "reference")
    results = known_results()
    results["labelled"]["logits"]["ours int8"] = results["labelled"]["logits"]["fast"]
    one, _ = tables.fastest(results, "ours int8")
    assert (one.own.peer, one.ratio) == ("ours fp32", 1.5)


def test_the_table_marks_who_is_not_equally_exact() -> None:
    lines = tables.markdown(known_results(), "ours int8").splitlines()
    assert lines[0] == "P, 2 cores (avx2), 1.0 GiB; 2 threads."
    assert lines[4:9] == [
        "| ours int8 | 0.027 | 100.00% | 75.00% | 5 | 20.0 | 100 |",
        "| ours fp32 | < 0.001 | 100.00% | 75.00% | 5 | 40.0 (2.00) | 50.0 (2.00) |",
        "| fast † | 1.304 | 25.00% | 50.00% | 5 | 10.0 (0.50) | 200 (0.50) |",
        "| reference | reference | 100.00% | 75.00% | 5 | 60.0 (3.00) | 33.3 (3.00) |",
        "| not asked | – | – | – | 5 | – | – |",
    ]
    assert "| one sentence, ms | ours int8, 20.0 | reference, 60.0 | 3.00 |" in lines


def test_names_in_the_chart_do_not_cover_each_other() -> None:
    results = known_results()
    for name in ("ours int8", "ours fp32"):
        results["labelled"]["logits"][name] = results["labelled"]["logits"]["reference"]
    for run in results["runs"]:
        run["seconds"] = {name: [0.02] * 3 for name in run["seconds"]}
    drawn = scatter.svg(results, "ours int8", "one sentence")
    lines = [line for line in drawn.splitlines() if ", 20 ms</text>" in line]
    heights = sorted(float(line.split('y="')[1].split('"')[0]) for line in lines)
    assert len(heights) == 4
    assert all(b - a >= scatter.LINE for a, b in itertools.pairwise(heights[-3:]))
