"""The subjects of a measurement: variants of bundles, and the untrimmed models behind them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimexport.errors import SpecError
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.bundle import Field, Variant
from trimexport_runtime.choice import FASTEST_FIRST, choose
from trimexport_runtime.inputs import required

if TYPE_CHECKING:
    from trimexport.source.checkpoint import Checkpoint

PYTORCH = {"pytorch": "float32", "pytorch-bf16": "bfloat16"}
"""The dtype of each untrimmed model that can be named."""


@dataclass(frozen=True)
class Subject:
    """A variant of `bundle`; or, if `model` is given, the model that the bundle was made from, in
    PyTorch.

    Args:
        name: the subject's name in the results.
        bytes: the size of the subject's files, without the tokenizer.
        model: the directory of the model's checkpoint.
        adapter: the directory of the adapter that is merged into the model, if any.
        dtype: PyTorch's name for the numbers that the model is loaded in.
        optional: whether the subject is left out, instead of refused, if the device cannot run it.
    """

    name: str
    bundle: Path
    bytes: int
    variant: str | None = None
    model: Path | None = None
    adapter: Path | None = None
    dtype: str | None = None
    optional: bool = False

    def request(self) -> dict[str, str | None]:
        """The details of the request `load` to the subject's worker."""
        return {
            "bundle": str(self.bundle),
            "variant": self.variant,
            "model": None if self.model is None else str(self.model),
            "adapter": None if self.adapter is None else str(self.adapter),
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class Subjects:
    """Everything to measure, first the subject that the others are compared with, and the labels
    and the prompt's fields of its bundle."""

    subjects: tuple[Subject, ...]
    labels: tuple[str, ...]
    fields: tuple[Field, ...]


def find_subjects(
    bundle: str, against: Sequence[str], model: str | None, adapter: str | None = None
) -> Subjects:
    """All variants of `bundle` for CPUs, or the one of `DIR:VARIANT`, and the subjects that
    `against` names.

    Args:
        against: other bundles' directories, `DIR:VARIANT`, or keys of `PYTORCH`.
        model: where the checkpoint of `bundle` is now, if it has moved since the build.
        adapter: where its adapter is now, if it has one that has moved.

    Raises:
        SpecError: a name of `against` that is none of these, or a bundle with other labels
            or fields.
        CheckpointError: the checkpoint is not there any more, or is not the bundle's.
        trimexport_runtime.TrimexportRuntimeError: no bundle there, or not the variant.
    """
    directory, variant = _split(bundle)
    manifest = read_manifest(directory)
    variants = [manifest.variant(variant)] if variant else for_cpus(manifest)
    subjects = [
        Subject(own.name, directory, own.bytes, own.name, optional=variant is None)
        for own in variants
    ]
    for name in against:
        if name in PYTORCH:
            from trimexport.source.of_bundle import checkpoint_of  # here, for it loads PyTorch

            checkpoint = checkpoint_of(manifest, model, adapter)
            subjects.append(_untrimmed_model(name, directory, checkpoint))
        else:
            subjects.append(_other_bundle(name, manifest))
    return Subjects(tuple(subjects), manifest.label_names, manifest.prompt.places)


def for_cpus(manifest: Manifest) -> list[Variant]:
    """The variants that are meant for CPUs. Static int8 for TensorRT runs there too, for
    comparison, but dequantises every weight in every call."""
    precisions = FASTEST_FIRST[DEFAULT]
    return [variant for variant in manifest.variants if variant.precision in precisions]


def _split(name: str) -> tuple[Path, str | None]:
    """The directory of `DIR` or `DIR:VARIANT`, and the variant if there is one."""
    directory, colon, variant = name.rpartition(":")
    if not colon or os.path.isdir(name):
        return Path(name), None
    return Path(directory), variant


def _other_bundle(name: str, manifest: Manifest) -> Subject:
    """The variant of another bundle that `--against` names.

    Raises:
        SpecError: it is no bundle, or has other labels or fields than the bundle of
            `manifest`.
    """
    directory, variant = _split(name)
    if not os.path.isdir(directory):
        raise SpecError(
            f"--against {name} is neither a bundle's directory, nor DIR:VARIANT, nor one of "
            f"{', '.join(PYTORCH)}; name one of these"
        )
    other = read_manifest(directory)
    if set(other.label_names) != set(manifest.label_names):
        raise SpecError(
            f"--against {name} answers with {', '.join(other.label_names)}, the bundle with "
            f"{', '.join(manifest.label_names)}; give one that answers the same question"
        )
    if required(other.prompt.places) != required(manifest.prompt.places):
        raise SpecError(
            f"--against {name} takes {', '.join(required(other.prompt.places))}, the bundle "
            f"{', '.join(required(manifest.prompt.places))}; give one that takes the same texts"
        )
    chosen = choose(other, variant)
    return Subject(f"{directory}:{chosen.name}", directory, chosen.bytes, chosen.name)


def _untrimmed_model(name: str, bundle: Path, checkpoint: Checkpoint) -> Subject:
    """The model that a bundle was made from, in the dtype that `name` stands for."""
    adapter = None if checkpoint.adapter is None else checkpoint.adapter.directory
    size = sum(file.stat().st_size for file in checkpoint.files)
    return Subject(
        name, bundle, size, model=checkpoint.directory, adapter=adapter, dtype=PYTORCH[name]
    )
