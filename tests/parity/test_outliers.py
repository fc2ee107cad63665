"""Channels a hundred times larger than the others, as large decoders have them: int8 keeps the
answers, and one scale for a whole tensor loses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic

from models import GEMMA_MINI, needs_data, read_jsonl
from outliers import plant
from tasks import SENTIMENT
from trimexport import BuildSpec, Texts, build
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.batching import pad
from trimexport_runtime.tokenize import TextEncoder

FACTOR = 100


def test_outliers(tmp_path: Path) -> None:
    rows = read_jsonl(needs_data("sst2", "test.jsonl"))[:600]
    texts = tuple(row["text"] for row in rows)
    planted = plant(GEMMA_MINI, tmp_path / "model", FACTOR)
    spec = BuildSpec(
        model=str(planted),
        labels=SENTIMENT.labels,
        prompt=SENTIMENT.prompt,
        precision=("fp32", "int8"),
    )
    built = build(spec, tmp_path / "bundle", sample=Texts(texts))
    plain, int8 = built.report.variants
    assert plain.max_logit_difference < 1e-3, "planting changed no answer"
    assert int8.agreement >= 0.99
    whole = Classifier.load(built.directory, variant="fp32").logits(texts)
    lost = _per_tensor(built.directory, texts, tmp_path).argmax(1) != whole.argmax(1)
    assert lost.mean() > 0.05, "the comparison shows nothing"
    assert lost.mean() > 5 * (1 - int8.agreement)


def _per_tensor(bundle: Path, texts: tuple[str, ...], directory: Path) -> npt.NDArray[np.float32]:
    """The logits of ONNX Runtime's own dynamic quantisation of the fp32 graph."""
    model = onnx.load(bundle / "onnx" / "model.onnx")
    del model.graph.value_info[:]  # the tool makes new shapes under old names
    onnx.save(model, directory / "plain.onnx")
    quantize_dynamic(
        directory / "plain.onnx",
        directory / "dynamic.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    session = ort.InferenceSession(str(directory / "dynamic.onnx"))
    encoder = TextEncoder.load(bundle, read_manifest(bundle))
    found = []
    for text in texts:
        ids, mask = pad([encoder.encode(text).ids], 0)
        found.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
    return np.concatenate(found)
