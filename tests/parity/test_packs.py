"""Packs on their backbone answer as bundles and as the untrimmed model do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import tiny
from packs import CAPPED, TASKS, capped_backbone, tiny_backbone, tiny_pack, without_first
from trimexport import Texts
from trimexport.bundle.pack_file import write_pack
from trimexport.packs.pack import pack
from trimexport_runtime import Backbone, Classifier
from trimexport_runtime.backbone import longest_row
from trimexport_runtime.inputs import Input
from trimexport_runtime.pack import load_pack
from trimexport_runtime.server.service import Service
from trimexport_runtime.server.settings import Settings

CLOSE = 1e-4
ROWS = tuple(text for text in tiny.TEXTS if text)
Logits = npt.NDArray[np.float32]


def inputs(task: str) -> list[Input]:
    return [("a film", text) for text in ROWS] if task == "pair" else list(ROWS)


def logits(task: str, variant: str) -> Logits:
    classifier = Classifier.load(tiny_backbone(), task=tiny_pack(task), variant=variant)
    return classifier.logits(inputs(task))


@pytest.mark.parametrize("task", TASKS)
def test_packs_answer_as_the_untrimmed_model(task: str) -> None:
    described, _ = load_pack(tiny_pack(task), "fp32")
    parity = described.manifest.variant("fp32").parity
    assert parity is not None
    assert parity.max_logit_difference < CLOSE
    assert logits(task, "fp32").std() > 0.3, "texts differ"


@pytest.mark.parametrize(
    ("task", "bundle"),
    [("sentiment", tiny.tiny_bundle), ("odds", tiny.odds_bundle), ("pair", tiny.pair_bundle)],
)
def test_packs_answer_as_bundles(task: str, bundle: Callable[[], Path]) -> None:
    whole = Classifier.load(bundle(), variant="fp32").logits(inputs(task))
    assert np.abs(logits(task, "fp32") - whole).max() < CLOSE


@pytest.mark.parametrize("task", TASKS)
def test_int8_answers_do_not_depend_on_their_batch(task: str) -> None:
    """To the last bit, whatever stands beside a text and however far its row is padded."""
    classifier = Classifier.load(tiny_backbone(), task=tiny_pack(task), variant="int8")
    together = classifier.logits(inputs(task))
    rows = [classifier.encode(given) for given in inputs(task)]
    for place, row in enumerate(rows):
        assert np.array_equal(classifier.run([row])[0], together[place])
        assert np.array_equal(classifier.run([row] * 3 + rows)[2], together[place])


def test_the_format_is_that_of_what_is_asked() -> None:
    versions = {
        task: load_pack(tiny_pack(task), "fp32")[0].manifest.format_version for task in TASKS
    }
    assert versions["asked"] == versions["one"] == 3
    assert {versions[task] for task in ("odds", "pair")} == {2}


@pytest.mark.parametrize("task", TASKS)
def test_the_longest_row_is_the_backbone_s(task: str) -> None:
    """A build leaves a text what room there is, and the runtime counts the same."""
    backbone = Backbone.load(tiny_backbone(), variant="fp32")
    manifest = backbone.task(tiny_pack(task)).manifest
    assert longest_row(manifest) == backbone.manifest.limit == 128


def test_tasks_share_a_backbone() -> None:
    backbone = Backbone.load(tiny_backbone(), variant="fp32")
    tasks = {name: backbone.task(tiny_pack(name)) for name in TASKS}
    for name, classifier in tasks.items():
        assert np.array_equal(classifier.logits(inputs(name)), logits(name, "fp32"))


def test_mixed_traffic_in_int8_has_the_bits_that_each_task_gives_alone() -> None:
    backbone = Backbone.load(tiny_backbone(), variant="int8", threads=1)
    tasks = {task: backbone.task(tiny_pack(task)) for task in TASKS}
    alone = {task: tasks[task].logits(inputs(task)) for task in TASKS}
    service = Service(tasks, Settings(), unavailable={})

    async def ask(task: str) -> Logits:
        model, texts = service.model(task), inputs(task)
        answers = (service.classify(model, [text], False, lambda future: None) for text in texts)
        return np.concatenate([it.logits for it in await asyncio.gather(*answers)])

    async def ask_all() -> list[Logits]:
        return await asyncio.gather(*map(ask, TASKS))

    for task, mixed in zip(TASKS, asyncio.run(ask_all()), strict=True):
        np.testing.assert_array_equal(mixed, alone[task])
    service.close()


def test_one_prefix_token_less_is_seen(tmp_path: Path) -> None:
    """The mutant: all else being equal, the prefix lacks its first position."""
    described, arrays = load_pack(tiny_pack("sentiment"), "fp32")
    mutant = tmp_path / "mutant.pack"
    write_pack(mutant, described.backbone, described.manifest, without_first(arrays))
    found = Classifier.load(tiny_backbone(), task=mutant, variant="fp32").logits(list(ROWS))
    assert np.abs(found - logits("sentiment", "fp32")).max() > 100 * CLOSE


def test_windows_and_soft_caps(tmp_path: Path) -> None:
    """Gemma 2, whose first layer sees 12 positions: the prefix stays in place behind longer
    texts."""
    sample = Texts((*ROWS, "it never quite comes together " * 4))
    packed = pack(capped_backbone(), CAPPED, tmp_path / "task.pack", sample=sample)
    (variant,) = packed.report.variants
    assert variant.max_logit_difference < CLOSE
    assert packed.report.logit_deviation > 0.3
