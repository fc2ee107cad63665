"""Prompts that peft trained: read before every other as peft's own model reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import families
import tiny
from models import llama, save
from packages import needs_wheels, run_with
from packs import tiny_backbone
from trimexport import BuildSpec, SpecError, Texts, build, plan, verify
from trimexport.bench import pytorch
from trimexport.cli import main
from trimexport.model.layerwise import LayerwiseModel
from trimexport.packs.pack import pack
from trimexport.planning import whole_ids
from trimexport.source.adapter import merge_adapter
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport_runtime import Classifier, Manifest, read_manifest
from trimexport_runtime.render import info_text

LABELS = ("positive", "negative")
STARS = {0: "bad", 1: "fair", 2: "good"}
SAMPLE = Texts(tuple(filter(None, tiny.TEXTS)))  # one bundle has no prompt for an empty text
VIRTUAL = 5
BARE = "{text}"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "soft": ("PromptTuningConfig", {}),
    "encoded": ("PromptEncoderConfig", {}),
    "keys": ("PrefixTuningConfig", {}),
    "projected": ("PrefixTuningConfig", {"prefix_projection": True}),
}
BASES = ("gemma", "llama", "gemma-classifier", "qwen-classifier")


@dataclass(frozen=True)
class Made:
    """A base, a trained prompt of it, and for each template the ids that stand behind the virtual
    tokens: those of all texts but one without any. Shared: do not change them."""

    base: Path
    adapter: Path
    sequences: dict[str, list[list[int]]]

    def checkpoint(self) -> Checkpoint:
        """The base with the adapter."""
        return merge_adapter(self.opened(), self.adapter, str(self.adapter))

    def opened(self) -> Checkpoint:
        """The base without it."""
        return open_checkpoint(self.base, str(self.base), None)

    def spec(self, prompt: str, **more: Any) -> BuildSpec:
        return spec_of(self.base, prompt, adapter=str(self.adapter), **more)

    def logits(self, prompt: str) -> torch.Tensor:
        """What peft's own model answers, float32 [sequences, outputs]."""
        found = load_file(self.adapter.with_name("logits.safetensors"))["logits"]
        count = len(self.sequences[tiny.PROMPT])
        return found[:count] if prompt == tiny.PROMPT else found[count:]


def spec_of(base: Path, prompt: str, **more: Any) -> BuildSpec:
    named = {} if "classifier" in base.name else {"labels": LABELS}
    return BuildSpec(model=str(base), prompt=prompt, **named, **{"precision": ("fp32",), **more})


def make_base(name: str, directory: Path) -> Path:
    if name == "gemma":
        return tiny.save_tiny(directory)
    if name == "llama":
        return save(llama(), directory)
    family = {"gemma-classifier": "gemma2", "qwen-classifier": "qwen2"}[name]
    return families.make(family, directory, classifier=True, layers=2, id2label=STARS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Made]:
    """Every method's adapter of every base."""
    wheels = needs_wheels("peft")
    root = tmp_path_factory.mktemp("trained-prompts")
    found, jobs = {}, []
    for name in BASES:
        base = make_base(name, root / name)
        sequences = {
            prompt: [list(it) for it in whole_ids(plan(spec_of(base, prompt)), tiny.TEXTS) if it]
            for prompt in (tiny.PROMPT, BARE)
        }
        task = "SEQ_CLS" if "classifier" in name else "CAUSAL_LM"
        for key, (method, options) in METHODS.items():
            place = Made(base, root / f"{name}-{key}" / "adapter", sequences)
            place.adapter.parent.mkdir()
            config = {"task_type": task, "num_virtual_tokens": VIRTUAL, **options}
            jobs.append(
                {
                    "base": str(base),
                    "method": method,
                    "config": config,
                    "adapter": str(place.adapter),
                    "sequences": [*sequences[tiny.PROMPT], *sequences[BARE]],
                    "logits": str(place.adapter.with_name("logits.safetensors")),
                }
            )
            found[name, key] = place
    (root / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)), encoding="utf-8")
    script = Path(__file__).with_name("make_trained_prompts.py")
    run = run_with([wheels], str(script), str(root / "jobs.jsonl"))
    assert run.returncode == 0, run.stderr
    return found


def ours(checkpoint: Checkpoint, place: Made) -> torch.Tensor:
    """Our reference's logits after the sequences of both templates."""
    outputs = len(STARS) if checkpoint.is_classifier else int(checkpoint.config.vocab_size)
    sequences = [*place.sequences[tiny.PROMPT], *place.sequences[BARE]]
    return LayerwiseModel(checkpoint).reference(sequences, range(outputs)).token_logits


@pytest.mark.parametrize("base", BASES)
def test_the_reference_answers_as_peft_does(made: dict[tuple[str, str], Made], base: str) -> None:
    dropped = ours(made[base, "soft"].opened(), made[base, "soft"])
    for method in METHODS:
        place = made[base, method]
        theirs = torch.cat([place.logits(tiny.PROMPT), place.logits(BARE)])
        assert theirs.std() > 0.5
        assert (ours(place.checkpoint(), place) - theirs).abs().max() < 1e-4, method
        assert (dropped - theirs).abs().max() > 0.5, method


BUILT = {
    "soft-gemma": ("gemma", "soft", tiny.PROMPT, ("fp32", "int8")),
    "keys-llama": ("llama", "keys", BARE, ("fp32",)),
    "encoded-qwen-classifier": ("qwen-classifier", "encoded", BARE, ("fp32",)),
}


@pytest.fixture(scope="module")
def bundles(
    made: dict[tuple[str, str], Made], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Shared: do not change them, copy them."""
    root = tmp_path_factory.mktemp("trained-bundles")
    return {
        name: build(
            made[base, method].spec(prompt, precision=precisions), root / name, sample=SAMPLE
        ).directory
        for name, (base, method, prompt, precisions) in BUILT.items()
    }


@pytest.mark.parametrize("name", BUILT)
def test_the_bundle_answers_as_peft_does(
    made: dict[tuple[str, str], Made], bundles: dict[str, Path], name: str
) -> None:
    base, method, prompt, _ = BUILT[name]
    place, manifest = made[base, method], read_manifest(bundles[name])
    assert manifest.prompt.virtual_tokens == VIRTUAL
    assert manifest.source.adapter == str(place.adapter)
    tokens = [label.token_ids for label in manifest.labels]
    theirs = place.logits(prompt).numpy()
    if "classifier" not in base:
        theirs = theirs[:, [token for (token,) in tokens]]
    assert manifest.text_limit.tokens == _context(place) - VIRTUAL - _around(manifest)
    texts = [text for text in tiny.TEXTS if text or manifest.prompt.prefix_ids]
    found = Classifier.load(bundles[name], variant="fp32").logits(texts)
    assert np.abs(found - theirs).max() < 1e-4


def _context(place: Made) -> int:
    return int(place.opened().context)


def _around(manifest: Manifest) -> int:
    return len(manifest.prompt.prefix_ids) + len(manifest.prompt.suffix_ids)


def test_verified_again_and_named(bundles: dict[str, Path]) -> None:
    bundle = bundles["soft-gemma"]
    assert verify(bundle, sample=SAMPLE).within
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "| adapter | `adapter` (5 trained virtual tokens before the prompt) |" in card
    shown = info_text(bundle, read_manifest(bundle), checked=False)
    assert "5 virtual tokens first" in shown


@pytest.mark.parametrize("method", ["soft", "keys"])
def test_a_pack_answers_as_peft_does(
    made: dict[tuple[str, str], Made], tmp_path: Path, method: str
) -> None:
    """On a backbone that knows nothing of it: its keys and values stand before the prefix's."""
    place = made["gemma", method]
    written = pack(
        tiny_backbone(),
        place.spec(tiny.PROMPT),
        tmp_path / "trained.pack",
        sample=SAMPLE,
        keep=("int8",),
    )
    assert written.manifest.prompt.virtual_tokens == VIRTUAL
    tokens = [label.token_ids for label in written.manifest.labels]
    theirs = place.logits(tiny.PROMPT).numpy()[:, [token for (token,) in tokens]]
    found = Classifier.load(tiny_backbone(), task=written.path, variant="fp32").logits(tiny.TEXTS)
    assert np.abs(found - theirs).max() < 1e-4


def test_inspection_counts_them(made: dict[tuple[str, str], Made]) -> None:
    place = made["qwen-classifier", "keys"]
    command = ["inspect", "--model", place.base, "--adapter", place.adapter, "--prompt", BARE]
    done = CliRunner().invoke(main, list(map(str, command)))
    assert done.exit_code == 0, done.output
    line = f"with the adapter {place.adapter}: PREFIX_TUNING, 1 tensors replaced"
    assert line in done.stdout
    assert "prompt: 5 virtual tokens and " in done.stdout


def test_a_prompt_that_leaves_no_room_counts_them(made: dict[tuple[str, str], Made]) -> None:
    place = made["gemma", "soft"]
    room = plan(place.spec(tiny.PROMPT)).limit
    taken = _context(place) - room
    with pytest.raises(SpecError, match=f"the prompt takes {taken} of {taken} tokens"):
        plan(place.spec(tiny.PROMPT, max_tokens=taken))


@pytest.mark.parametrize("name", BUILT)
def test_bench_measures_the_model_behind_them(
    made: dict[tuple[str, str], Made], bundles: dict[str, Path], name: str
) -> None:
    base, method, prompt, _ = BUILT[name]
    place = made[base, method]
    model = pytorch.Untrimmed(
        str(bundles[name]), str(place.base), "float32", None, str(place.adapter)
    )
    with torch.inference_mode():
        scores = model._scores(model._manifest, 0, place.sequences[prompt]).numpy()
    theirs = place.logits(prompt).numpy()
    if "classifier" not in base:
        tokens = [
            token for label in read_manifest(bundles[name]).labels for token in label.token_ids
        ]
        theirs = theirs[:, tokens]
    assert np.abs(scores - theirs).max() < 1e-4


def test_a_classifier_s_end_is_kept_where_transformers_reads_it(
    made: dict[tuple[str, str], Made],
) -> None:
    soft, keys = (made["qwen-classifier", it].checkpoint() for it in ("soft", "keys"))
    assert not soft.answers_before_padding  # it is given embeddings, in which no padding is known
    assert keys.answers_before_padding
    assert keys.virtual_tokens == soft.virtual_tokens == VIRTUAL
    assert made["qwen-classifier", "keys"].opened().virtual_tokens == 0
