"""GGUF files that cannot be built: one message each, and nothing is left behind."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from families import make
from gguf_models import finish, write_gguf
from trimexport import CheckpointError
from trimexport.source import gguf_blocks
from trimexport.source.checkpoint import open_checkpoint

Refused = Callable[..., str]
ASKED = ("--labels", "positive,negative", "--prompt", "Review: {text}\nSentiment:")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as transformers saved it."""
    return make("smollm", tmp_path_factory.mktemp("gguf") / "model", layers=1)


@pytest.fixture(scope="module")
def whole(directory: Path) -> Path:
    """The same as a GGUF. Shared: copy it to change it."""
    return write_gguf(directory, directory.parent / "whole.gguf")


@pytest.fixture
def file(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(whole, tmp_path / "model.gguf"))


def refused(tiny_refused: Refused, file: Path) -> str:
    said = tiny_refused("build", "--model", file, *ASKED, "-o", file.parent / "bundle")
    assert not (file.parent / "bundle").exists()
    return said


def edit(file: Path, found: bytes, put: bytes) -> None:
    """Change bytes that are in the file once."""
    data = file.read_bytes()
    assert data.count(found) == 1
    file.write_bytes(data.replace(found, put))


def small(
    file: Path, architecture: str = "llama", kind: str | None = None, **keys: Any
) -> gguf.GGUFWriter:
    """The beginning of a file: an embedding of 8 rows, and what llama.cpp always writes."""
    writer = gguf.GGUFWriter(file, architecture)
    if kind is not None:
        writer.add_type(kind)
    known = {
        "context_length": 128,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "block_count": 1,
        "attention.head_count": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    for key, value in {**known, **keys}.items():
        name = f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    return writer


# What a file begins with instead.
STARTS = {
    b"GGML\3\0\0\0": "is no GGUF file: it begins with b'GGML' instead of b'GGUF'",
    b"": "is empty or damaged",
    b"GG": "is no GGUF file: it begins with b'GG'",
    b"GGUF": "ends inside its header, so it is truncated; download it again",
    b"GGUF\1\0\0\0": "is GGUF version 1; little-endian files of version 2 and 3 are read",
    b"GGUF\0\0\0\3": "is written for big-endian machines; little-endian files",
    b"GGUF\3\0\0\0" + struct.pack("<QQQ", 0, 1, 2**62): "ends inside its header",
    b"GGUF\3\0\0\0" + struct.pack("<QQQ1sI", 0, 1, 1, b"k", 99): "a value of the unknown type 99",
    b"GGUF\3\0\0\0" + struct.pack("<QQ", 0, 0): "is of llama.cpp's architecture None",
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_a_file_that_begins_otherwise(tiny_refused: Refused, tmp_path: Path, start: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(start)
    assert STARTS[start] in refused(tiny_refused, file)


def test_a_file_that_is_no_gguf_by_its_name_either(tiny_refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"something else")
    message = (
        "is a file; --model takes a directory with config.json, safetensors and a tokenizer, a"
    )
    assert message in refused(tiny_refused, file)


def test_a_gguf_by_another_name(file: Path) -> None:
    other = file.rename(file.parent / "sha256-0123")
    assert open_checkpoint(other, "", None).tensors


def test_truncation_anywhere(whole: Path, tmp_path: Path) -> None:
    """In the header, and in the numbers."""
    data = whole.read_bytes()
    begin = min(it.offset for it in open_checkpoint(whole, "", None).tensors.values())
    cut = tmp_path / "cut.gguf"
    for length in [*range(5, begin, begin // 40), begin, len(data) // 2, len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="so it is truncated; download it again"):
            open_checkpoint(cut, "", None)


def test_truncated_numbers(tiny_refused: Refused, file: Path) -> None:
    with file.open("rb+") as stream:
        stream.truncate(file.stat().st_size - 100)
    said = refused(tiny_refused, file)
    assert "ends inside tensor " in said
    assert "so it is truncated; download it again" in said


@pytest.mark.parametrize(("number", "kind"), [(99, "99"), (26, "26"), (4, "4")])
def test_a_type_that_cannot_be_read(
    tiny_refused: Refused, tmp_path: Path, number: int, kind: str
) -> None:
    file = tmp_path / "model.gguf"
    finish(small(file))
    name = b"token_embd.weight" + struct.pack("<IQQ", 2, 32, 8)
    edit(file, name + struct.pack("<I", 0), name + struct.pack("<I", number))
    said = refused(tiny_refused, file)
    assert f"tensor token_embd.weight of {file} is of ggml's type {kind}, which cannot be" in said
    assert "Q4_K, " in said
    assert "can: take the file in another quantisation" in said


@pytest.mark.parametrize("shape", [(0, 32), (8, 33)])
def test_a_shape_that_cannot_be(
    tiny_refused: Refused, tmp_path: Path, shape: tuple[int, int]
) -> None:
    """No numbers, and a row that is no whole number of Q8_0's blocks."""
    file = tmp_path / "model.gguf"
    finish(small(file))
    name = b"token_embd.weight" + struct.pack("<I", 2)
    stored = struct.pack("<QQI", 32, 8, 0)
    edit(file, name + stored, name + struct.pack("<QQI", *shape[::-1], 8))
    assert f"tensor token_embd.weight is {list(shape)}, in blocks of 32" in refused(
        tiny_refused, file
    )


@pytest.mark.parametrize(
    ("architecture", "kind", "message"),
    [
        ("llama", "adapter", "is a LoRA adapter and no model; give the model with --model"),
        ("clip", None, "is the vision tower of a multimodal model (mmproj), which has no part"),
        ("clip", "mmproj", "is the vision tower of a multimodal model (mmproj), which has no part"),
        ("llama", "imatrix", "holds no model (general.type imatrix)"),
        ("falcon", "model", "is of llama.cpp's architecture falcon; of GGUF files, gemma, gemma2"),
    ],
)
def test_what_is_no_model_that_can_be_built(
    tiny_refused: Refused, tmp_path: Path, architecture: str, kind: str | None, message: str
) -> None:
    file = tmp_path / "model.gguf"
    finish(small(file, architecture, kind))
    assert message in refused(tiny_refused, file)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"expert_count": 8}, "is a mixture of experts (llama.expert_count)"),
        ({"block_count": None}, "lacks llama.block_count in its metadata; take a file that"),
        ({"block_count": 0}, "make no transformers configuration: num_hidden_layers is less than"),
        (
            {"attention.head_count_kv": [1, 2]},
            "llama.attention.head_count_kv of {file} is [1, 2], not one value for all layers",
        ),
        ({"context_length": "long"}, "llama.context_length of {file} is long, not one value"),
        ({"rope.dimension_count": 8}, "turns 8 of 16 numbers of a head (llama.rope.dimension_"),
        (
            {"rope.scaling.type": "longrope"},
            "scales its rotary frequencies by longrope (llama.rope.scaling.type); none, linear",
        ),
        (
            {"rope.scaling.type": "linear", "rope.scaling.factor": 0.0},
            "scales its rotary frequencies by 0 (llama.rope.scaling.factor); it has to be above",
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": -1.0,
                "rope.scaling.original_context_length": 64,
            },
            "scales its rotary frequencies by -1 (llama.rope.scaling.factor)",
        ),
        ({"block_count": 2**31}, "says that it has 2,147,483,648 layers and holds 1 tensors"),
        ({"attention.head_count": 0}, "make no transformers configuration"),
    ],
)
def test_metadata_that_make_no_model(
    tiny_refused: Refused, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    file = tmp_path / "model.gguf"
    finish(small(file, **keys))
    assert message.format(file=file) in refused(tiny_refused, file)


def test_frequencies_of_another_scaling(tiny_refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = small(file)
    writer.add_tensor("rope_freqs.weight", np.arange(1, 9, dtype=np.float32))
    finish(writer)
    message = "divides the rotary frequencies otherwise than Llama 3.1 does"
    assert message in refused(tiny_refused, file)


def test_half_of_longrope(tiny_refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = small(file, "phi3")
    writer.add_tensor("rope_factors_short.weight", np.ones(8, np.float32))
    finish(writer)
    assert "lacks the tensor rope_factors_long.weight" in refused(tiny_refused, file)


def test_a_file_without_embedding(tiny_refused: Refused, file: Path) -> None:
    edit(file, b"token_embd.weight", b"token_emba.weight")
    assert "lacks the tensor token_embd.weight; download it again" in refused(tiny_refused, file)


def test_tensors_of_another_architecture(tiny_refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = small(file)
    for name in ("blk.0.ffn_gate_inp.weight", "blk.0.attn_sinks.weight", "cls.output.weight", "x"):
        writer.add_tensor(name, np.zeros((2, 32), np.float32))
    finish(writer)
    said = refused(tiny_refused, file)
    assert "holds blk.0.ffn_gate_inp.weight, blk.0.attn_sinks.weight, cls.output.weight and" in said
    assert "and 1 more, which the llama models that can be built do not have" in said


def test_a_bias_that_the_architecture_does_not_have(tiny_refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = small(file, "gemma")
    writer.add_tensor("blk.0.attn_q.bias", np.zeros(32, np.float32))
    finish(writer)
    assert "holds blk.0.attn_q.bias, which the gemma models" in refused(tiny_refused, file)


def test_a_vocabulary_that_is_larger_than_the_embedding(
    tiny_refused: Refused, file: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.gguf"
    finish(small(bare))
    said = tiny_refused("build", "--model", bare, "--tokenizer", file, *ASKED)
    assert f"the tokenizer of {file} has 7,990 tokens that {bare} does not know" in said
    assert "its embedding has 8 rows; give the model's own with --tokenizer" in said


def test_a_layer_that_is_missing(tiny_refused: Refused, file: Path) -> None:
    key = b"llama.block_count" + struct.pack("<I", 4)
    edit(file, key + struct.pack("<I", 1), key + struct.pack("<I", 2))
    assert "lacks the tensor model.layers.1." in refused(tiny_refused, file)


def test_a_tensor_of_another_shape(tiny_refused: Refused, file: Path) -> None:
    key = b"llama.feed_forward_length" + struct.pack("<I", 4)
    edit(file, key + struct.pack("<I", 160), key + struct.pack("<I", 96))
    said = refused(tiny_refused, file)
    assert "is [160, 64], the configuration makes it [96, 64]" in said


@pytest.mark.parametrize("alignment", [0, 7])
def test_an_alignment_that_is_none(tiny_refused: Refused, tmp_path: Path, alignment: int) -> None:
    file = tmp_path / "model.gguf"
    writer = small(file)
    writer.add_uint32("general.alignment", alignment)
    finish(writer)
    assert f"general.alignment is {alignment}" in refused(tiny_refused, file)


def test_parts_that_are_missing(tiny_refused: Refused, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    first = write_gguf(directory, tmp_path / "parts" / "model.gguf", per_file=4)
    second, third = sorted(first.parent.iterdir())[1:]
    third.rename(tmp_path / "third")
    for named in (first, second, first.parent):
        said = refused(tiny_refused, named)
        assert "is one of 3 parts, of which 1 is not beside it (model-00003-of-00003.gguf)" in said
    first.rename(tmp_path / "first")
    assert "is one of 3 parts, of which 2 are not beside it" in refused(tiny_refused, second)
    alone = (tmp_path / "first").rename(tmp_path / "renamed.gguf")
    assert "says that it is part 1 of 3, and is part 1 of 1 by its name" in refused(
        tiny_refused, alone
    )


def test_parts_in_the_wrong_order(tiny_refused: Refused, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    first = write_gguf(directory, tmp_path / "parts" / "model.gguf", per_file=4)
    second = sorted(first.parent.iterdir())[1]
    first.rename(tmp_path / "first")
    second.rename(first)
    (tmp_path / "first").rename(second)
    assert "says that it is part 2 of 3, and is part 1 of 3" in refused(tiny_refused, first)


def test_a_directory_with_several(tiny_refused: Refused, file: Path) -> None:
    shutil.copyfile(file, file.parent / "other.gguf")
    said = refused(tiny_refused, file.parent)
    assert "has 2 GGUF files, model.gguf, other.gguf; name the file that you mean" in said


def test_the_library_is_not_installed(
    tiny_refused: Refused, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf_blocks._forms.cache_clear()
    monkeypatch.setitem(sys.modules, "gguf", None)
    said = refused(tiny_refused, file)
    assert f"{file} is a GGUF file, which needs the gguf library" in said
    assert "install `trimexport[gguf]`" in said


def test_no_tokenizer(tiny_refused: Refused, directory: Path, tmp_path: Path) -> None:
    file = write_gguf(directory, tmp_path / "model.gguf", tokenizer=False)
    message = "has no tokenizer in its metadata; give the model's own tokenizer with --tokenizer"
    assert message in refused(tiny_refused, file)


def test_a_file_is_no_classifier_and_has_no_revision(tiny_refused: Refused, file: Path) -> None:
    said = tiny_refused("build", "--model", file, code=2)
    assert "Missing option '--labels'" in said
    message = "is a file; a revision belongs to a hub id"
    assert message in tiny_refused("build", "--model", file, *ASKED, "--revision", "v1")
    message = "no prompt is known for the labels positive,negative"
    assert message in tiny_refused("build", "--model", file, *ASKED[:2])
    assert "has no chat template" in tiny_refused("build", "--model", file, *ASKED, "--chat")


def test_a_file_that_changes_while_it_is_read(file: Path) -> None:
    found = open_checkpoint(file, "", None)
    with file.open("rb+") as stream:
        stream.truncate(found.tensors["model.embed_tokens.weight"].offset + 10)
    with pytest.raises(CheckpointError, match="ends inside tensor model"):
        found.read("model.embed_tokens.weight")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*; see that it is there"):
        found.read("model.embed_tokens.weight")
