"""A model's first layers, and the mean of a text's hidden states; transformers as the judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModelForCausalLM

from families import make
from models import TEXTS
from tiny import tiny_model
from trimexport import BuildSpec, SpecError, Texts, build, verify
from trimexport.planning import plan
from trimexport_runtime import Classifier, read_manifest
from trimexport_runtime.tokenize import TextEncoder

LABELS = ("positive", "negative", "World")
PROMPT = "Read the review. Say in one word what it is.\n\nReview: {text}\nSentiment:"
GIVEN = [text for text in TEXTS if text]


def judged(directory: Path, bundle: Path, layers: int, *, drop: int = 0) -> npt.NDArray[np.float32]:
    """The labels' logits by transformers' own model, which keeps what each layer gives. Without the
    first `drop` ids of each text, they are those of another."""
    manifest = read_manifest(bundle)
    prompt = manifest.prompt
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    body = model.get_decoder()
    norm = body.ln_f if hasattr(body, "ln_f") else body.norm
    seen: list[torch.Tensor] = []
    last = (body.h if hasattr(body, "h") else body.layers)[layers - 1]
    last.register_forward_hook(
        lambda _module, _given, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    encoder = TextEncoder.load(bundle, manifest)
    states = []
    for text in GIVEN:
        own = encoder.encode(text).ids.tolist()[drop:]
        with torch.no_grad():
            model(torch.tensor([[*prompt.prefix_ids, *own, *prompt.suffix_ids]]))
            hidden = norm(seen.pop())[0]
        states.append(
            hidden[-1] if prompt.pool == "last" else hidden[len(prompt.prefix_ids) :].mean(0)
        )
    tokens = [label.token_ids[0] for label in manifest.labels]
    with torch.no_grad():
        logits = torch.stack(states) @ model.get_output_embeddings().weight[tokens].T
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (logits if cap is None else cap * torch.tanh(logits / cap)).numpy()


@pytest.mark.parametrize("pool", ["last", "mean"])
@pytest.mark.parametrize("family", ["gemma3", "gemma2", "olmo2", "gpt2"])
def test_the_first_layers_alone(family: str, pool: str, tmp_path: Path) -> None:
    """Layers with and without a window among them, norms before and behind, and each precision."""
    types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    more = {"layer_types": types} if family.startswith("gemma") else {}
    directory = make(family, tmp_path / "model", layers=4, **more)
    spec = BuildSpec(
        model=str(directory),
        labels=LABELS,
        prompt=PROMPT,
        precision=("fp32", "int8") if family != "gemma3" else ("fp32", "int8", "int4"),
        layers=3,
        pool=pool,
    )
    bundle = tmp_path / "bundle"
    manifest = build(
        spec,
        bundle,
        sample=Texts(("dull", "a gorgeous film")),
        calibration=Texts(tuple(GIVEN)),
        keep=spec.precision,
    ).manifest
    assert (manifest.source.layers, manifest.prompt.pool) == (3, pool)
    expected = judged(directory, bundle, 3)
    found = Classifier.load(bundle, variant="fp32").logits(GIVEN)
    assert expected.std(axis=0).min() > 0.05
    assert np.abs(found - expected).max() < 1e-4
    for wrong in (judged(directory, bundle, 2), judged(directory, bundle, 3, drop=1)):
        assert np.nanmax(np.abs(found - wrong)) > 0.05  # a text of one token is none without it
    report = verify(bundle, sample=Texts(tuple(GIVEN)))
    assert report.variants[0].max_logit_difference < 1e-4
    spread = (expected - expected.mean(axis=0)).std()
    for variant in manifest.variants[1:]:
        answers = Classifier.load(bundle, variant=variant.name).logits(GIVEN)
        error = float(np.sqrt(np.square(answers - expected).mean()))
        assert error < {"int8": 0.2, "int4": 0.6}[variant.name] * spread


def test_what_is_cut_off_is_not_in_the_bundle(tmp_path: Path) -> None:
    """A layer less is that layer's bytes less."""
    directory = make("gemma", tmp_path / "model", layers=4)
    spec = BuildSpec(str(directory), LABELS, PROMPT, precision=("fp32",))
    sizes = []
    for layers in (1, 2, 4):
        bundle = tmp_path / f"{layers}"
        build(replace(spec, layers=layers), bundle, sample=Texts(("dull",)))
        sizes.append((bundle / "onnx" / "model.onnx_data").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]
    assert abs((sizes[2] - sizes[1]) - 2 * (sizes[1] - sizes[0])) < 0.05 * (sizes[1] - sizes[0])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layers": 3}, "3 layers of .* cannot be had; give 1 to 2"),
        ({"layers": 0}, "layers is 0; give 1 or more"),
        ({"pool": "max"}, 'pool is "max"; give one of last, mean'),
        (
            {"pool": "mean", "labels": ("very positive", "very negative")},
            "labels that begin alike are read behind the text",
        ),
    ],
)
def test_what_cannot_be_cut(more: dict[str, object], message: str) -> None:
    spec = {"model": str(tiny_model()), "labels": LABELS[:2], "prompt": PROMPT, **more}
    with pytest.raises(SpecError, match=message):
        plan(BuildSpec(**spec))  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [{"layers": 1}, {"pool": "mean"}])
def test_a_fine_tuned_classifier_reads_its_last_layer(
    more: dict[str, object], tmp_path: Path
) -> None:
    directory = make("gemma", tmp_path / "model", classifier=True)
    with pytest.raises(SpecError, match="fine-tuned classifier"):
        plan(BuildSpec(str(directory), prompt="{text}", **more))  # type: ignore[arg-type]
