"""LoRA adapters: merged as peft merges them, named, and found again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import families
import tiny
from models import Untrimmed, llama, save
from packages import needs_wheels, run_with
from trimexport import (
    BuildSpec,
    CheckpointError,
    SpecError,
    Texts,
    build,
    plan,
    verify,
)
from trimexport.bench import pytorch
from trimexport.bench.subjects import find_subjects
from trimexport.cli import main
from trimexport.inspection.sizes import Merge, inspect_plan
from trimexport.source.adapter import merge_adapter
from trimexport.source.checkpoint import Checkpoint, open_checkpoint
from trimexport.source.empty_model import parameter_names
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.tokenize import TextEncoder

LABELS = ("positive", "negative")
STARS = {0: "bad", 1: "fair", 2: "good"}
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SAMPLE = Texts(tiny.TEXTS)
CAUSAL = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16, "target_modules": "all-linear"}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma": CAUSAL,
    "gpt2": {  # layers that are stored [inputs, outputs], one of them a square
        **CAUSAL,
        "target_modules": ["c_attn", "c_proj", "c_fc"],
        "bias": "all",
        "modules_to_save": ["ln_f"],
    },
    "llama": {  # an output layer of its own, biases, and a strength for each layer
        **CAUSAL,
        "target_modules": ["q_proj", "v_proj", "down_proj", "lm_head"],
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {r"layers\.0\..*": 7},
        "bias": "lora_only",
    },
    "classifier": {
        **CAUSAL,
        "task_type": "SEQ_CLS",
        "target_modules": ["q_proj", "v_proj"],
    },
    "multimodal": CAUSAL,
}


@dataclass(frozen=True)
class Made:
    """A base, an adapter of it, and what peft makes of the two. Shared: do not change them."""

    base: Path
    adapter: Path
    merged: Path

    def checkpoint(self) -> Checkpoint:
        """The base with the adapter."""
        return merge_adapter(self.opened(), self.adapter, str(self.adapter))

    def opened(self) -> Checkpoint:
        """The base without it."""
        return open_checkpoint(self.base, str(self.base), None)

    def spec(self, **more: Any) -> BuildSpec:
        return BuildSpec(
            model=str(self.base),
            adapter=str(self.adapter),
            **{"labels": LABELS, "prompt": tiny.PROMPT, "precision": ("fp32",), **more},
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Every adapter of CONFIGS."""
    wheels = needs_wheels("peft")
    root = tmp_path_factory.mktemp("adapters")
    makers: dict[str, Callable[[Path], Path]] = {
        "gemma": tiny.save_tiny,
        "gpt2": lambda it: families.make("gpt2", it),
        "llama": lambda it: save(llama(), it),
        "classifier": lambda it: families.make(
            "llama3", it, classifier=True, layers=1, id2label=STARS
        ),
        "multimodal": lambda it: families.make("gemma3-multimodal", it),
    }
    found, jobs = {}, []
    for name, make in makers.items():
        place = Made(*(root / name / part for part in ("base", "adapter", "merged")))
        make(place.base)
        paths = {"base": place.base, "adapter": place.adapter, "merged": place.merged}
        jobs.append({"config": CONFIGS[name], **{key: str(it) for key, it in paths.items()}})
        found[name] = place
    (root / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)), encoding="utf-8")
    script = Path(__file__).with_name("make_adapters.py")
    run = run_with([wheels], str(script), str(root / "jobs.jsonl"))
    assert run.returncode == 0, run.stderr
    for place in found.values():  # peft does not know them
        for file in place.base.glob("tokenizer*"):
            shutil.copyfile(file, place.merged / file.name)
    return found


@pytest.fixture(scope="module")
def gemma(made: dict[str, Made]) -> Made:
    return made["gemma"]


@pytest.fixture(scope="module")
def bundle(gemma: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Gemma with its adapter, in two precisions. Shared: do not change it, copy it."""
    spec = gemma.spec(precision=("fp32", "int8"))
    return build(spec, tmp_path_factory.mktemp("adapted") / "b", sample=SAMPLE).directory


@pytest.fixture
def broken(gemma: Made, tmp_path: Path) -> Path:
    """A copy of the tiny Gemma's adapter, to break."""
    return shutil.copytree(gemma.adapter, tmp_path / "adapter")


def judged(bundle: Path, directory: Path) -> np.ndarray:
    """The label logits of transformers' model in `directory` on the ids that the graph sees."""
    manifest = read_manifest(bundle)
    encoder = TextEncoder.load(bundle, manifest)
    before, after = manifest.prompt.prefix_ids, manifest.prompt.suffix_ids
    rows = [[*before, *encoder.encode(text).ids.tolist(), *after] for text in tiny.TEXTS]
    tokens = [label.token_ids[0] for label in manifest.labels]
    return Untrimmed(directory).logits_of(rows, tokens)


# What is merged


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_is_peft_s(made: dict[str, Made], name: str) -> None:
    ours, base = made[name].checkpoint(), made[name].opened()
    theirs = open_checkpoint(made[name].merged, "", None)
    assert set(ours.tensors) == set(base.tensors) == set(theirs.tensors)
    for tensor in theirs.tensors:
        expected = theirs.read(tensor)
        assert torch.allclose(ours.read(tensor), expected, atol=1e-6), tensor
        for start, stop in ((0, 1), (3, 8), (len(expected) - 2, len(expected) + 9)):
            rows = ours.read(tensor, start, stop)
            assert torch.allclose(rows, expected[start:stop], atol=1e-6), tensor
    moved = {it: (ours.read(it) - base.read(it)).abs().max() for it in base.tensors}
    assert ours.adapter is not None
    assert {it for it, change in moved.items() if change > 0} == ours.adapter.parameters
    assert max(moved.values()) > 0.2


def test_a_bundle_answers_as_peft_s_merged_model(bundle: Path, gemma: Made) -> None:
    ours = Classifier.load(bundle, variant="fp32").logits(list(tiny.TEXTS))
    theirs = judged(bundle, gemma.merged)
    assert theirs.std() > 1
    assert np.abs(ours - theirs).max() < 1e-4
    without = judged(bundle, gemma.base)
    assert np.abs(ours - without).max() > 1


def test_int8_is_as_good_as_without_an_adapter(bundle: Path, gemma: Made) -> None:
    parity = read_manifest(bundle).variant("int8").parity
    assert parity is not None
    assert parity.agreement == 1.0
    assert parity.max_logit_difference < 0.5
    ours = Classifier.load(bundle, variant="int8").logits(list(tiny.TEXTS))
    off = np.abs(ours - judged(bundle, gemma.merged)).max()
    assert 1e-4 < off < 0.5  # it is quantised, and still that model


def test_gpt2_from_the_command_line(made: dict[str, Made], tmp_path: Path) -> None:
    """The adapter is beside the recipe; the build compares on texts that ship."""
    shutil.copytree(made["gpt2"].adapter, tmp_path / "mine")
    prompt = json.dumps(tiny.PROMPT)
    (tmp_path / "r.toml").write_text(
        f"model = '{made['gpt2'].base}'\nadapter = 'mine'\nlabels = {list(LABELS)}\n"
        f"prompt = {prompt}\nprecision = ['fp32']\n",
        encoding="utf-8",
    )
    command = ["build", "--recipe", str(tmp_path / "r.toml"), "-o", str(tmp_path / "b")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    ours = Classifier.load(tmp_path / "b").logits(list(tiny.TEXTS))
    theirs = judged(tmp_path / "b", made["gpt2"].merged)
    assert theirs.std() > 1
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(ours - judged(tmp_path / "b", made["gpt2"].base)).max() > 1
    assert read_manifest(tmp_path / "b").source.adapter == str(tmp_path / "mine")


def test_a_fine_tuned_classifier_and_its_output_layer(
    made: dict[str, Made], tmp_path: Path
) -> None:
    place = made["classifier"]
    spec = place.spec(labels=(), prompt=None)
    found = build(spec, tmp_path / "b", sample=SAMPLE).directory
    assert read_manifest(found).label_names == ("bad", "fair", "good")
    encoder = TextEncoder.load(found, read_manifest(found))
    start = read_manifest(found).prompt.prefix_ids
    texts = [text for text in tiny.TEXTS if text]
    ours = Classifier.load(found).logits(texts)
    for directory, close in ((place.merged, True), (place.base, False)):
        model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
        ids = [torch.tensor([[*start, *encoder.encode(text).ids.tolist()]]) for text in texts]
        with torch.no_grad():
            theirs = torch.cat([model(it).logits for it in ids]).numpy()
        off = np.abs(ours - theirs).max()
        assert off < 1e-4 if close else off > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_of_half_size_are_multiplied_in_float32(
    gemma: Made, broken: Path, dtype: torch.dtype
) -> None:
    tensors = {name: it.to(dtype) for name, it in load_file(broken / WEIGHTS).items()}
    save_file(tensors, broken / WEIGHTS)
    name = "model.layers.1.mlp.down_proj"
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
    found = merge_adapter(gemma.opened(), broken, "").read(name + ".weight")
    expected = gemma.opened().read(name + ".weight") + 16 / 4 * (b @ a)
    assert torch.allclose(found, expected, atol=1e-6)


# What is said of it


def test_the_manifest_and_the_card_name_it(bundle: Path, gemma: Made) -> None:
    source = read_manifest(bundle).source
    both = (gemma.adapter / CONFIG).read_bytes() + (gemma.adapter / WEIGHTS).read_bytes()
    assert source.adapter == str(gemma.adapter.resolve())
    assert source.adapter_sha256 == hashlib.sha256(both).hexdigest()
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "| adapter | `adapter` (LoRA, merged) |" in card


def test_inspect_says_what_is_merged(made: dict[str, Made], gemma: Made) -> None:
    found = inspect_plan(plan(made["llama"].spec()))
    name = str(made["llama"].adapter)
    assert found.merge == Merge(name, matrices=7, ranks=(2, 4, 6), replaced=7)
    command = ["inspect", "--model", gemma.base, "--adapter", gemma.adapter]
    command += ["--labels", ",".join(LABELS), "--prompt", tiny.PROMPT]
    done = CliRunner().invoke(main, list(map(str, command)))
    line = f"with the adapter {gemma.adapter}: 14 matrices changed by rank 4, 0 tensors replaced"
    assert line in done.stdout.splitlines()


# Verifying and measuring


def test_verify_merges_it_again(bundle: Path) -> None:
    report = verify(bundle, sample=SAMPLE)
    assert report.within
    assert report.variants[0].max_logit_difference < 1e-4


def _moved(bundle: Path, place: Path) -> Path:
    copy = shutil.copytree(bundle, place / "bundle")
    gone = {"adapter": str(place / "gone")}
    tiny.edit_json(copy / "trimexport.json", lambda it: it["source"].update(gone))
    return copy


def test_an_adapter_that_has_moved(bundle: Path, gemma: Made, tmp_path: Path) -> None:
    copy = _moved(bundle, tmp_path)
    message = r"with the adapter .*gone, which is not there any more; name its .* with --adapter"
    with pytest.raises(CheckpointError, match=message):
        verify(copy, sample=SAMPLE)
    assert verify(copy, sample=SAMPLE, adapter=str(gemma.adapter)).within


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_another_adapter(bundle: Path, broken: Path, file: str) -> None:
    if file == CONFIG:
        tiny.edit_json(broken / CONFIG, lambda it: it.update(lora_alpha=8))
    else:
        tensors = load_file(broken / WEIGHTS)
        next(iter(tensors.values())).mul_(2)
        save_file(tensors, broken / WEIGHTS)
    message = r"is not the adapter that the bundle was made with .* its files differ; name the"
    with pytest.raises(CheckpointError, match=message):
        verify(bundle, sample=SAMPLE, adapter=str(broken))


def test_an_adapter_for_a_bundle_without_one(tiny_bundle: Path, gemma: Made) -> None:
    with pytest.raises(SpecError, match="was made without an adapter; drop --adapter"):
        verify(tiny_bundle, sample=SAMPLE, adapter=str(gemma.adapter))


def test_verify_and_bench_take_it_on_the_command_line(
    bundle: Path, gemma: Made, tmp_path: Path
) -> None:
    copy = str(_moved(bundle, tmp_path))
    (tmp_path / "texts.txt").write_text("dull\ngood\n", encoding="utf-8")
    texts = ["--texts", str(tmp_path / "texts.txt"), "--adapter", str(gemma.adapter)]
    done = CliRunner().invoke(main, ["verify", copy, *texts])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["bench", copy, *texts])
    assert done.exit_code == 2
    assert "--adapter belongs to the model of --against pytorch; give both." in done.stderr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bench_measures_the_merged_model(bundle: Path, gemma: Made, dtype: str) -> None:
    ours, _, theirs = find_subjects(str(bundle), ["pytorch"], None).subjects
    assert ours.adapter is None
    assert theirs.adapter == gemma.adapter
    both = (gemma.base / "model.safetensors", gemma.adapter / WEIGHTS)
    assert theirs.bytes == sum(file.stat().st_size for file in both)
    request = {key: theirs.request()[key] for key in ("bundle", "model", "adapter")}
    model = pytorch.Untrimmed(**request, dtype=dtype, threads=None)
    merged_by_peft = open_checkpoint(gemma.merged, "", None)
    for name, source in parameter_names(model._model, merged_by_peft).items():
        expected = merged_by_peft.read(source).to(getattr(torch, dtype))
        assert torch.equal(model._model.get_parameter(name), expected)
    if dtype == "float32":
        classified = Classifier.load(bundle, variant="fp32").classify(list(tiny.TEXTS))
        assert model.labels(tiny.TEXTS) == [it.label for it in classified]


def test_bench_merges_into_the_language_part_of_a_multimodal_model(made: dict[str, Made]) -> None:
    place = made["multimodal"]
    model = AutoModelForCausalLM.from_pretrained(place.base, dtype=torch.float32)
    pytorch._merge(model, place.base, place.adapter)
    theirs = AutoModelForCausalLM.from_pretrained(place.merged, dtype=torch.float32).state_dict()
    language = [it for it in theirs if "language_model" in it]
    assert len(language) > 20
    assert all(torch.allclose(model.state_dict()[it], theirs[it], atol=1e-6) for it in language)
