"""Fit a head behind a model's first layers: a bundle of its own, without the layers above."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimexport.atomic import check_output
from trimexport.bundle.rewrite import check_bundle, write_manifest
from trimexport.bundle.written_head import Head
from trimexport.errors import SpecError
from trimexport.evaluation.libraries import require_libraries
from trimexport.model.layer_states import layer_states
from trimexport.model.layerwise import LayerwiseModel
from trimexport.pipeline import build
from trimexport.planning import Plan, plan, whole_ids
from trimexport.progress import Progress, Silent
from trimexport.source.of_bundle import checkpoint_of
from trimexport.spec import LAST, BuildSpec
from trimexport.texts import Columns, Texts, labelled_texts
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.bundle import FOR_TENSORRT

from .depth import depth_lines, depth_scores, least_depth
from .examples import fold_numbers, prepare
from .fit import FITTING, Fitted, fit
from .softmax_only import require_softmax

AUTO = "auto"
_SAMPLE = 8  # examples that the cut model is compared on before it has its head


def fit_depth(
    bundle: Path,
    output: Path,
    examples: Path | Texts,
    *,
    depth: int | str | None = AUTO,
    pool: str = LAST,
    model: str | None = None,
    test: Path | Texts | None = None,
    columns: Columns | None = None,
    shots: Sequence[int] = (),
    seeds: int = 5,
    force: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Write the bundle `output`: the task of `bundle` by the first layers of its model, with a head
    that is fitted on examples. It is built from the checkpoint again, with the same variants.

    Args:
        depth: how many layers, None for all; `auto` takes the fewest whose cross-validated accuracy
            on the examples is within one standard error of the best (see `depth`).
        pool: what the head reads: the `last` hidden state of the prompt, or the `mean` of those of
            the text's own tokens.
        model: where the checkpoint is now, if it has moved since the build.
        test, columns, shots, seeds, force: as in `fit`.

    Raises:
        SpecError: as `fit`; a bundle with several questions, a fine-tuned classifier or a prompt
            that a chat template wrote; a depth that the model has not.
        CheckpointError: the checkpoint is not there any more, or is another one.
    """
    require_libraries("fitting")
    check_output(output, force)
    progress = progress or Silent()
    manifest = read_manifest(bundle)
    _check_task(bundle, manifest)
    check_bundle(bundle, manifest, progress)
    given = labelled_texts(examples, manifest.label_names, columns, manifest.prompt.places)
    checkpoint = checkpoint_of(manifest, model)  # or it is another one, which is refused
    spec = replace(_spec_of(manifest, model or str(checkpoint.directory)), pool=pool)
    if depth == AUTO:
        depth = _found_depth(plan(spec), given, progress)
    elif not isinstance(depth, int | None):
        raise SpecError(f'depth is "{depth}"; give {AUTO} or a number of layers')
    spec = replace(spec, layers=depth)
    sample = Texts(given.texts[:_SAMPLE])
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as room:
        cut = Path(room) / "cut"
        built = build(
            spec, cut, sample=sample, engines=False, keep=spec.variants, progress=progress
        )
        write_manifest(_manifest_of(built.manifest, manifest, moved=model is not None), cut)
        return fit(
            cut,
            output,
            given,
            test=test,
            columns=columns,
            shots=shots,
            seeds=seeds,
            force=force,
            progress=progress,
        )


def _check_task(bundle: Path, manifest: Manifest) -> None:
    """Refuse bundles that cannot be built again with fewer layers and one head."""
    require_softmax(manifest, bundle, FITTING)
    why = None
    if manifest.questions:
        why = "asks several questions, whose answers stand behind the text"
    elif not manifest.labels[0].token_ids:
        why = "is of a fine-tuned classifier, which reads its last layer"
    elif manifest.prompt.rendered:
        why = "has a prompt that a chat template wrote, which cannot be taken apart again"
    elif manifest.source.layers is not None or manifest.prompt.pool != LAST:
        why = "was cut before; name the bundle that it was made from"
    if why is not None:
        raise SpecError(f"{bundle} {why}; fit it without --depth and --pool")


def _spec_of(manifest: Manifest, model: str) -> BuildSpec:
    """The spec of a build like the bundle's, from a model."""
    source, prompt, limit = manifest.source, manifest.prompt, manifest.text_limit
    names = [variant.name for variant in manifest.variants]
    around = prompt.virtual_tokens + len(prompt.prefix_ids) + len(prompt.suffix_ids)
    return BuildSpec(
        model=model,
        revision=source.revision,
        labels=manifest.label_names,
        prompt=prompt.template,
        verbalizers={label.name: label.words for label in manifest.labels if label.words},
        precision=tuple(name for name in names if not name.startswith(FOR_TENSORRT)),
        tensorrt=tuple(
            name.removeprefix(FOR_TENSORRT) for name in names if name.startswith(FOR_TENSORRT)
        ),
        max_tokens=limit.tokens + around,
        truncate=limit.truncate if limit.field is None else f"{limit.field}:{limit.truncate}",
        adapter=source.adapter,
        tokenizer=source.tokenizer,
    )


def _manifest_of(cut: Manifest, whole: Manifest, moved: bool) -> Manifest:
    """The manifest of a cut bundle, with what only that of the whole one knows: under which name
    the checkpoint was found, unless it has moved since; its terms; and which texts the prompt holds
    as examples. What was measured is left out, for it is of a head that nobody will ask."""
    source = cut.source if moved else replace(whole.source, layers=cut.source.layers)
    return replace(
        cut,
        variants=tuple(replace(it, outside_tolerance=False) for it in cut.variants),
        source=replace(source, notice=whole.source.notice),
        prompt=replace(cut.prompt, examples=whole.prompt.examples),
    )


def _found_depth(planned: Plan, examples: Texts, progress: Progress) -> int:
    """The depth that the examples ask for, with a table of all of them for the user."""
    kept = prepare(examples, None, planned.labels).examples
    model = LayerwiseModel(planned.checkpoint, planned.mean_behind)
    sequences = whole_ids(planned, kept.texts)
    with progress.bar("reading the examples, layer by layer", len(sequences)) as tick:
        states = layer_states(model, sequences, tick).numpy()
    head = model.cut_head(planned.rows)
    start = Head(head.weight.detach().float().numpy(), head.bias.detach().float().numpy())
    with progress.bar("comparing depths", len(states)) as tick:
        gold, fold = kept.places(planned.labels), fold_numbers(kept, planned.labels)
        scores = depth_scores(states, gold, start, fold, tick)
    chosen = least_depth(scores)
    for line in depth_lines(scores, chosen):
        progress.say(line)
    return chosen
