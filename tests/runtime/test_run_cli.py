"""`trimexport-run`, in this process where that is enough and as a program where it is not."""

from __future__ import annotations

import functools
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from trimexport_runtime import Classifier, __version__, progress
from trimexport_runtime.cli import main

PROGRAM = str(Path(sys.executable).with_name("trimexport-run"))
Edit = Callable[[Path, Callable[[dict[str, Any]], None]], None]


def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(item) for item in arguments], input=stdin)


def objects(result: Result) -> list[dict[str, Any]]:
    """The JSON objects on standard output, one a line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_texts_as_arguments(bundle: Path, classifier: Classifier) -> None:
    texts = ["a gorgeous movie", "line\nbreak\tand \x1b[31m \u202e", "x" * 200, ""]
    result = run("classify", bundle, *texts)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    answers = classifier.classify(texts)
    assert [row[0] for row in rows] == [answer.label for answer in answers]
    assert [row[1] for row in rows] == [f"{answer.probability:.1%}" for answer in answers]
    shown = ["a gorgeous movie", r"line\nbreak\tand \x1b[31m \u202e", "x" * 79 + "…", ""]
    assert [row[2] for row in rows] == shown


def test_json(bundle: Path, classifier: Classifier) -> None:
    texts = ["schön", "long " * 600]
    result = run("classify", bundle, *texts, "--json", "--threads", "1", "--variant", "fp32")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "schön" in result.stdout
    for index, (found, answer) in enumerate(
        zip(objects(result), classifier.classify(texts), strict=True)
    ):
        assert list(found) == [
            "index",
            "text",
            "label",
            "probability",
            "probabilities",
            "truncated",
            "tokens",
            "variant",
            "provider",
        ]
        assert (found["index"], found["text"]) == (index, texts[index])
        assert (found["label"], found["truncated"]) == (answer.label, index == 1)
        assert found["tokens"] == answer.tokens
        assert list(found["probabilities"]) == ["negative", "positive", "mixed"]
        assert sum(found["probabilities"].values()) == pytest.approx(1)


def test_cut_texts_are_noted(bundle: Path) -> None:
    result = run("classify", bundle, "long " * 600, "short")
    assert result.exit_code == 0
    assert result.stderr == (
        "Note: 1 of the texts had more than 512 tokens and were cut at the end\n"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"good\n\xff\nbad\n"),
        ("a.csv", b"text\ngood\n\xff\nbad\n"),
        ("a.jsonl", b'{"text": "good"}\n{\n{"text": "bad"}\n'),
    ],
)
def test_a_bad_line_costs_one_line(bundle: Path, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    first = 2 if name == "a.csv" else 1
    result = run("classify", bundle, "--file", path, "--json")
    assert result.exit_code == 1
    assert result.stderr == "Error: 1 of the lines could not be classified\n"
    good, bad, last = objects(result)
    assert (good["index"], good["line"], good["text"]) == (0, first, "good")
    assert set(bad) == {"line", "error"}
    assert bad["line"] == first + 1
    assert (last["index"], last["line"], last["text"]) == (2, first + 2, "bad")

    result = run("classify", bundle, "--file", path)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith(f"line {first + 1}: the line is not ")


def test_standard_input(bundle: Path) -> None:
    result = run("classify", bundle, "-", "--json", stdin=b"one\r\n\ntwo \xff\n\xc3\xa9")
    assert result.exit_code == 1
    assert [found.get("text") for found in objects(result)] == ["one", "", None, "é"]
    assert [found["line"] for found in objects(result)] == [1, 2, 3, 4]
    result = run("classify", bundle, "-")
    assert (result.exit_code, result.output) == (0, "")


def test_another_column(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,body\n1,good\n", encoding="utf-8")
    result = run("classify", bundle, "--file", path, "--column", "body")
    assert result.exit_code == 0
    assert result.stdout.endswith("good\n")


def test_a_text_that_leaves_nothing_costs_one_text(make_bundle: Callable[..., Path]) -> None:
    result = run("classify", make_bundle(prompt=False), "-", stdin=b"a\n\nb\n")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith("line 2: the text has no tokens")
    result = run("classify", make_bundle("other", prompt=False), "", "a", "--json")
    assert [sorted(found)[:2] for found in objects(result)] == [
        ["error", "index"],
        ["index", "label"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No texts: give TEXT arguments, --pair, --file FILE, or - to read stdin."),
        (["a", "--file", "b.txt"], "Give texts, --pair or --file, not several of them."),
        (["a", "--column", "b"], "--column names what --file has; give --file too."),
        (["-", "a"], "- reads texts from stdin and must stand alone."),
        (["a", "--threads", "0"], "0 is not in the range x>=1"),
        (["a", "--none"], "No such option"),
    ],
)
def test_wrong_usage(bundle: Path, arguments: list[str], message: str) -> None:
    result = run("classify", bundle, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--variant", "int4"], 'the bundle has no variant "int4"; it has: fp32'),
        (["--file", "none.txt"], "none.txt cannot be read (No such file or directory)"),
        (["--file", "none.xml"], 'none.xml has the extension ".xml"; texts are read from .txt'),
        (["--file", "a.txt", "--column", "b"], "a.txt has no columns"),
    ],
)
def test_expected_failures(bundle: Path, arguments: list[str], message: str) -> None:
    result = run("classify", bundle, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    for command, *texts in (["classify", "a"], ["info"]):
        result = run(command, tmp_path, *texts)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {tmp_path} is not a bundle: it has no trimexport")


def test_info(bundle: Path) -> None:
    result = run("info", bundle)
    assert (result.exit_code, result.stderr) == (0, "")
    for part in (
        f"bundle      {bundle} (format 1)",
        "label       positive: ▁positive",
        r"prompt      Review: {text}\nSentiment:",
        "prefix 3 tokens, suffix 2",
        "text limit  512 tokens; longer texts are cut at the end",
        "source      tiny (TinyForCausalLM, revision abc123)",
        "notice      Terms apply.",
        "variant     fp32: fp32, opset 18, ",
        "CPUExecutionProvider; on 64 texts 100.00% as the reference, logits within 1e-06",
        "label mass  97.00%",
        "token gap   0.00%",
        "runs on     onnxruntime ",
        "processor   ",
        "files       3, ",
    ):
        assert part in result.stdout


def test_info_json(bundle: Path) -> None:
    result = run("info", bundle, "--json")
    value = json.loads(result.stdout)
    raw = json.loads((bundle / "trimexport.json").read_text(encoding="utf-8"))
    assert {key: value[key] for key in raw} == raw
    assert value["runtime"]["version"] == __version__
    assert value["runtime"]["provider"] == "CPUExecutionProvider"
    assert "check" not in value
    assert json.loads(run("info", bundle, "--json", "--check").stdout)["check"] == "ok"


def test_info_check(bundle: Path) -> None:
    assert ", all ok\n" in run("info", bundle, "--check").stdout
    path = bundle / "onnx" / "model.onnx_data"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert run("info", bundle).exit_code == 0
    result = run("info", bundle, "--check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path} was altered")
    path.unlink()
    assert "is missing from the bundle" in run("info", bundle, "--check").stderr


def test_a_newer_format(bundle: Path, edit_manifest: Edit) -> None:
    edit_manifest(bundle, lambda raw: raw.update(format_version=9))
    result = run("info", bundle)
    assert result.exit_code == 1
    assert "format_version 9" in result.stderr


@pytest.mark.parametrize("command", [[], ["classify"], ["info"]])
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    for option in ("--help", "-h"):
        result = run(*command, option)
        assert result.exit_code == 0
        assert "Example:\n  " in result.stdout


def test_version() -> None:
    assert run("--version").stdout == f"trimexport-run, version {__version__}\n"


def test_invalid_utf8_in_an_argument(bundle: Path) -> None:
    command: list[str | bytes] = [PROGRAM, "classify", str(bundle), b"caf\xe9", "good"]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == 1
    assert result.stdout.endswith(b"\tgood\n")
    assert result.stderr.startswith(b"text 1: character 3 is the lone surrogate U+DCE9")
    assert b"Traceback" not in result.stderr
    result = subprocess.run([PROGRAM, "info", b"caf\xe9"], capture_output=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(b"Error: ")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_any_locale(bundle: Path, encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    text = subprocess.run(
        [PROGRAM, "classify", str(bundle), "日本"], capture_output=True, check=True, env=env
    )
    shown = "日本".encode(encoding, errors="backslashreplace")
    assert text.stdout.endswith(b"\t" + shown + os.linesep.encode())
    lines = subprocess.run(
        [PROGRAM, "classify", str(bundle), "日本", "--json"],
        capture_output=True,
        check=True,
        env=env,
    )
    assert json.loads(lines.stdout.decode("utf-8"))["text"] == "日本"


def test_a_reader_that_goes_away(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text\n" * 5000, encoding="utf-8")
    command = [PROGRAM, "classify", str(bundle), "--file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith(b"\ttext\n")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the platform has no /dev/full")
def test_a_full_disk(bundle: Path) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [PROGRAM, "classify", str(bundle), "a"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == b"Error: cannot write the results: No space left on device\n"


def test_closed_standard_streams(bundle: Path) -> None:
    def errors(shell: str) -> tuple[int, bytes]:
        command = ["sh", "-c", f'"{PROGRAM}" classify "{bundle}" {shell}']
        result = subprocess.run(command, stderr=subprocess.PIPE, check=False)
        return result.returncode, result.stderr

    assert errors("a >&-") == (0, b"")
    assert errors("a >/dev/null 2>&-") == (0, b"")
    code, message = errors("- <&-")
    assert code == 1
    assert message.startswith(b"Error: standard input is closed; give texts as arguments")


def test_interrupted(bundle: Path) -> None:
    command = [PROGRAM, "classify", str(bundle), "-"]
    pipe = subprocess.PIPE
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whoever starts us
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=heard
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"text\n" * 300)  # more than a window, so that answers come
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\ttext\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == b"Interrupted\n"


def test_progress_is_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e-9)
    monkeypatch.setattr(progress, "_INTERVAL", 0)
    with progress.Progress("work:", 10) as counter:
        counter.advance()
    assert capsys.readouterr().err == ""

    parent, child = pty.openpty()
    with open(child, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.Progress("work:", 4) as counter:
            counter.advance()
        with progress.Progress("texts {n}:") as counter:
            counter.advance(1234)
        with progress.Progress("loading") as counter:
            counter.show()
        with progress.Progress("hidden", visible=False) as counter:
            counter.advance()
        shown = _read_until(parent, "loading [.]{3}\r *\r")
    os.close(parent)
    lines = ("work: 25%", "texts {n}: 1,234", "loading ...")
    assert shown == "".join(f"\r{line}\r{' ' * len(line)}\r" for line in lines)


def test_the_rate_leaves_out_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e-9)
    parent, child = pty.openpty()
    with open(child, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.Progress("texts:", rate=True) as counter:
            counter.begin_at(10**15)
            time.sleep(progress._INTERVAL)
            counter.advance()
        shown = _read_until(parent, "second\r *\r")
    os.close(parent)
    assert re.match(r"\rtexts: 1,000,000,000,000,001, [0-5] a second", shown), shown


def test_short_work_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = pty.openpty()
    with open(child, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        began = time.monotonic()
        with progress.Progress("work:") as counter:
            counter.advance()
        assert time.monotonic() - began < progress.QUIET_SECONDS
        terminal.write("end")
        terminal.flush()
        assert os.read(parent, 100) == b"end"
    os.close(parent)


def _read_until(terminal: int, ending: str) -> str:
    """What is written to a terminal, up to the pattern `ending`; it may arrive in pieces."""
    shown = ""
    while not re.search(f"{ending}$", shown):
        assert select.select([terminal], [], [], 10)[0], f"only {shown!r} arrived"
        shown += os.read(terminal, 1000).decode()
    return shown
