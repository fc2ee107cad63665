"""What is measured: variants of bundles, and the untrimmed models that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimexport.errors import SpecError
from trimexport_runtime import Manifest, read_manifest
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.bundle import Variant
from trimexport_runtime.choice import FASTEST_FIRST, choose

if TYPE_CHECKING:
    from trimexport.source.checkpoint import Checkpoint

PYTORCH = {"pytorch": "float32", "pytorch-bf16": "bfloat16"}


@dataclass(frozen=True)
class Subject:
    """A variant of `bundle`; or, where `model` is given, the model that the bundle was made from,
    in PyTorch.

    Args:
        name: how the results name it.
        bytes: the size of its files, without the tokenizer.
        adapter: what is merged into that model, if anything.
        dtype: PyTorch's name for the numbers that the model is loaded in.
        optional: whether it is left out where the device cannot run it; what was named is not.
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
        """What its worker has to load."""
        return {
            "bundle": str(self.bundle),
            "variant": self.variant,
            "model": None if self.model is None else str(self.model),
            "adapter": None if self.adapter is None else str(self.adapter),
            "dtype": self.dtype,
        }


@dataclass(frozen=True)
class Subjects:
    """Everything to measure, the one that the others are compared with first."""

    subjects: tuple[Subject, ...]
    labels: tuple[str, ...]


def find_subjects(
    bundle: str, against: Sequence[str], model: str | None, adapter: str | None = None
) -> Subjects:
    """All variants of `bundle` for CPUs, or the one of `DIR:VARIANT`, and what `against` names.

    Args:
        against: other bundles' directories, `DIR:VARIANT`, or keys of `PYTORCH`.
        model: where the checkpoint of `bundle` is now, if it has moved since the build.
        adapter: where its adapter is now, if it has one that has moved.

    Raises:
        SpecError: a name of `against` that is none of these, or a bundle with other labels.
        CheckpointError: the checkpoint is not there any more, or is another one.
        trimexport_runtime.TrimexportRuntimeError: no bundle there, or not the variant.
    """
    directory, variant = _split(bundle)
    manifest = read_manifest(directory)
    found = [
        Subject(it.name, directory, it.bytes, it.name, optional=variant is None)
        for it in ([manifest.variant(variant)] if variant else for_cpus(manifest))
    ]
    for name in against:
        if name in PYTORCH:
            from trimexport.source.of_bundle import checkpoint_of  # here, for it loads PyTorch

            found.append(_untrimmed(name, directory, checkpoint_of(manifest, model, adapter)))
        else:
            found.append(_other(name, manifest))
    return Subjects(tuple(found), manifest.label_names)


def for_cpus(manifest: Manifest) -> list[Variant]:
    """The variants that someone would run on a CPU: static int8 for TensorRT runs there too, for
    comparing, and dequantises every weight in every call."""
    return [it for it in manifest.variants if it.precision in FASTEST_FIRST[DEFAULT]]


def _split(name: str) -> tuple[Path, str | None]:
    """A directory, and the variant behind its colon."""
    directory, colon, variant = name.rpartition(":")
    if not colon or Path(name).is_dir():
        return Path(name), None
    return Path(directory), variant


def _other(name: str, manifest: Manifest) -> Subject:
    directory, variant = _split(name)
    if not directory.is_dir():
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
    chosen = choose(other, variant)
    return Subject(f"{directory}:{chosen.name}", directory, chosen.bytes, chosen.name)


def _untrimmed(name: str, bundle: Path, checkpoint: Checkpoint) -> Subject:
    adapter = None if checkpoint.adapter is None else checkpoint.adapter.directory
    size = sum(file.stat().st_size for file in checkpoint.files)
    return Subject(
        name, bundle, size, model=checkpoint.directory, adapter=adapter, dtype=PYTORCH[name]
    )
