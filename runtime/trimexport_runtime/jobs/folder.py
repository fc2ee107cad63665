"""The folder of a job's parts that are done: `OUTPUT.job` beside the output, until that is whole.

    job.json          what the job is; a job that differs in any of it cannot go on here
    NAME.part         a part's rows, in the output's format
    NAME.json         its tally, written last: the part is done when this is there

The output is joined from the parts and moved into its place at once, and then the folder is
removed. One process at a time owns the folder, by a lock that ends with the process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimexport_runtime.atomic_file import PARTIAL, atomic_file
from trimexport_runtime.bundle import Manifest
from trimexport_runtime.errors import InputError

from .formats import Format
from .parts import Tally, in_order

JOB = "job.json"


class Folder:
    """The folder of the job that writes `output`. A process owns it between `open` and `close`."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.job")
        self._owned = False
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a job to go on with."""
        return (self.path / JOB).is_file()

    def open(self, identity: Mapping[str, Any], *, anew: bool = False) -> None:
        """Lock the folder for the job that `identity` describes.

        If `anew`, or if no job is in it, the folder is emptied; else the same job must be in it.

        Raises:
            InputError: another process owns the folder, the job in it is another, or it cannot be
                written.
        """
        try:
            self.path.mkdir(exist_ok=True)
            self._take_lock()
            if not anew and self.exists:
                self._compare(identity)
                self._clear(f".*{PARTIAL}")
            else:
                self._empty()
                with atomic_file(self.path / JOB) as stream:
                    stream.write(json.dumps(identity, indent=2, allow_nan=False).encode())
            self._owned = True
        except OSError as error:
            self._release()
            raise InputError(
                f"{self.path} cannot be written ({error.strerror or error}); results, and what is "
                "done of them, need a directory that can be written"
            ) from None
        except InputError:
            self._release()
            raise

    def done(self) -> set[str]:
        """The names of the parts that are done."""
        return {file.stem for file in self.path.glob("*.json") if file.name != JOB}

    def total(self) -> Tally:
        """The tally of all parts that are done."""
        return sum(map(self._tally, in_order(self.done())), Tally())

    def _tally(self, name: str) -> Tally:
        raw = json.loads((self.path / f"{name}.json").read_bytes())
        return Tally(**{**raw, "listed": tuple(raw["listed"])})

    def join(self, form: Format, manifest: Manifest) -> None:
        """Make the output from the parts, which must all be done, and remove the folder."""
        parts = [self.path / f"{name}.part" for name in in_order(self.done())]
        with atomic_file(self.output, within=self.path) as stream:
            form.join(stream, parts, manifest)
        _sync(self.output.parent)
        self._remove()

    def close(self) -> int:
        """Release the folder and return how many parts it keeps; without any it is removed."""
        kept = len(self.done()) if self._owned else 0
        if self._owned and not kept:
            self._remove()
        self._owned = False
        self._release()
        return kept

    def _remove(self) -> None:
        self._empty()
        shutil.rmtree(self.path, ignore_errors=True)
        self._owned = False
        self._release()

    def _empty(self) -> None:
        """Remove a job's files, `job.json` first: a folder that is half removed holds no job."""
        self._clear(JOB)
        self._clear("*.json", "*.part", f".*{PARTIAL}")

    def _clear(self, *patterns: str) -> None:
        for pattern in patterns:
            for file in list(self.path.glob(pattern)):
                file.unlink()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        """Lock the directory, where the system and the file system have such locks. Where they have
        none, two processes may score the same parts, which come out the same."""
        try:
            import fcntl
        except ImportError:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = not self.path.exists() or not os.path.samestat(
                os.fstat(self._lock), self.path.stat()
            )
        except BlockingIOError:
            gone = True
        except OSError:
            return
        if gone:
            raise InputError(
                f"another process is writing {self.output}; let it end, or choose another -o"
            )

    def _compare(self, identity: Mapping[str, Any]) -> None:
        try:
            there = dict(json.loads((self.path / JOB).read_bytes()))
        except (ValueError, TypeError):
            raise InputError(
                f"{self.path / JOB} is damaged, so the job cannot go on; begin anew with --force"
            ) from None
        differ = sorted(key for key in {*there, *identity} if there.get(key) != identity.get(key))
        if differ:
            raise InputError(
                f"{self.path} belongs to a job with another {', '.join(differ)}, so it cannot go "
                "on; give what that job was given, or begin anew with --force"
            )


def keep(directory: Path, name: str, rows: bytes, tally: Tally) -> None:
    """Write a part's rows, then the tally that makes it done."""
    for suffix, content in (
        (".part", rows),
        (".json", json.dumps(asdict(tally), allow_nan=False).encode()),
    ):
        with atomic_file(directory / f"{name}{suffix}") as stream:
            stream.write(content)


def _sync(directory: Path) -> None:
    """Flush the names in a directory to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
