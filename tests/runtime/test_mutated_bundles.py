"""Bundles whose manifest or configuration says what no build wrote: they answer as before, or are
refused by an error of this package that says why.

TRIMEXPORT_FUZZ is three times as many as are tried.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_manifest import CALIBRATION, ENGINE, FIT

from mutations import EXAMPLES, check_said, mutated, values
from trimexport_runtime import Classifier, TrimexportRuntimeError
from trimexport_runtime.cli import main

TEXTS = ["a gorgeous movie", "the jokes are old", ""]
CONFIG = {"vocab_size": 400, "pad_token_id": 0, "id2label": {"0": "negative"}}


def _check_answers(folder: Path, answers: list[tuple[float, ...]]) -> None:
    """What is mutated decides no number, but where a text is cut."""
    try:
        classifier = Classifier.load(folder, threads=1)
        found = classifier.classify(TEXTS)
    except TrimexportRuntimeError as refusal:
        check_said(refusal)
        return
    for answer, expected in zip(found, answers, strict=True):
        assert answer.probabilities == expected or answer.truncated
        assert answer.label == classifier.labels[answer.probabilities.index(answer.probability)]


def _check_info(folder: Path, *options: str) -> None:
    result = CliRunner().invoke(main, ["info", str(folder), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code in (0, 1)
    if result.exit_code == 0 and "--json" in options:
        json.loads(result.stdout)


def test_bundles(bundle: Path, edit_manifest: Callable[..., None]) -> None:
    expected = [it.probabilities for it in Classifier.load(bundle, threads=1).classify(TEXTS)]

    def enrich(raw: dict[str, Any]) -> None:
        raw["variants"][0]["engine"] = ENGINE
        raw |= {"calibration": CALIBRATION, "fit": FIT}
        raw["prompt"]["examples"] = ["3" * 64]
        raw["labels"][0]["sequences"] = [[1, 2]]

    edit_manifest(bundle, enrich)
    manifest = json.loads((bundle / "trimexport.json").read_text(encoding="utf-8"))
    files = {"trimexport.json": manifest, "config.json": CONFIG}
    names = st.sampled_from((*(["trimexport.json"] * 4), "config.json"))
    new = values((399, 400, 401, 512))
    changes = names.flatmap(lambda name: st.tuples(st.just(name), mutated(files[name], new)))

    @settings(max_examples=EXAMPLES // 3, deadline=None, database=None)
    @given(changes)
    def load(change: tuple[str, Any]) -> None:
        for name, value in (files | dict([change])).items():
            (bundle / name).write_text(json.dumps(value), encoding="utf-8")
        _check_answers(bundle, expected)
        for options in ((), ("--json",), ("--check",)):
            _check_info(bundle, *options)

    load()
