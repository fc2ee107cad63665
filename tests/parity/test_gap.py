"""A tokenizer that fuses a full stop with the line break behind it: the build says so, and how to
avoid it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from families import make
from trimexport import BuildSpec, Texts, build
from trimexport.progress import Silent
from trimexport.prompt.template import unescape

TEXTS = Texts(("It is dull.", "A fine film!", "so-so ...", "no stop here", "Why?\nWhy not."))
PROPOSAL = re.compile(r'this prompt avoids it: --prompt ("(?:[^"\\]|\\.)*")')


class Told(Silent):
    """What a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_the_proposed_prompt_removes_the_gap(tmp_path: Path) -> None:
    model = str(make("llama3", tmp_path / "model", layers=1))
    spec = BuildSpec(
        precision=("fp32",),
        model=model,
        labels=("positive", "negative"),
        prompt="Review: {text}\nSentiment:",
    )
    told = Told()
    first = build(spec, tmp_path / "first", sample=TEXTS, progress=told).report
    assert (first.gap.different, first.gap.compared) == (4, 5)
    (warning,) = [line for line in told.lines if "80.0% of the texts are tokenised" in line]
    found = PROPOSAL.search(warning)
    assert found is not None, warning

    prompt = unescape(shlex.split(found[1])[0])
    better = BuildSpec(precision=("fp32",), model=model, labels=spec.labels, prompt=prompt)
    told = Told()
    second = build(better, tmp_path / "second", sample=TEXTS, progress=told).report
    assert second.gap.different == 0
    assert not [line for line in told.lines if "tokenised differently" in line]
