"""Optimum and the transformers pipeline, as docs/clients.md says, on the oldest transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients.conftest import TEXTS, by_label, compare, snippet, with_line
from packages import needs_wheels, oldest_transformers, run_with

FILES = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
LOGITS = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = ORTModelForSequenceClassification.from_pretrained(sys.argv[1])
sides = []
for side in ("left", "right"):
    tokenizer.padding_side = side
    rows = tokenizer(json.loads(sys.argv[2]), padding=True, truncation=True, return_tensors="pt")
    sides.append(model(**rows).logits.softmax(-1).tolist())
print(json.dumps([model.config.id2label, sides]))
"""


@pytest.mark.parametrize("variant", FILES)
def test_the_pipeline(variants: Path, tmp_path: Path, variant: str) -> None:
    """The page's program, with another variant and with texts of all kinds."""
    directories = [oldest_transformers(), needs_wheels("optimum")]
    program = snippet("python", "Optimum and transformers")
    program = with_line(program, "bundle", f"bundle = {str(variants)!r}")
    program = with_line(program, "file_name", f"file_name = {FILES[variant]!r}")
    program = with_line(program, "texts", f"texts = {TEXTS!r}")
    show = "\nimport json\nprint(json.dumps(answers))\n"
    path = tmp_path / "program.py"
    path.write_text(f"{program}{show}", encoding="utf-8")
    run = run_with(directories, str(path))
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith('[[{"')]
    answers = [by_label(it) for it in json.loads(line)]
    assert compare(answers, variants, variant) < 1e-5


def test_the_model_alone(variants: Path) -> None:
    """Found without a file's name, with the labels, and with padding on either side."""
    directories = [oldest_transformers(), needs_wheels("optimum")]
    run = run_with(directories, "-c", LOGITS, str(variants), json.dumps(TEXTS))
    assert run.returncode == 0, run.stderr
    names, sides = json.loads(run.stdout.splitlines()[-1])
    assert names == {"0": "positive", "1": "negative"}
    for side in sides:
        answers = [dict(zip(names.values(), row, strict=True)) for row in side]
        assert compare(answers, variants, "fp32") < 1e-5
