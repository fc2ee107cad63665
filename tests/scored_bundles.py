"""The tiny bundle with other scores, and for pairs of texts: its graph takes ids, whatever they are
of, and of a score with one logit its two logits become their difference."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import tiny
from trimexport_runtime.score import LOG_ODDS, LOGIT

DEFAULT = "Is it an answer?"
QUERY_IDS, PASSAGE_IDS = (956, 840), (519,)  # between the fields, as before the text and behind it
GRAPH = "onnx/model.onnx"


def scored_bundle(
    directory: Path, kind: str, *, sigmoid: bool = True, threshold: float = 0.5
) -> Path:
    """Write the tiny bundle into `directory` with a score of this kind."""
    shutil.copytree(tiny.tiny_bundle(), directory)

    def change(raw: dict[str, Any]) -> None:
        raw["format_version"] = 2
        raw["score"] = {"kind": kind, "sigmoid": sigmoid, "threshold": threshold}
        if kind == LOGIT:
            del raw["labels"][1:]

    tiny.edit_json(directory / "trimexport.json", change)
    if kind in (LOG_ODDS, LOGIT):
        _let_one_logit(directory)
    return directory


def pair_bundle(directory: Path, kind: str, *, sigmoid: bool = True) -> Path:
    """The same whose prompt has the fields instruction, with a default, query and passage. Its
    tokenizer.json puts the ids between them into pairs."""
    scored_bundle(directory, kind, sigmoid=sigmoid)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    default = tokenizer.encode(DEFAULT, add_special_tokens=False).ids
    pieces = [*default, *QUERY_IDS], list(PASSAGE_IDS)
    parts = [(tokenizer.id_to_token(it), it) for it in (*pieces[0], *pieces[1])]
    names = [" ".join(tokenizer.id_to_token(it) + ":0" for it in piece) for piece in pieces]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{names[0]} $A:0", pair=f"{names[0]} $A:0 {names[1]} $B:0", special_tokens=parts
    )
    tokenizer.save(str(directory / "tokenizer.json"))

    def change(raw: dict[str, Any]) -> None:
        raw["prompt"]["fields"] = [
            {"name": "instruction", "default": DEFAULT},
            {"name": "query", "before": list(QUERY_IDS)},
            {"name": "passage", "before": list(PASSAGE_IDS)},
        ]
        _note_files(raw, directory)

    tiny.edit_json(directory / "trimexport.json", change)
    return directory


def _let_one_logit(bundle: Path) -> None:
    """Let a bundle's graph answer with the first logit minus the second."""
    model = onnx.load(bundle / GRAPH, load_external_data=False)
    (output,) = model.graph.output
    last = next(node for node in model.graph.node if output.name in node.output)
    last.output[list(last.output).index(output.name)] = "both_logits"
    signs = helper.make_tensor("signs", TensorProto.FLOAT, [2, 1], [1.0, -1.0])
    model.graph.initializer.append(signs)
    model.graph.node.append(helper.make_node("MatMul", ["both_logits", "signs"], [output.name]))
    output.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, bundle / GRAPH)
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    config["id2label"], config["label2id"] = {"0": "positive"}, {"positive": 0}
    (bundle / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tiny.edit_json(bundle / "trimexport.json", lambda raw: _note_files(raw, bundle))


def _note_files(raw: dict[str, Any], bundle: Path) -> None:
    """Say of the files in a manifest what they are now."""
    for entry in raw["files"]:
        content = (bundle / entry["path"]).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
