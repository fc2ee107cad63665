"""Triton's own client, which speaks the Open Inference Protocol in binary tensors by default."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from packages import needs_wheels, run_with
from server.conftest import Serve, Server
from trimexport_runtime import Classifier, Prediction

ASK = """
import json, sys
import numpy as np
import tritonclient.http as triton

address, model, binary = sys.argv[1], sys.argv[2], sys.argv[3] == "binary"
texts = json.loads(sys.argv[4])  # of each tensor, by its name
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
assert client.get_server_metadata()["name"] == "trimexport"
described = client.get_model_metadata(model)["inputs"]
assert {it["name"] for it in described if not it.get("optional")} == set(texts)
tensors = []
for name, rows in texts.items():
    tensors.append(triton.InferInput(name, [len(rows)], "BYTES"))
    data = np.array([it.encode() for it in rows], dtype=object)
    tensors[-1].set_data_from_numpy(data, binary_data=binary)
outputs = [triton.InferRequestedOutput(it, binary_data=binary) for it in ("label", "probabilities")]
found = client.infer(model, tensors, outputs=outputs, request_id="r1")
assert found.get_response()["id"] == "r1"
labels = [it.decode() if isinstance(it, bytes) else it for it in found.as_numpy("label")]
default = client.infer(model, tensors).as_numpy("probabilities")
assert np.array_equal(default, found.as_numpy("probabilities"))
for coding in ("gzip", "deflate"):
    options = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
    packed = client.infer(model, tensors, **options).as_numpy("probabilities")
    assert np.array_equal(default, packed)
print(json.dumps([labels, found.as_numpy("probabilities").tolist()]))
try:
    client.infer("none", tensors)
except Exception as error:
    print(error)
"""
TEXTS = ["a gorgeous, witty, seductive movie", "dull", "schön – 好", ""]


@pytest.mark.parametrize("form", ["binary", "json"])
def test_tritons_client(serve: Serve, bundle: Path, form: str) -> None:
    wheels = needs_wheels("triton")
    server = serve(bundle)
    _check(server, wheels, form, {"text": TEXTS}, Classifier.load(bundle).classify(TEXTS))


@pytest.mark.parametrize("form", ["binary", "json"])
def test_tritons_client_with_pairs(serve: Serve, pairs: Path, form: str) -> None:
    wheels = needs_wheels("triton")
    queries = ["who wrote it", "", "schön – 好", "a"]
    expected = Classifier.load(pairs).classify(zip(queries, TEXTS, strict=True))
    texts = {"document": TEXTS, "query": queries}
    _check(serve(pairs), wheels, form, texts, expected)


def _check(
    server: Server, wheels: Path, form: str, texts: dict[str, list[str]], expected: list[Prediction]
) -> None:
    """Triton's client gets the expected answers to the texts of tensors."""
    arguments = (f"127.0.0.1:{server.port}", server.name, form, json.dumps(texts))
    run = run_with([wheels], "-c", ASK, *arguments)
    assert run.returncode == 0, run.stderr
    answer, refusal = run.stdout.strip().splitlines()
    labels, probabilities = json.loads(answer)
    assert labels == [it.label for it in expected]
    assert np.allclose(probabilities, [it.probabilities for it in expected], atol=1e-6)
    assert 'no model "none"; there are:' in refusal
