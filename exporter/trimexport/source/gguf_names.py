"""Which parameter a tensor of a GGUF file is, and what llama.cpp's conversion did to its numbers.

It adds one to Gemma's norms, which transformers adds as it runs; it interleaves the two halves of
each head of Llama's queries and keys; and it turns GPT-2's matrices, which transformers has with
rows for columns.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from transformers import PretrainedConfig

from trimexport.errors import UnsupportedError

from .gguf_blocks import GgufEntry
from .gguf_header import GgufHeader
from .tensor_files import TensorEntry

# They are read for the configuration.
_CONFIGURED = frozenset(
    ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
)
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_SHOWN = 3

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_QKV = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
}
_ATTENTION = {**_QKV, "attn_output": "self_attn.o_proj"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_TWO_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_FOUR_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


@dataclass(frozen=True)
class _Names:
    """The tensors of one architecture.

    Args:
        layer: llama.cpp's name within a layer -> transformers'.
        biased: those of them that may have a bias.
        outside: the same of what is in no layer.
        layers: what stands before a layer's number in transformers' names.
        norms_plus_one: whether one was added to the norms.
        interleaved: whether the heads of queries and keys were.
        transposed: matrices that were turned.
    """

    layer: Mapping[str, str]
    biased: Collection[str] = ()
    outside: Mapping[str, str] = field(default_factory=lambda: _OUTSIDE)
    layers: str = "model.layers"
    norms_plus_one: bool = False
    interleaved: bool = False
    transposed: Collection[str] = ()

    def parameter(self, name: str) -> tuple[str, str] | None:
        """The parameter that a tensor is, and what llama.cpp calls that kind of tensor."""
        stem, _, leaf = name.rpartition(".")
        found = _LAYER.fullmatch(name)
        if found is None:
            own = self.outside.get(stem)
            known = own is not None and (leaf == "weight" or stem in self.biased)
            return (f"{own}.{leaf}", stem) if known else None
        number, stem, leaf = found.groups()
        own = self.layer.get(stem)
        known = own is not None and (leaf == "weight" or stem in self.biased)
        return (f"{self.layers}.{number}.{own}.{leaf}", stem) if known else None


_LLAMA = _Names(
    layer=_ATTENTION | _MLP | _TWO_NORMS,
    biased=(*_ATTENTION, *_MLP),
    interleaved=True,
)
_GEMMA = _Names(layer=_ATTENTION | _MLP | _TWO_NORMS, norms_plus_one=True)
_GEMMA2 = _Names(layer=_ATTENTION | _MLP | _FOUR_NORMS, norms_plus_one=True)
_GPT2_MATRICES = {
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
NAMES = {
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": replace(_GEMMA2, layer=_ATTENTION | _MLP | _FOUR_NORMS | _HEAD_NORMS),
    "granite": _LLAMA,
    "llama": _LLAMA,
    "phi3": _Names(
        layer={
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            **_TWO_NORMS,
        }
    ),
    "qwen2": _Names(layer=_ATTENTION | _MLP | _TWO_NORMS, biased=_QKV),
    "qwen3": _Names(layer=_ATTENTION | _MLP | _TWO_NORMS | _HEAD_NORMS, biased=_ATTENTION),
    "smollm3": _LLAMA,
    "gpt2": _Names(
        layer={**_GPT2_MATRICES, "attn_norm": "ln_1", "ffn_norm": "ln_2"},
        biased=(*_GPT2_MATRICES, "attn_norm", "ffn_norm", "output_norm"),
        outside={
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        layers="transformer.h",
        transposed=_GPT2_MATRICES,
    ),
}


def gguf_tensors(header: GgufHeader, config: PretrainedConfig) -> dict[str, TensorEntry]:
    """The tensors of a file under the names of their parameters.

    Raises:
        UnsupportedError: there are others, which the architecture does not have.
    """
    names = NAMES[header.metadata["general.architecture"]]
    found: dict[str, TensorEntry] = {}
    others = []
    for name, entry in header.tensors.items():
        if name in _CONFIGURED:
            continue
        known = names.parameter(name)
        if known is None:
            others.append(name)
            continue
        own, stem = known
        found[own] = _entry(names, stem, own, entry, config)
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        raise UnsupportedError(
            f"{header.file} holds {', '.join(others[:_SHOWN])}{more}, which the "
            f"{header.metadata['general.architecture']} models that can be built do not have; take "
            "another model"
        )
    return found


def _entry(
    names: _Names, stem: str, own: str, entry: TensorEntry, config: PretrainedConfig
) -> GgufEntry:
    """The entry with what the conversion did to it."""
    head = 0
    if names.interleaved and stem in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if stem == "attn_q" else config.num_key_value_heads
        head = entry.shape[0] // max(heads, 1)
    transposed = stem in names.transposed and len(entry.shape) == 2
    added = 1.0 if names.norms_plus_one and own.endswith("norm.weight") else 0.0
    shape = entry.shape[::-1] if transposed else entry.shape
    return GgufEntry(
        entry.file, entry.dtype, shape, entry.offset, entry.bytes, head, transposed, added
    )
