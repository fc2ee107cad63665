"""Checkpoints: read to transformers' numbers, or refused with a message."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import families
import tiny
from trimexport import BuildSpec, CheckpointError, Texts, UnsupportedError, build, plan
from trimexport.graph.streamed_weights import StreamedWeight
from trimexport.model.layerwise import LayerwiseModel
from trimexport.progress import Silent
from trimexport.source.checkpoint import open_checkpoint
from trimexport.source.empty_model import unread_tensors
from trimexport.source.families import GEMMA_NOTICE, notice_for

EMBEDDING = "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"
GATE = "model.layers.0.mlp.gate_proj.weight"


def _open(directory: Path) -> None:
    """Open a checkpoint the way a build does, up to its first read."""
    checkpoint = open_checkpoint(directory, str(directory), None)
    LayerwiseModel(checkpoint).prefix_cache((2, 5, 9))


READ = """
import sys
from pathlib import Path
from trimexport import CheckpointError
from trimexport.source.json_file import read_json_object
from trimexport.source.tensor_files import read_header
for read, name in ((lambda it: read_json_object(it, ""), "config.json"),
                   (read_header, "model.safetensors")):
    try:
        read(Path(sys.argv[1]) / name)
    except CheckpointError as error:
        print(error)
"""


def test_files_that_may_not_be_read(tiny_copy: Path) -> None:
    """By a process that, if it is root's, has put the rights away that go beyond permissions."""
    plain = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if os.geteuid() == 0 and (
        shutil.which("setpriv") is None
        or subprocess.run([*plain, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("root reads everything here")
    files = [tiny_copy / "config.json", tiny_copy / "model.safetensors"]
    for file in files:
        file.chmod(0)
    command = [*(plain if os.geteuid() == 0 else []), sys.executable, "-c", READ, str(tiny_copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"{file} cannot be read (Permission denied); see that it is there and may be read"
        for file in files
    ], done.stderr


def _refused(directory: Path, message: str, kind: type[Exception] = CheckpointError) -> str:
    with pytest.raises(kind, match=re.escape(message)) as caught:
        _open(directory)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard", ["5GB", "200KB"])
def test_tensors_are_what_transformers_reads(
    tmp_path: Path, dtype: torch.dtype, shard: str
) -> None:
    directory = tiny.save_tiny(tmp_path, dtype, shard)
    assert (directory / INDEX).is_file() == (shard != "5GB")
    checkpoint = open_checkpoint(directory, "tiny", None)
    expected = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).state_dict()
    assert set(checkpoint.tensors) == set(expected) - {"lm_head.weight"}
    for name in checkpoint.tensors:
        assert torch.equal(checkpoint.read(name), expected[name])
        assert checkpoint.read(name).dtype == torch.float32
    table = expected[EMBEDDING]
    assert torch.equal(checkpoint.read(EMBEDDING, 7, 31), table[7:31])
    assert torch.equal(checkpoint.read(EMBEDDING, 7990, 9000), table[7990:])
    assert torch.equal(checkpoint.read_rows(EMBEDDING, [5, 3, 5, 7999]), table[[5, 3, 5, 7999]])
    assert checkpoint.read_rows(EMBEDDING, []).shape == (0, 32)
    assert checkpoint.bytes == sum(
        t.numel() for n, t in expected.items() if n != "lm_head.weight"
    ) * (dtype.itemsize)
    assert checkpoint.context == 128


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    _refused(tmp_path / "none", "none does not exist; --model takes a directory")


def test_no_configuration(tiny_copy: Path) -> None:
    (tiny_copy / "config.json").unlink()
    _refused(tiny_copy, "has no config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json cannot be read"),
        ("[1]", "config.json is not a JSON object"),
        ("{}", "names no architecture in config.json; supported are GemmaForCausalLM"),
        ('{"architectures": "Gemma"}', "names no architecture"),
        ('{"architectures": []}', "names no architecture"),
    ],
)
def test_a_configuration_that_is_none(tiny_copy: Path, text: str, message: str) -> None:
    (tiny_copy / "config.json").write_text(text, encoding="utf-8")
    _refused(tiny_copy, message)


def test_an_architecture_that_is_not_supported(tiny_copy: Path) -> None:
    tiny.edit_json(
        tiny_copy / "config.json", lambda it: it.update(architectures=["BloomForCausalLM"])
    )
    message = "is a BloomForCausalLM; supported are GemmaForCausalLM, Gemma2ForCausalLM"
    _refused(tiny_copy, message, UnsupportedError)


def test_rotary_settings_that_lack_what_they_need(tiny_copy: Path) -> None:
    scaling = {"rope_type": "longrope", "rope_theta": 10000.0}
    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(rope_parameters=scaling))
    message = _refused(tiny_copy, "config.json cannot be read as a transformers configuration")
    assert "long_factor" in message


def test_a_configuration_of_the_wrong_types(tiny_copy: Path) -> None:
    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(hidden_size="wide"))
    _refused(tiny_copy, "config.json cannot be read as a transformers configuration")


@pytest.mark.parametrize("left", [0, 4, 60, 5000, -1])
def test_a_truncated_file(tiny_copy: Path, left: int) -> None:
    path = tiny_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    _refused(tiny_copy, "model.safetensors is truncated or damaged")


@pytest.mark.parametrize("damage", [b"[", b"\xff" * 40, b'{"a": 1}' + b" " * 32])
def test_a_corrupt_header(tiny_copy: Path, damage: bytes) -> None:
    path = tiny_copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8 : 8 + len(damage)] = damage
    path.write_bytes(data)
    _refused(tiny_copy, "model.safetensors is truncated or damaged")


def test_a_header_of_absurd_length(tiny_copy: Path) -> None:
    path = tiny_copy / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])
    _refused(tiny_copy, "model.safetensors is truncated or damaged")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The tiny model in several files."""
    return tiny.save_tiny(tmp_path / "sharded", shard="200KB")


def test_a_missing_shard(sharded: Path) -> None:
    shards = sorted(sharded.glob("*.safetensors"))
    shards[1].unlink()
    message = f"lacks 1 of {len(shards)} weight files ({shards[1].name})"
    _refused(sharded, message)


def test_missing_entries_of_the_index_matter_only_with_their_file(sharded: Path) -> None:
    tiny.edit_json(sharded / INDEX, lambda it: it["weight_map"].__delitem__(GATE))
    _open(sharded)
    gone = json.loads((sharded / INDEX).read_text(encoding="utf-8"))["weight_map"][EMBEDDING]
    keep = {n: f for n, f in _weight_map(sharded).items() if f != gone}
    tiny.edit_json(sharded / INDEX, lambda it: it.update(weight_map=keep))
    _refused(sharded, f"lacks the tensor {EMBEDDING} that a GemmaForCausalLM needs")


def _weight_map(directory: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((directory / INDEX).read_text(encoding="utf-8"))[
        "weight_map"
    ]
    return found


@pytest.mark.parametrize(
    "index",
    ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}'],
)
def test_an_index_that_is_none(sharded: Path, index: str) -> None:
    (sharded / INDEX).write_text(index, encoding="utf-8")
    _refused(sharded, "index.json cannot be read")


def test_an_index_does_not_lead_out_of_the_directory(sharded: Path, tiny_model: Path) -> None:
    outside = {EMBEDDING: str(tiny_model / "model.safetensors")}
    tiny.edit_json(sharded / INDEX, lambda it: it.update(weight_map=outside))
    _refused(sharded, "does not name files beside it")


def test_a_missing_tensor(tiny_copy: Path) -> None:
    tiny.edit_tensors(tiny_copy, lambda it: it.__delitem__(GATE))
    _refused(
        tiny_copy, f"lacks the tensor {GATE} that a GemmaForCausalLM needs; it holds 19 tensors"
    )


def test_a_tied_model_that_stores_its_output_layer_alone(tiny_copy: Path, tiny_model: Path) -> None:
    """As `safetensors.torch.save_model` leaves out one of two names; transformers loads it."""

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors.pop(EMBEDDING)

    tiny.edit_tensors(tiny_copy, rename)
    prompts = [[2, 5, 6], [2, 77]]
    found, own = (
        LayerwiseModel(open_checkpoint(it, str(it), None)).reference(prompts, [3, 4])
        for it in (tiny_copy, tiny_model)
    )
    assert torch.equal(found.token_logits, own.token_logits)
    tiny.edit_tensors(tiny_copy, lambda it: it.__delitem__("lm_head.weight"))
    _refused(tiny_copy, f"lacks the tensor {EMBEDDING}")


def test_a_tensor_of_another_shape(tiny_copy: Path) -> None:
    tiny.edit_tensors(tiny_copy, lambda it: it.update({GATE: it[GATE][:, :16].contiguous()}))
    _refused(tiny_copy, f"tensor {GATE}")
    _refused(tiny_copy, "is [64, 16], the configuration makes it [64, 32]")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("score", ' write "architectures": ["GemmaForSequenceClassification"]'), ("qa_outputs", "")],
)
def test_a_trained_output_layer_that_a_language_model_has_not(
    tiny_copy: Path, name: str, meant: str
) -> None:
    """It would be left out without a word, and the answers be those of another layer."""
    head = {f"{name}.weight": torch.ones(4, 32)}
    tiny.edit_tensors(tiny_copy, lambda tensors: tensors.update(head))
    message = _refused(tiny_copy, f"holds {name}.weight [4, 32], the trained", UnsupportedError)
    assert message.startswith(f"{tiny_copy} is a GemmaForCausalLM by its config.json and holds")
    assert "if the language model is meant, save it alone: python -c" in message
    assert meant in message
    assert ("architectures" in message) == bool(meant)
    if meant:  # what it says helps
        labels = {str(index): label for index, label in enumerate("abcd")}
        settings = {"architectures": ["GemmaForSequenceClassification"], "id2label": labels}
        tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(settings))
        checkpoint = plan(BuildSpec(model=str(tiny_copy))).checkpoint
        found = LayerwiseModel(checkpoint).cut_head(range(4))
        assert torch.equal(found.weight, head["score.weight"])


def test_a_trained_output_layer_of_a_family_without_classifiers(tmp_path: Path) -> None:
    """No class of transformers' could be written into its config.json."""
    directory = families.make("granite", tmp_path, layers=1)
    tiny.edit_tensors(directory, lambda it: it.update({"score.weight": torch.ones(4, 64)}))
    message = _refused(directory, "holds score.weight [4, 64], the trained", UnsupportedError)
    assert "architectures" not in message


def test_tensors_that_the_model_has_no_place_for(tiny_copy: Path) -> None:
    bias = "model.layers.1.self_attn.q_proj.bias"
    more = (bias, "model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.rotary_emb.x")
    tied = {"lm_head.weight": load_file(tiny_copy / "model.safetensors")[EMBEDDING].clone()}
    added = {name: torch.ones(1) for name in more} | tied
    tiny.edit_tensors(tiny_copy, lambda tensors: tensors.update(added))
    checkpoint = open_checkpoint(tiny_copy, "", None)
    names = LayerwiseModel(checkpoint).names.values()
    assert unread_tensors(names, checkpoint) == [bias, "model.layers.2.mlp.up_proj.weight"]


class Heard(Silent):
    """What a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64])
def test_an_unsupported_dtype(tiny_copy: Path, dtype: torch.dtype) -> None:
    tiny.edit_tensors(tiny_copy, lambda it: it.update({GATE: it[GATE].to(dtype)}))
    name = {torch.int8: "I8", torch.float64: "F64"}[dtype]
    _refused(tiny_copy, f"is {name}; F32, F16, BF16 can be read")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_number_that_is_none(tmp_path: Path, dtype: torch.dtype, number: float) -> None:
    directory = tiny.save_tiny(tmp_path, dtype)
    tiny.edit_tensors(directory, lambda tensors: tensors[GATE][3, 5].fill_(number))
    what = "NaN" if number != number else f"{number:+}"
    file = directory / "model.safetensors"
    _refused(
        directory,
        f"tensor {GATE} of {file} holds {what} at [3, 5], which is no finite number; download it "
        "again, or take a state of the model from before its training diverged",
    )


def test_numbers_that_are_none_are_found_wherever_they_are_read(tiny_copy: Path) -> None:
    """A row that no prompt and no label reads, too: the label mass rests on all."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][-1] = torch.nan
        tensors[EMBEDDING][7000, 3:5] = torch.nan

    tiny.edit_tensors(tiny_copy, spoil)
    checkpoint = open_checkpoint(tiny_copy, "", None)
    with pytest.raises(CheckpointError, match=r"holds NaN at \[31\], which"):
        checkpoint.read("model.norm.weight")
    assert checkpoint.read(EMBEDDING, 0, 7000).isfinite().all()
    found = r"holds NaN at \[7000, 3\], which is no finite number, one of 2 that are not; download"
    for read in (
        lambda: checkpoint.read_rows(EMBEDDING, [5, 7000]),
        lambda: list(StreamedWeight(checkpoint, EMBEDDING, False, "e").blocks()),
        lambda: LayerwiseModel(checkpoint).read_vocabulary(torch.ones(1, 32), [5]),
    ):
        with pytest.raises(CheckpointError, match=found):
            read()


def test_sums_that_overflow_are_no_evidence(tiny_copy: Path) -> None:
    tiny.edit_tensors(tiny_copy, lambda tensors: tensors[GATE].fill_(3e38))
    assert (open_checkpoint(tiny_copy, "", None).read(GATE) == 3e38).all()


@pytest.mark.parametrize("precision", ["int4", "int8", "fp32"])
def test_no_bundle_is_made_of_numbers_that_are_none(tiny_copy: Path, precision: str) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING][7000, 0] = torch.nan
        tensors.update({f"other.{number}": torch.ones(1) for number in range(5)})

    tiny.edit_tensors(tiny_copy, spoil)
    heard = Heard()
    output = tiny_copy.with_name("bundle")
    spec = BuildSpec(
        model=str(tiny_copy), labels=("good", "bad"), prompt="{text} is", precision=(precision,)
    )
    with pytest.raises(CheckpointError, match=rf"{EMBEDDING} of .* holds NaN at \[7000, 0\]"):
        build(spec, output, sample=Texts(tiny.TEXTS), progress=heard)
    assert not output.exists()
    (line,) = (line for line in heard.lines if line.startswith("warning: the checkpoint holds"))
    assert "left out: other.0, other.1, other.2 and 2 more; if the model was trained with" in line


def test_weights_that_are_finite_and_make_states_that_are_not(tiny_copy: Path) -> None:
    tiny.edit_tensors(tiny_copy, lambda tensors: tensors["model.norm.weight"].fill_(3e38))
    model = LayerwiseModel(open_checkpoint(tiny_copy, "", None))
    with pytest.raises(CheckpointError, match="computes hidden states in float32 that are not fin"):
        model.reference([(2, 5, 9)], [5])


@pytest.mark.parametrize("written", ["NaN", "-Infinity", "1e999"])
def test_a_configuration_with_a_number_that_is_none(tiny_copy: Path, written: str) -> None:
    path = tiny_copy / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("{", f'{{"anything": [{written}],', 1), encoding="utf-8")
    _refused(tiny_copy, f"config.json cannot be read: {written} in it is no finite number; downloa")


def test_a_file_that_goes_away_while_it_is_read(tiny_copy: Path) -> None:
    checkpoint = open_checkpoint(tiny_copy, "tiny", None)
    (tiny_copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read .*; see that it is there"):
        checkpoint.read(GATE)


def test_a_file_that_shrinks_while_it_is_read(tiny_copy: Path) -> None:
    checkpoint = open_checkpoint(tiny_copy, "tiny", None)
    path = tiny_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: checkpoint.tensors[GATE].offset + 10])
    with pytest.raises(CheckpointError, match=f"ends inside tensor {GATE}"):
        checkpoint.read(GATE)


def test_no_weights(tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").unlink()
    _refused(tiny_copy, f"has no weights: neither model.safetensors nor {INDEX}")


def _only_pickles(directory: Path) -> Path:
    """Leave only a pickle, which would make the file `directory/ran` if it were ever loaded."""
    (directory / "model.safetensors").unlink()
    code = b"cposix\nsystem\n(S'touch %s'\ntR." % str(directory / "ran").encode()
    (directory / "pytorch_model.bin").write_bytes(code)
    return directory


def test_the_pickle_of_these_tests_would_run(tiny_copy: Path) -> None:
    directory = _only_pickles(tiny_copy)
    pickle.loads((directory / "pytorch_model.bin").read_bytes())
    assert (directory / "ran").exists()


def test_pickles_are_not_loaded(tiny_copy: Path) -> None:
    directory = _only_pickles(tiny_copy)
    message = _refused(directory, "has its weights only as PyTorch .bin files")
    assert "save_pretrained" in message
    assert "copy the tokenizer's files" in message
    assert not (directory / "ran").exists()


def _plan(directory: Path) -> None:
    plan(BuildSpec(model=str(directory), labels=("positive", "negative"), prompt=tiny.PROMPT))


def test_no_tokenizer(tiny_copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tiny_copy / name).unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer: none of tokenizer.json"):
        _plan(tiny_copy)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_tokenizer(tiny_copy: Path, text: str) -> None:
    (tiny_copy / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* cannot be loaded"):
        _plan(tiny_copy)


def _other_number(definition: dict[str, Any]) -> None:
    definition["model"]["vocab"]["▁a"] = 4  # which `<mask>` has


def _panics(definition: dict[str, Any]) -> None:
    definition["model"]["continuing_subword_prefix"] = "longer than any piece" * 9


def _no_ids_of_bos(definition: dict[str, Any]) -> None:
    definition["post_processor"]["special_tokens"] = {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_number, "its vocabulary gives two tokens one id"),
        (_panics, "tokenizers fails on it: "),
        (_no_ids_of_bos, "its post_processor writes '<bos>', of which it has no ids"),
    ],
)
def test_a_tokenizer_that_contradicts_itself(
    tiny_copy: Path, change: Callable[[Any], None], reason: str
) -> None:
    tiny.edit_json(tiny_copy / "tokenizer.json", change)
    with pytest.raises(
        CheckpointError, match=rf"the tokenizer of .* cannot be loaded \(.*{reason}"
    ):
        _plan(tiny_copy)


@pytest.mark.parametrize("key", ["initializer_range", "num_hidden_layers"])
def test_a_wrong_value_is_not_shown_whole(tiny_copy: Path, key: str) -> None:
    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update({key: "a" * 5000}))
    with pytest.raises(CheckpointError) as refusal:
        _open(tiny_copy)
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


def test_a_weight_file_of_a_name_that_the_system_refuses(tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").unlink()
    weights = {"weight_map": {EMBEDDING: "a" * 300}}
    (tiny_copy / INDEX).write_text(json.dumps(weights), encoding="utf-8")
    with pytest.raises(CheckpointError, match="lacks 1 of 1 weight files"):
        _open(tiny_copy)


def test_code_in_the_directory_is_never_run(tiny_copy: Path) -> None:
    marker = tiny_copy / "ran"
    code = f"open({str(marker)!r}, 'w').close()\nclass Mine: pass\n"
    (tiny_copy / "mine.py").write_text(code, encoding="utf-8")
    autos = ("AutoConfig", "AutoModelForCausalLM")
    tiny.edit_json(
        tiny_copy / "config.json",
        lambda it: it.update(auto_map={name: "mine.Mine" for name in autos}),
    )
    tiny.edit_json(
        tiny_copy / "tokenizer_config.json",
        lambda it: it.update(auto_map={"AutoTokenizer": ["mine.Mine", "mine.Mine"]}),
    )
    _open(tiny_copy)
    _plan(tiny_copy)
    assert not marker.exists()


def test_code_is_not_run_for_a_model_type_that_needs_it(tiny_copy: Path) -> None:
    marker = tiny_copy / "ran"
    (tiny_copy / "mine.py").write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    change = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    tiny.edit_json(tiny_copy / "config.json", lambda it: it.update(change))
    _refused(tiny_copy, "cannot be read as a transformers configuration")
    assert not marker.exists()


def test_terms_go_with_google_s_vocabulary() -> None:
    assert notice_for("GemmaForCausalLM", 256_000) == GEMMA_NOTICE
    assert notice_for("GemmaForCausalLM", 8_000) is None
    assert notice_for("LlamaForCausalLM", 256_000) is None


def test_the_tokens_that_end_an_answer(tiny_copy: Path) -> None:
    """Those of both files, once each, that are in the vocabulary."""
    assert open_checkpoint(tiny_copy, "m", None).end_ids == (1,)
    more = tiny_copy / "generation_config.json"
    more.write_text('{"eos_token_id": [1, 107, 8000, -1, null, "x"]}')
    assert open_checkpoint(tiny_copy, "m", None).end_ids == (1, 107)
    more.write_text("{}")
    assert open_checkpoint(tiny_copy, "m", None).end_ids == (1,)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_generation_config(tiny_copy: Path, text: str) -> None:
    (tiny_copy / "generation_config.json").write_text(text)
    spec = BuildSpec(model=str(tiny_copy), labels=("good", "bad"), prompt=tiny.PROMPT)
    with pytest.raises(CheckpointError, match=r"generation_config\.json .*download it again"):
        plan(spec)
