"""What `trimexport fit` refuses, notes and survives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tiny
from trimexport import OutputError, SpecError, Texts, fit
from trimexport.cli import main
from trimexport.progress import Silent
from trimexport.records import text_sha256
from trimexport.tuning import examples as material
from trimexport.tuning.hidden_states import States, read_states
from trimexport_runtime import InputError, IntegrityError, check_files, read_manifest
from tuning import FRAMES, LABELS, Interrupted, files_up_to, made, rows_of, write_rows


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["fit", *map(str, arguments)])


@pytest.fixture(scope="module")
def examples() -> Texts:
    return made(FRAMES[:3])


@pytest.fixture(scope="module")
def test_texts() -> Texts:
    return made(FRAMES[3:])


def test_nothing_is_left_by_an_interruption_or_a_failed_write(
    tmp_path: Path, examples: Texts
) -> None:
    source, place = tiny.capped_bundle(), tmp_path / "place"
    before = tiny.snapshot(source)
    place.mkdir()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(source, place / "new", examples, progress=Interrupted("writing the bundle"))
        with files_up_to(100_000), pytest.raises(OutputError, match="cannot be written"):
            fit(source, place / "new", examples)
    assert list(place.iterdir()) == []
    assert tiny.snapshot(source) == before


def test_a_damaged_bundle_and_an_output_that_exists(tmp_path: Path, examples: Texts) -> None:
    damaged = Path(shutil.copytree(tiny.capped_bundle(), tmp_path / "damaged"))
    graph = damaged / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match="was altered"):
        fit(damaged, tmp_path / "new", examples)
    with pytest.raises(OutputError, match="exists; give --force to replace it"):
        fit(tiny.capped_bundle(), damaged, examples)
    fit(tiny.capped_bundle(), damaged, examples, force=True)
    check_files(damaged, read_manifest(damaged), hashes=True)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["damaged"]


def test_what_is_noted_of_the_texts() -> None:
    a, b = LABELS[:2]
    data = Texts(("one", "one", "two", "three", "three", "four"), (a, a, a, a, b, b))
    test = Texts(("two", "five", "three", "six"), (a, a, b, a))
    found = material.prepare(data, test, (a, b))
    assert found.examples.texts == ("one", "two", "three", "three", "four")
    assert found.test is not None
    assert found.test.texts == ("five", "six")
    assert found.notes == (
        "1 examples stand there before with the same label; each is one",
        "1 examples have the text of another and a different label: 'three'; check the labels",
        "2 texts of the test are examples too; they are not scored",
        "no text of the test has the label negative",
    )


def test_texts_that_the_prompt_shows_are_noted(tmp_path: Path, examples: Texts) -> None:
    bundle = Path(shutil.copytree(tiny.capped_bundle(), tmp_path / "bundle"))
    shown = [text_sha256(text) for text in examples.texts[:2]]
    tiny.edit_json(bundle / "trimexport.json", lambda raw: raw["prompt"].update(examples=shown))
    found = fit(bundle, tmp_path / "new", examples)
    (note,) = found.notes
    assert note == "2 texts that are scored stand in the bundle's prompt; judge it by others"


def test_examples_that_are_not_enough() -> None:
    def look(golds: list[int], shots: tuple[int, ...] = (), test: Texts | None = None) -> None:
        gold = tuple(LABELS[place] for place in golds)
        data = Texts(tuple(f"text {place}" for place in range(len(golds))), gold)
        material.require_shots(material.prepare(data, test, LABELS[:2]), LABELS[:2], shots)

    def refused(golds: list[int], message: str, **more: Any) -> None:
        with pytest.raises(SpecError, match=message):
            look(golds, **more)

    refused([0, 0, 0], "all 3 examples are 'positive'; a head is fitted on examples of every label")
    refused([0, 0, 1], "the label 'negative' has 1 examples, repeated ones left out; fitting needs")
    pair = [0, 0, 1, 1, 1]
    refused(pair, "--shots 3 needs as many examples of every label; 'positive' has 2", shots=(3,))
    refused(pair, "--shots 1: a draw needs 2 of each label at least", shots=(1, 2))
    refused(pair[:4], "--shots 2 draws every example, so none is left to score on", shots=(2,))
    same = Texts(("text 0",), LABELS[:1])
    refused(pair, "every text of --test is an example too; give texts that are not", test=same)


def test_nothing_is_fitted_to_states_that_are_no_numbers(tiny_bundle_copy: Path) -> None:
    manifest = read_manifest(tiny_bundle_copy)
    tiny.spoil(tiny_bundle_copy, "\u262f")

    def states(*texts: str) -> States:
        return read_states(tiny_bundle_copy, manifest, manifest.variants[0], texts, Silent())

    assert np.isfinite(states("dull", "a film").hidden).all()
    with pytest.raises(
        InputError, match="the text '\u262f': the variant fp32 gives it a logit that"
    ):
        states("dull", "\u262f")


def test_messages_of_the_command(tmp_path: Path, examples: Texts, test_texts: Texts) -> None:
    good = write_rows(tmp_path / "good.jsonl", rows_of(examples))
    empty = write_rows(tmp_path / "empty.jsonl", [])
    other = write_rows(tmp_path / "other.jsonl", [("a", "splendid")])
    bundle, output = tiny.capped_bundle(), tmp_path / "new"
    for code, data, more, message in (
        (1, empty, (), "holds no text"),
        (
            1,
            other,
            (),
            "line 1: the label 'splendid' is none of positive, negative, neutral; say which it is",
        ),
        (1, good, ("--map", "a=b"), "'b' is none of the bundle's labels"),
        (1, good, ("--shots", "61"), "--shots 61 needs as many examples of every label"),
        (2, good, ("--shots", "few"), "--shots is numbers such as 16,64,256, not 'few'."),
        (2, good, ("--seeds", "0"), "--seeds"),
    ):
        done = run(bundle, "--examples", data, "-o", output, *more)
        assert (done.exit_code, done.stdout) == (code, ""), done.output
        assert message in done.stderr
    done = run(bundle, "--examples", good, "-o", bundle)
    assert "exists; give --force" in done.stderr
    assert sorted(it.name for it in tmp_path.iterdir()) == [
        "empty.jsonl", "good.jsonl", "other.jsonl",
    ]  # fmt: skip
    shutil.copytree(bundle, output)
    twice = write_rows(tmp_path / "twice.jsonl", rows_of(test_texts) + rows_of(examples)[:5])
    done = run(output, "--examples", good, "--test", twice, "-o", output, "--force", "--shots", "4")
    assert done.exit_code == 0, done.output
    assert "note: 5 texts of the test are examples too; they are not scored" in done.stderr
    assert "60 texts (the test), 33.33% of them of one label" in done.stdout
    assert "fitted on positive 60, negative 60, neutral 60; C " in done.stdout
    (line,) = [it for it in done.stdout.splitlines() if it.startswith("     4")]
    (point,) = json.loads((output / "reports" / "fit.json").read_text())["curve"]
    assert f"{point['accuracy']:.2%}" in line
    assert f"{point['deviation']:.2%}" in line
    assert f"measure its parity with `trimexport verify {output}`" in done.stdout


def test_pytorch_is_not_needed(tmp_path: Path, examples: Texts) -> None:
    data = write_rows(tmp_path / "data.jsonl", rows_of(examples))
    code = (
        "import sys; from trimexport.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print({name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    options = ["--examples", str(data), "-o", str(tmp_path / "new")]
    command = [sys.executable, "-c", code, "fit", str(tiny.capped_bundle()), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = eval(done.stderr.splitlines()[-1])
    assert "sklearn" in loaded
    assert not loaded & {"torch", "transformers"}


def test_without_the_libraries(tmp_path: Path, examples: Texts) -> None:
    data = write_rows(tmp_path / "data.jsonl", rows_of(examples))
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from trimexport.cli import main; main(sys.argv[1:])"
    )
    options = ["--examples", str(data), "-o", str(tmp_path / "new")]
    command = [sys.executable, "-c", code, "fit", str(tiny.capped_bundle()), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Error: fitting needs scikit-learn and matplotlib" in done.stderr
    assert "install `trimexport[eval]`" in done.stderr
    assert not (tmp_path / "new").exists()
