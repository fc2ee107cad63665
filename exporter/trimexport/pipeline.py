"""From a spec to a bundle: the stages, in the only order in which their values fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
from transformers import PreTrainedModel

from trimexport_runtime.bundle import (
    FORMAT_VERSION,
    MANIFEST,
    BundleFile,
    Label,
    Manifest,
    Parity,
    Prompt,
    Source,
    TextLimit,
    Variant,
    sha256_of,
    to_json,
)

from . import parity, passes
from .attention import NAME as PREFIX_ATTENTION
from .attention import compile_prefix
from .card import model_card
from .checkpoint import Checkpoint, open_checkpoint
from .errors import SpecError
from .families import notice_for
from .graph import OPSET, CompiledClassifier, split_prefix, trace
from .head import TrimmedHead, head_of
from .hub import locate_model
from .layerwise import LayerwiseModel
from .parity import ParityReport, Texts
from .progress import Progress, Silent
from .prompt import CompiledPrompt, compile_prompt, parse_template
from .report import html
from .serialise import external_bytes, write_onnx
from .shipped import notice_of, sample_texts
from .skeleton import make_skeleton, module_name, parameter_names
from .spec import BuildSpec
from .staging import check_output, staged
from .tokenizer import SourceTokenizer, load_tokenizer, text_tokenizer, tokenizer_config
from .verbalizer import Verbalizer, make_verbalizer
from .weights import Bindings, bind

_TOOLS = ("trimexport", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "tokenizers")


@dataclass(frozen=True)
class Plan:
    """A spec whose every name has been resolved: what the bundle will hold, before any weight."""

    spec: BuildSpec
    checkpoint: Checkpoint
    tokenizer: SourceTokenizer
    prompt: CompiledPrompt
    verbalizer: Verbalizer
    limit: int


@dataclass(frozen=True)
class Built:
    """A finished bundle."""

    directory: Path
    manifest: Manifest
    report: ParityReport


def plan(spec: BuildSpec) -> Plan:
    """Resolve a spec: find the model, tokenise the prompt, find the label tokens.

    Raises:
        SpecError: labels, prompt or limit that cannot be built.
        CheckpointError: a model that cannot be read or is not supported.
    """
    template = parse_template(spec.prompt)
    directory = locate_model(spec.model, spec.revision)
    checkpoint = open_checkpoint(directory, spec.model, spec.revision)
    tokenizer = load_tokenizer(directory)
    verbalizer = make_verbalizer(spec.labels, spec.verbalizers, template, tokenizer)
    prompt = compile_prompt(template, tokenizer)
    limit = _text_limit(spec, checkpoint, prompt)
    return Plan(spec, checkpoint, tokenizer, prompt, verbalizer, limit)


def build(
    spec: BuildSpec,
    output: Path,
    *,
    force: bool = False,
    sample: Texts | None = None,
    progress: Progress | None = None,
) -> Built:
    """Build the bundle `output` and prove it against the untrimmed model.

    Args:
        spec: what to build.
        output: the bundle's directory; it appears whole or not at all.
        force: replace a bundle that is there.
        sample: texts to check parity on; None takes those that ship with the package.

    Raises:
        TrimexportError: see `errors`; a bundle outside its tolerance is a ParityError and is not
            kept.
    """
    progress = progress or Silent()
    check_output(output, force)
    sample = sample or Texts(tuple(sample_texts()))
    parity.check_sample(sample, spec.labels)
    planned = plan(spec)
    for line in planned.verbalizer.notes:
        progress.say(line)
    with staged(output, force) as work:
        model = LayerwiseModel(planned.checkpoint)
        graph = compile_graph(planned, model, progress)
        _write_client_files(planned, work)
        variant = _write_variant(graph, work, progress)
        manifest = _manifest(planned, variant, work)
        _save(manifest, work)
        report = parity.measure(work, model, planned.tokenizer, sample, progress)
        for line in parity.warnings(report):
            progress.say(line)
        parity.require(report)
        manifest = _with_parity(manifest, report)
        _save(manifest, work)
        # The card and the report are outside the hashes: people edit one, `verify` the other.
        (work / "README.md").write_text(model_card(manifest, report), encoding="utf-8")
        save_report(report, work)
    return Built(output, manifest, report)


def compile_graph(planned: Plan, model: LayerwiseModel, progress: Progress) -> ir.Model:
    """The trimmed model with the prompt inside, as a clean graph whose weights are bound but not
    read."""
    skeleton = make_skeleton(planned.checkpoint, PREFIX_ATTENTION)
    names = parameter_names(skeleton, planned.checkpoint)
    prefix, lead = split_prefix(planned.prompt.prefix_ids, planned.prompt.suffix_ids)
    with progress.bar("compiling the prompt", 1) as tick:
        compile_prefix(skeleton.base_model, model.prefix_cache(prefix))
        tick(1)
    head = _cut_head(planned, skeleton, names)
    classifier = CompiledClassifier(
        skeleton.base_model,
        head,
        planned.verbalizer.group_sizes,
        len(prefix),
        lead,
        planned.prompt.suffix_ids,
    )
    bindings = _bindings(classifier, module_name(skeleton, skeleton.base_model) + ".", names)
    with progress.bar("tracing", 1) as tick:
        graph = trace(classifier)
        bind(graph, bindings, planned.checkpoint)
        passes.clean(graph)
        tick(1)
    return graph


def _cut_head(planned: Plan, skeleton: PreTrainedModel, names: Mapping[str, str]) -> TrimmedHead:
    """`head.trim_head`, with the rows read from the checkpoint instead of a module."""
    full = module_name(skeleton, skeleton.get_output_embeddings())
    tokens = planned.verbalizer.token_ids
    read = planned.checkpoint.read_rows
    bias = names.get(full + ".bias")
    return head_of(
        read(names[full + ".weight"], tokens),
        None if bias is None else read(bias, tokens),
        getattr(skeleton.config, "final_logit_softcapping", None),
    )


def _bindings(classifier: CompiledClassifier, body: str, names: Mapping[str, str]) -> Bindings:
    """The classifier's body streams from the checkpoint; head, prompt and buffers are known."""
    head = {f"head.{name}": value for name, value in classifier.head.named_parameters()}
    return Bindings(
        streamed={
            f"body.{name.removeprefix(body)}": source
            for name, source in names.items()
            if name.startswith(body)
        },
        values={**dict(classifier.named_buffers()), **head},
    )


def _text_limit(spec: BuildSpec, checkpoint: Checkpoint, prompt: CompiledPrompt) -> int:
    """How many tokens the prompt leaves for a text."""
    total = min(checkpoint.context, spec.max_tokens or checkpoint.context)
    around = len(prompt.prefix_ids) + len(prompt.suffix_ids)
    if total - around < 1:
        raise SpecError(
            f"the prompt takes {around} of {total} tokens and leaves none for a text; shorten it"
            + (" or raise --max-tokens" if total < checkpoint.context else "")
        )
    return total - around


def _write_variant(graph: ir.Model, work: Path, progress: Progress) -> Variant:
    """Write the fp32 variant and describe it."""
    folder = work / "onnx"
    folder.mkdir()
    files = ("onnx/model.onnx", "onnx/model.onnx_data")
    with progress.bar("writing fp32", external_bytes(graph)) as tick:
        write_onnx(graph, work / files[0], work / files[1], tick)
    return Variant(
        name="fp32",
        graph=files[0],
        files=files,
        precision="fp32",
        opset=OPSET,
        providers=("CPUExecutionProvider",),
        bytes=sum((work / file).stat().st_size for file in files),
    )


def _write_client_files(planned: Plan, work: Path) -> None:
    """What clients of ordinary sequence classifiers read: tokenizer and config.json."""
    labels = planned.verbalizer.labels
    architecture = planned.checkpoint.architecture.replace("CausalLM", "SequenceClassification")
    config = {
        **planned.checkpoint.config.to_diff_dict(),
        "architectures": [architecture],
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "max_position_embeddings": planned.limit,
        "pad_token_id": planned.tokenizer.pad_token_id,
    }
    files = {
        "config.json": config,
        "tokenizer.json": text_tokenizer(planned.tokenizer, planned.prompt.text_lead),
        "tokenizer_config.json": tokenizer_config(
            planned.tokenizer, planned.limit, planned.spec.truncate
        ),
    }
    for name, value in files.items():
        indent = None if name == "tokenizer.json" else 2
        text = json.dumps(value, ensure_ascii=False, indent=indent)
        (work / name).write_text(text + "\n", encoding="utf-8")


def _manifest(planned: Plan, variant: Variant, work: Path) -> Manifest:
    """The manifest before anything was measured."""
    spec, checkpoint = planned.spec, planned.checkpoint
    local = Path(spec.model).is_dir()
    known = notice_for(checkpoint.architecture, checkpoint.config.vocab_size)
    notice = spec.notice or notice_of(checkpoint.directory) or known
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", *variant.files)
    return Manifest(
        format_version=FORMAT_VERSION,
        labels=_labels(planned.verbalizer),
        prompt=Prompt(
            template=spec.prompt,
            prefix_ids=planned.prompt.prefix_ids,
            suffix_ids=planned.prompt.suffix_ids,
            text_lead=planned.prompt.text_lead,
        ),
        text_limit=TextLimit(tokens=planned.limit, truncate=spec.truncate),
        pad_token_id=planned.tokenizer.pad_token_id,
        source=Source(
            model=checkpoint.directory.resolve().name if local else spec.model,
            # The hub's cache names a snapshot's directory after its commit.
            revision=spec.revision if local else checkpoint.directory.name,
            directory=str(checkpoint.directory.resolve()) if local else None,
            architecture=checkpoint.architecture,
            config_sha256=checkpoint.config_sha256,
            notice=notice,
        ),
        variants=(variant,),
        files=tuple(_file(work, name) for name in names),
        tool_versions={tool: version(tool) for tool in _TOOLS},
    )


def _labels(verbalizer: Verbalizer) -> tuple[Label, ...]:
    return tuple(
        Label(
            name=name,
            words=tuple(word.word for word in words),
            token_ids=tuple(word.token_ids[0] for word in words),
            tokens=tuple(word.tokens[0] for word in words),
        )
        for name, words in zip(verbalizer.labels, verbalizer.words, strict=True)
    )


def _with_parity(manifest: Manifest, report: ParityReport) -> Manifest:
    """The manifest with what the build measured."""
    measured = {
        item.name: Parity(
            texts=len(report.texts),
            max_logit_difference=item.max_logit_difference,
            mean_logit_difference=item.mean_logit_difference,
            max_probability_difference=item.max_probability_difference,
            agreement=item.agreement,
            tolerance=item.tolerance.max_logit_difference,
        )
        for item in report.variants
    }
    variants = tuple(replace(item, parity=measured[item.name]) for item in manifest.variants)
    return replace(
        manifest,
        variants=variants,
        label_mass=report.mass.mean,
        tokenisation_gap=report.gap.different / len(report.texts),
    )


def _file(work: Path, name: str) -> BundleFile:
    path = work / name
    return BundleFile(path=name, bytes=path.stat().st_size, sha256=sha256_of(path))


def _save(manifest: Manifest, work: Path) -> None:
    (work / MANIFEST).write_text(to_json(manifest), encoding="utf-8")


def save_report(report: ParityReport, bundle: Path) -> Path:
    """Write `reports/parity.html`, which the manifest's hashes do not cover."""
    path = bundle / "reports" / "parity.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(html(report), encoding="utf-8")
    return path
