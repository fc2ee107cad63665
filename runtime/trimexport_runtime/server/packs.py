"""A directory of task packs, which are served by their files' names and followed as they change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from trimexport_runtime.backbone import Backbone
from trimexport_runtime.bundle import PACK_SUFFIX
from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import BundleError, TrimexportRuntimeError
from trimexport_runtime.inputs import problem_of

from .service import Service

INTERVAL = 1.0  # seconds between two looks at the directory
Stamp: TypeAlias = tuple[int, ...]


@dataclass
class Changes:
    """What a look at the directory brought: the classifiers of new and changed packs, the names of
    those whose files are gone, and why others cannot be loaded; all by their names."""

    loaded: dict[str, Classifier] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)


class PackFolder:
    """The packs in a directory, loaded onto a backbone. `unavailable` are the reasons why some are
    not served, or not as their files are now, by their names."""

    def __init__(self, backbone: Backbone, directory: Path) -> None:
        self._backbone = backbone
        self._directory = directory
        self._seen: Mapping[str, Stamp] | None = None
        self._tried: dict[str, Stamp] = {}
        self.unavailable: dict[str, str] = {}

    def look(self) -> Changes:
        """Load packs that are new or have changed, and drop those that are gone.

        From the second look on a file counts once it is as it was at the look before, so that one
        that is being written is left alone. One that fails is tried again when it has changed.

        Raises:
            BundleError: the directory cannot be read; nothing is dropped.
        """
        changes, found = Changes(), self._stamps()
        for name in sorted(self._tried.keys() - found.keys()):
            del self._tried[name]
            self.unavailable.pop(name, None)
            if name in self._backbone.tasks:
                self._backbone.drop(name)
                changes.dropped.append(name)
        for name in sorted(found):
            stamp = found[name]
            is_whole = self._seen is None or self._seen.get(name) == stamp
            if is_whole and self._tried.get(name) != stamp:
                self._tried[name] = stamp
                self._load(name, changes)
        self._seen = found
        return changes

    def _load(self, name: str, changes: Changes) -> None:
        try:
            classifier = self._backbone.task(self._directory / f"{name}{PACK_SUFFIX}", name)
        except TrimexportRuntimeError as error:
            kept = "; the one before it is still served" * (name in self._backbone.tasks)
            changes.bad[name] = self.unavailable[name] = f"{error}{kept}"
            return
        _ = classifier.most_characters  # takes a moment once; no request should wait for it
        self.unavailable.pop(name, None)
        changes.loaded[name] = classifier

    def _stamps(self) -> dict[str, Stamp]:
        """The packs' names, with what tells their files' states apart."""
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(PACK_SUFFIX)]
        except OSError as error:
            raise BundleError(
                f"{self._directory} cannot be read ({error.strerror or error}); give a directory "
                f"of NAME{PACK_SUFFIX} files with --packs"
            ) from None
        return {
            name.removesuffix(PACK_SUFFIX): _stamp(self._directory / name)
            for name in names
            if not name.startswith(".") and not problem_of(name)
        }


def _stamp(path: Path) -> Stamp:
    try:
        stat = path.stat()
    except OSError:  # a link to nothing, or gone since
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


async def follow(service: Service, folder: PackFolder, log: Callable[[Any], None]) -> None:
    """Have the service serve what is in the directory, until this is cancelled."""
    trouble = ""
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            changes = await asyncio.to_thread(folder.look)
        except Exception as error:  # of any kind: the packs that are served go on being served
            if str(error) != trouble:
                trouble = str(error)
                log({"level": "error", "error": f"{type(error).__name__}: {error}"})
            continue
        trouble = ""
        apply(service, folder, changes, log)


def apply(
    service: Service, folder: PackFolder, changes: Changes, log: Callable[[Any], None]
) -> None:
    """Have the service serve what has changed, and say so in the log."""
    for name in changes.dropped:
        service.remove(name)
        log({"level": "info", "dropped": name})
    for name, classifier in changes.loaded.items():
        service.add(name, classifier)
        log({"level": "info", "loaded": name})
    for name, reason in changes.bad.items():
        note_bad(name, reason, log)
    service.unavailable = dict(folder.unavailable)


def note_bad(name: str, reason: str, log: Callable[[Any], None]) -> None:
    """Say in the log why a pack is not served."""
    log({"level": "error", "pack": f"{name}{PACK_SUFFIX}", "error": reason})
