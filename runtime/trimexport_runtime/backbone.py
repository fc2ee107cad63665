"""A backbone: a model that is loaded once, and the tasks that run on it."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .backbone_manifest import BackboneManifest, read_backbone_manifest
from .backends import DEFAULT, check_runs_packs
from .bundle import Manifest, read_manifest
from .choice import choose
from .classifier import Classifier
from .errors import BackendError, BundleError, PackError
from .integrity import check_files
from .labels import Label
from .loading import load_both
from .manifest import Variant, variant_of
from .pack import Pack, load_pack, read_pack
from .questions import views
from .tokenize import Vocabulary

if TYPE_CHECKING:
    from .backends.shared_graph import SharedGraph

_SHOWN = 12  # characters of a hash in a message


class Backbone:
    """A loaded backbone. Make one with `Backbone.load`; threads may share it.

    All tasks run in one session with one tokenizer: a task takes no more memory than its arrays.
    """

    def __init__(
        self,
        directory: Path,
        manifest: BackboneManifest,
        variant: Variant,
        vocabulary: Vocabulary,
        graph: SharedGraph,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.variant = variant
        self._vocabulary = vocabulary
        self._graph = graph
        self._tasks: dict[str, Classifier] = {}
        self._changing = threading.Lock()

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        *,
        variant: str | None = None,
        threads: int | None = None,
        token_budget: int | None = None,
        backend: str = DEFAULT,
        spin: bool = True,
    ) -> Backbone:
        """Load a backbone, which has no tasks yet.

        Args:
            directory: what `trimexport build --backbone -o` wrote; the others as in
                `Classifier.load`. TensorRT runs no packs.

        Raises:
            BundleError: no backbone there, no such variant, or files that cannot be read.
            IntegrityError: a file is missing or truncated.
            VersionError: the backbone needs a newer runtime.
            BackendError: the backend is not here, or the variant cannot run on it.
        """
        from .backends.shared_graph import SharedGraph  # loads ONNX Runtime

        path = Path(directory)
        manifest = read_backbone_manifest(path)
        check_runs_packs(backend)
        chosen = choose(manifest, variant, backend)
        if token_budget is not None and token_budget < 1:
            raise BackendError(f"token_budget is {token_budget}; give 1 or more tokens")
        try:
            check_files(path, manifest, hashes=False)
            load = partial(
                SharedGraph.load,
                path,
                chosen,
                backend,
                threads=threads,
                token_budget=token_budget,
                spin=spin,
            )
            graph, vocabulary = load_both(
                lambda begun: load(begun=begun), lambda: Vocabulary.load(path)
            )
        except OSError as error:
            raise BundleError(
                f"{path} cannot be loaded ({error}); check it with `trimexport-run info --check`"
            ) from None
        return cls(path, manifest, chosen, vocabulary, graph)

    def task(self, pack: str | os.PathLike[str], name: str | None = None) -> Classifier:
        """Load a task pack, and keep it among the tasks, where it replaces one of its name.

        Args:
            pack: a file that `trimexport pack -o` wrote.
            name: what the task is called; None is the file's name without `.pack`.

        Raises:
            PackError: it is no pack, a damaged one, one of another backbone, or one whose rows may
                be longer than the backbone takes.
            VersionError: the pack needs a newer runtime.
        """
        path = Path(pack)
        described, arrays = load_pack(path, self.variant.name)
        check_fits(described, self.directory, self.manifest)
        manifest = described.manifest
        classifier = Classifier(
            manifest,
            variant_of(manifest.variants, self.variant.name, f"pack {path}"),
            self._vocabulary.encoder(manifest),
            self._graph.backend(arrays, manifest.outputs, path),
        )
        with self._changing:
            self._tasks[path.stem if name is None else name] = classifier
        return classifier

    @property
    def tasks(self) -> Mapping[str, Classifier]:
        """The tasks by their names, as they are now."""
        with self._changing:
            return dict(self._tasks)

    def drop(self, name: str) -> None:
        """Forget a task. What is asked of its classifier is answered all the same, and its arrays
        go when nothing refers to that any more.

        Raises:
            BundleError: there is no such task.
        """
        with self._changing:
            if name not in self._tasks:
                names = ", ".join(sorted(self._tasks)) or "none"
                raise BundleError(f'the backbone has no task "{name}"; it has: {names}')
            del self._tasks[name]


def task_pack(path: Path, backbone: Path) -> Pack:
    """Read what a pack says of itself, if it is one of the backbone in a directory.

    Raises:
        BundleError: no backbone there.
        PackError: as `check_fits`, or it is no pack, or a damaged one.
        VersionError: one of the two needs a newer runtime.
    """
    manifest = read_backbone_manifest(backbone)
    pack = read_pack(path)
    check_fits(pack, backbone, manifest)
    return pack


def manifest_of_either(directory: Path, task: Path | None) -> Manifest:
    """The manifest of a bundle, or that of a task on the backbone in a directory.

    Raises:
        BundleError: as `read_manifest` or `task_pack`.
    """
    return read_manifest(directory) if task is None else task_pack(task, directory).manifest


def check_fits(pack: Pack, directory: Path, manifest: BackboneManifest) -> None:
    """Refuse a pack of another backbone, and one whose rows may be longer than the backbone takes.

    Raises:
        PackError: both hashes, shortened, or both lengths, and what to do.
    """
    again = f"write the pack again with `trimexport pack --backbone {directory}`"
    if pack.backbone != manifest.sha256:
        raise PackError(
            f"{pack.path} is of the backbone {pack.backbone[:_SHOWN]}, and {directory} is "
            f"{manifest.sha256[:_SHOWN]}; {again}, or load the backbone that it was written for"
        )
    if (longest := longest_row(pack.manifest)) > manifest.limit:
        around = longest - pack.manifest.text_limit.tokens
        raise PackError(
            f"{pack.path} has a prompt of {around:,} tokens and takes texts of up to "
            f"{pack.manifest.text_limit.tokens:,}, which are {longest:,} together, and {directory} "
            f"takes rows of up to {manifest.limit:,}; {again}, which leaves a text what room there "
            "is"
        )


def longest_row(manifest: Manifest) -> int:
    """How many positions the longest text takes with all that stands before and behind it: of
    several questions the longest, and of labels that are read whole what their words share."""
    prompt = manifest.prompt
    behind = max(len(it.prompt.suffix_ids) + _shared(it.labels) for it in views(manifest))
    before = prompt.virtual_tokens + len(prompt.prefix_ids)
    return before + manifest.text_limit.tokens + behind


def _shared(labels: Sequence[Label]) -> int:
    """How many tokens two words of labels that are read whole begin with alike, at most."""
    words = sorted({sequence for label in labels for sequence in label.sequences})
    return max((_alike(*pair) for pair in itertools.pairwise(words)), default=0)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    same = (a == b for a, b in zip(one, other, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, same))
