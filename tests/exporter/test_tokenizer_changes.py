"""How a pack says what its task's tokenizer.json has otherwise than the backbone's."""

from __future__ import annotations

from typing import Any

import pytest

from trimexport.bundle.tokenizer_changes import LACKING, MARKED, changed, changes

TOKENS = [{"id": number, "content": f"<{number}>", "special": False} for number in (4, 2, 9)]
SPECIAL = [{**token, "special": True} for token in TOKENS]
BACKBONE: dict[str, Any] = {"model": {"vocab": {}}, "normalizer": None, "added_tokens": TOKENS}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({}, {}),
        ({"normalizer": {"type": "NFC"}}, {"normalizer": {"type": "NFC"}}),
        ({"added_tokens": [TOKENS[0], TOKENS[2]]}, {LACKING: [2]}),
        ({"added_tokens": []}, {LACKING: [4, 2, 9]}),
        ({"added_tokens": TOKENS[::-1]}, {"added_tokens": TOKENS[::-1]}),
        (
            {"added_tokens": [{**TOKENS[0], "special": True}]},
            {LACKING: [2, 9], MARKED: {"special": True}},
        ),
        ({"added_tokens": SPECIAL}, {MARKED: {"special": True}}),
        ({"added_tokens": [*SPECIAL[:2], TOKENS[2]]}, {"added_tokens": [*SPECIAL[:2], TOKENS[2]]}),
    ],
)
def test_there_and_back(task: dict[str, Any], said: dict[str, Any]) -> None:
    whole = {**BACKBONE, **task}
    assert changes(BACKBONE, whole) == said
    made = changed(BACKBONE, said)
    assert made == whole
    assert list(made) == list(BACKBONE)
