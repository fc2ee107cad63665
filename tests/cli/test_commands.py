"""What the commands print, where they print it, and what they leave behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

import tiny
import trimexport
from models import ROOT, Untrimmed
from trimexport.cli import main
from trimexport_runtime import Classifier, check_files, read_manifest
from trimexport_runtime.bundle import MANIFEST

Invoke = Callable[..., Result]
Process = Callable[..., "subprocess.CompletedProcess[str]"]
LABELS = ("--labels", "positive,negative")
PROMPT = ("--prompt", "Review: {text}\\nSentiment:")


def test_build_verify_and_inspect_in_processes(
    tiny_process: Process, tiny_copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "texts.csv").write_text("text,label\na fine film,positive\nb,negative\n")
    output = tmp_path / "place" / "bundle"
    texts = ("--texts", tmp_path / "texts.csv")
    command = ("build", "--model", tiny_copy, *LABELS, "--prompt", "It {{is}}: {text}\\nso:")
    built = tiny_process(*command, *texts, "-o", output, "--json")
    assert built.returncode == 0, built.stderr
    found = json.loads(built.stdout)
    assert found["bundle"] == str(output)
    assert found["texts"] == 2
    assert found["reference"]["accuracy"] in (0, 0.5, 1)
    for said in ("compiling the prompt: ", "tracing: ", "writing int8: ", "variant int8: "):
        assert said in built.stderr
    assert list(output.parent.iterdir()) == [output]
    manifest = read_manifest(output)
    check_files(output, manifest, hashes=True)
    assert manifest.prompt.template == "It {{is}}: {text}\nso:"
    assert "| int8 | 100.00% |" in (output / "README.md").read_text(encoding="utf-8")
    Classifier.load(output).classify(["a"])

    verified = tiny_process("verify", output, *texts)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("variant")
    assert "100.00%" in verified.stdout
    assert "variant int8: " in verified.stderr

    shutil.rmtree(tiny_copy)
    gone = tiny_process("verify", output, *texts)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "which is not there any more" in gone.stderr
    assert "--model" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize("charset", ["cp1252", "latin-1"])
def test_standard_output_that_lacks_characters(
    tiny_model: Path, tiny_bundle: Path, charset: str
) -> None:
    """What it lacks is escaped; JSON is UTF-8 whatever it has."""
    inspect = ("inspect", "--model", str(tiny_model), *LABELS, *PROMPT)
    commands = {inspect: "\\u2581positive", ("verify", str(tiny_bundle)): "\\u0394logit"}
    for command, escaped in commands.items():
        result = CliRunner(charset=charset).invoke(main, command)
        assert result.exit_code == 0, result.output
        assert escaped in result.stdout
    result = CliRunner(charset=charset).invoke(main, [*inspect, "--text", "тёплый", "--json"])
    assert result.exit_code == 0, result.output
    assert "тёплый" in result.stdout_bytes.decode("utf-8")
    assert json.loads(result.stdout_bytes)["texts"][0]["text"] == "тёплый"


def test_every_command_prepares_standard_output() -> None:
    for name, command in main.commands.items():
        (option,) = (it for it in command.params if it.name == "as_json")
        assert option.callback is not None, name


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to /dev/full")
def test_results_that_cannot_be_written(tiny_bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a\nb\n" * 5)
    command = [*tiny.PROGRAM, "calibrate", tiny_bundle_copy, "--texts", tmp_path / "texts.txt"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: cannot write the results: No space left on device"
    )
    assert "Traceback" not in done.stderr


def test_a_failure_in_a_process(tiny_process: Process, tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / "model.safetensors").write_bytes(b"short")
    output = tmp_path / "place" / "bundle"
    done = tiny_process("build", "--model", tiny_copy, *LABELS, *PROMPT, "-o", output)
    assert (done.returncode, done.stdout) == (1, "")
    message = f"Error: {tiny_copy}/model.safetensors is truncated or damaged"
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr
    assert not output.parent.exists()


def test_labels_alone_take_what_ships_and_say_so(tiny_invoke: Invoke) -> None:
    done = tiny_invoke("inspect", *LABELS)
    assert done.exit_code == 0, done.output
    assert done.stderr == (
        'model: the gemma-mini that ships; prompt: "Review: {text}\\nSentiment:"\n'
    )
    assert "models/gemma-mini" in done.stdout


def test_a_card_s_prompt_is_taken_and_said(tiny_invoke: Invoke, tiny_copy: Path) -> None:
    shutil.copyfile(ROOT / "models" / "gemma-mini" / "prompts.toml", tiny_copy / "prompts.toml")
    done = tiny_invoke("inspect", "--model", tiny_copy, *LABELS)
    assert done.stderr == f'model: {tiny_copy}; prompt: "Review: {{text}}\\nSentiment:"\n'


def test_nothing_is_said_where_all_is_given(tiny_invoke: Invoke, tiny_model: Path) -> None:
    assert tiny_invoke("inspect", "--model", tiny_model, *LABELS, *PROMPT).stderr == ""


def test_inspect_as_json_is_what_the_table_shows(tiny_invoke: Invoke, tiny_model: Path) -> None:
    command = ("inspect", "--model", tiny_model, *LABELS, *PROMPT)
    table = tiny_invoke(*command).stdout
    found = json.loads(tiny_invoke(*command, "--json").stdout)
    assert found["tied"] is True
    for part in found["parts"]:
        assert part["name"] in table
        assert f"{part['before']:,}" in table
        assert f"{part['after']:,}" in table
    for key in ("checkpoint_bytes", "bytes_before", "bytes_after", "prefix_bytes"):
        assert f"{found[key] / 1e6:,.2f} MB" in table


def test_inspect_takes_words_and_a_prompt_file(
    tiny_invoke: Invoke, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("A: {text}\nB:\n", encoding="utf-8")
    command = ("inspect", "--model", tiny_model, *LABELS, "--prompt-file", path)
    done = tiny_invoke(
        *command, "--verbalize", "positive=good,great", "--verbalize", "negative=bad"
    )
    assert done.exit_code == 0, done.output
    assert "label positive: ▁good (" in done.stdout
    assert ", ▁great (" in done.stdout
    assert "label negative: ▁bad (" in done.stdout


def test_a_word_of_several_tokens_is_told(tiny_invoke: Invoke, tiny_model: Path) -> None:
    command = ("inspect", "--model", tiny_model, "--labels", "very good,bad", *PROMPT)
    done = tiny_invoke(*command)
    assert 'label "very good": "very good" is 2 tokens ("▁very", "▁good"); the first tells' in (
        done.stderr
    )


def test_inspect_shows_what_the_model_would_say(tiny_invoke: Invoke, tiny_model: Path) -> None:
    command = ("inspect", "--model", tiny_model, *LABELS, *PROMPT)
    command = (*command, "--verbalize", "positive=good,great")
    without = json.loads(tiny_invoke(*command, "--json").stdout)
    table = tiny_invoke(*command).stdout
    command = (*command, "--text", "a\nfilm", "--text", "é")
    found = json.loads(tiny_invoke(*command, "--json").stdout)
    done = tiny_invoke(*command)
    assert {**without, "texts": found["texts"]} == found
    assert done.stdout.startswith(table)
    assert '"a\\nfilm": label mass ' in done.stdout
    assert "the untrimmed model: " in done.stderr
    judge = Untrimmed(tiny_model)
    stand = {judge.tokenizer.convert_tokens_to_ids(it): "positive" for it in ("▁good", "▁great")}
    stand[judge.tokenizer.convert_tokens_to_ids("▁negative")] = "negative"
    assert [it["text"] for it in found["texts"]] == ["a\nfilm", "é"]
    for said in found["texts"]:
        whole = judge.ids(f"Review: {said['text']}\nSentiment:")
        probabilities = judge.logits(whole).softmax(0)
        assert said["label_mass"] == pytest.approx(
            probabilities[list(stand)].sum().item(), rel=1e-3
        )
        best = probabilities.topk(10)
        assert [it["token_id"] for it in said["tokens"]] == best.indices.tolist()
        for token, expected in zip(said["tokens"], best.values.tolist(), strict=True):
            assert token["probability"] == pytest.approx(expected, rel=1e-3)
            assert token["labels"] == [stand[it] for it in [token["token_id"]] if it in stand]
            assert f"({token['token_id']})" in done.stdout


def test_a_label_s_token_is_marked(tiny_invoke: Invoke) -> None:
    """Of gemma-mini, which answers with its labels."""
    done = tiny_invoke("inspect", *LABELS, "--text", "a gorgeous, witty, seductive movie")
    assert done.exit_code == 0, done.output
    lines = done.stdout.partition("the model would say\n")[2].splitlines()
    assert len(lines) == 10
    assert lines[0].split()[0] == "▁positive"
    assert [line.split()[-2:] for line in lines[:2]] == [
        ["label", it] for it in LABELS[1].split(",")
    ]
    assert all("label" not in line for line in lines[2:])


def test_a_text_that_is_none(tiny_refused: Callable[..., str], tiny_model: Path) -> None:
    command = ("inspect", "--model", tiny_model, *LABELS, *PROMPT)
    assert "--text: character 0 is the lone surrogate" in tiny_refused(*command, "--text", "\udcff")


def test_verify_as_json_is_what_the_table_shows(
    tiny_invoke: Invoke, tiny_bundle_copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"text": "a", "label": "positive"}\n{"text": "b", "label": "negative"}\n'
    )
    command = ("verify", tiny_bundle_copy, "--texts", tmp_path / "t.jsonl")
    table = tiny_invoke(*command).stdout
    found = json.loads(tiny_invoke(*command, "--json").stdout)
    assert found["within_tolerance"] is True
    assert found["texts"] == 2
    (variant,) = found["variants"]
    for shown in (
        f"{variant['agreement']:.2%}",
        f"{variant['max_logit_difference']:.2e}",
        f"{variant['mean_logit_difference']:.2e}",
        f"{variant['accuracy']:.2%}",
        f"{found['label_mass']['mean']:.1%}",
        f"standard deviation of a logit over them: {found['logit_standard_deviation']:.2f}",
        "texts: 2;",
    ):
        assert shown in table


@pytest.mark.parametrize("as_json", [True, False])
def test_verify_fails_and_names_the_texts(
    tiny_invoke: Invoke, tiny_bundle_copy: Path, tmp_path: Path, as_json: bool
) -> None:
    _negate_head(tiny_bundle_copy)
    (tmp_path / "texts.txt").write_text("a gorgeous movie\ndull\n", encoding="utf-8")
    command = ["verify", tiny_bundle_copy, "--texts", tmp_path / "texts.txt"]
    done = tiny_invoke(*command, *(["--json"] if as_json else []))
    assert done.exit_code == 1
    assert "Error: variant fp32 is outside its tolerance" in done.stderr
    for said in ("  text 1: ", "  text 2: ", " became ", "'a gorgeous movie'", "(by "):
        assert said in done.stderr
    if as_json:
        found = json.loads(done.stdout)
        assert found["within_tolerance"] is False
        assert [it["text"] for it in found["variants"][0]["disagreements"]] == [
            "a gorgeous movie",
            "dull",
        ]
    else:
        assert "OUTSIDE TOLERANCE" in done.stdout


def _negate_head(bundle: Path) -> None:
    """Change the graph's answers, and the manifest's hash of it."""
    from trimexport_runtime.integrity import sha256_of

    path = bundle / "onnx" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    (weight,) = [it for it in model.graph.initializer if it.name.startswith("head.weight")]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path)

    def change(raw: dict[str, list[dict[str, object]]]) -> None:
        for entry in raw["files"]:
            if entry["path"] == "onnx/model.onnx":
                entry.update(bytes=path.stat().st_size, sha256=sha256_of(path))

    tiny.edit_json(bundle / MANIFEST, change)


RECIPE = """
model = "model"
revision = "v1"
prompt = "Review: {text}\\nSentiment:"
labels = ["positive", "negative"]
max_tokens = 100
notice = "Terms apply."
adapter = "me/adapter"

[verbalizers]
positive = ["good", "great"]
"""


def test_options_beside_a_recipe_take_precedence(tmp_path: Path, tiny_copy: Path) -> None:
    from trimexport.cli.spec_from_options import make_spec

    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    said: list[str] = []

    def spec(**given: object) -> trimexport.BuildSpec:
        none = dict.fromkeys(("model", "revision", "labels", "prompt", "prompt_file"))
        return make_spec({"recipe": path, "verbalize": (), **none, **given}, said.append)

    base = spec()
    assert Path(base.model) == tiny_copy  # beside the recipe
    assert base == trimexport.read_recipe(path)
    assert spec(prompt="A {text}\\nB:").prompt == "A {text}\nB:"
    assert spec(labels="a,b").labels == ("a", "b")
    assert spec(labels="a,b").verbalizers == {}  # the recipe's words are its own labels'
    assert spec(labels="").labels == ("",)
    assert spec(verbalize=("negative=bad",)).verbalizers == {
        "positive": ("good", "great"),
        "negative": ("bad",),
    }
    assert spec(verbalize=("positive=fine",)).verbalizers == {"positive": ("fine",)}
    assert (spec(model="x/y").model, spec(model="x/y").revision) == ("x/y", None)
    assert spec(model="x/y", revision="v2").revision == "v2"
    assert (base.max_tokens, spec(max_tokens=64).max_tokens) == (100, 64)
    assert (base.truncate, spec(truncate="start").truncate) == ("end", "start")
    assert spec(prompt="{text}:", labels="a,b").notice == "Terms apply."
    assert spec(model="x/y").notice is None  # the recipe's notice is its own model's
    assert (base.adapter, spec(model="x/y").adapter) == (
        "me/adapter",
        None,
    )  # and so is its adapter
    same = spec(model=base.model)
    assert (same.revision, same.notice, same.adapter) == ("v1", "Terms apply.", "me/adapter")
    assert said == []


@pytest.mark.parametrize(
    "name",
    [
        *(None, "bench", "build", "bundle", "calibrate", "eval", "fit", "inspect", "pack"),
        *("suggest", "verify"),
    ],
)
def test_every_command_has_help_with_an_example(tiny_invoke: Invoke, name: str | None) -> None:
    done = tiny_invoke(*([name] if name else []), "--help")
    assert done.exit_code == 0
    assert "Example:\n" in done.stdout
    assert "  trimexport " in done.stdout


def test_the_help_tests_know_every_command() -> None:
    known = {"bench", "build", "bundle", "calibrate", "eval", "fit", "inspect", "pack"}
    assert set(main.list_commands(click.Context(main))) == {*known, "suggest", "verify"}


def test_the_version(tiny_invoke: Invoke) -> None:
    assert tiny_invoke("--version").stdout == f"trimexport, version {trimexport.__version__}\n"


def test_signals_are_handled_as_before_once_a_command_has_run(tiny_invoke: Invoke) -> None:
    import signal
    import sys

    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook)
    tiny_invoke("inspect", "--labels", "one")
    after = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook)
    assert after == before
