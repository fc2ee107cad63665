"""What of a job is done, on disk: `OUTPUT.job` beside the output, until that is whole.

    job.json          what the job is; a job that differs in any of it cannot go on here
    NAME.part         a part's rows, in the output's format
    NAME.json         its tally, written last: the part is done when this is there

The output is joined from the parts, moved into its place at once, and the folder removed. One
process at a time owns it, by a lock that ends with the process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimexport_runtime.errors import InputError
from trimexport_runtime.replacing import PARTIAL, replacing

from .formats import Format
from .parts import Tally

JOB = "job.json"


class Folder:
    """The folder of the job that writes `output`."""

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
        """Own the folder: an empty one if `anew` or if no job is in it, else that of the same job.

        Raises:
            InputError: another process owns it, the job there is another, or it cannot be written.
        """
        try:
            self.path.mkdir(exist_ok=True)
            self._take_lock()
            if not anew and self.exists:
                self._compare(identity)
                self._clear(f".*{PARTIAL}")
            else:
                self._empty()
                with replacing(self.path / JOB) as stream:
                    stream.write(json.dumps(identity, indent=2).encode())
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
        return {it.stem for it in self.path.glob("*.json") if it.name != JOB}

    def total(self) -> Tally:
        """What all parts that are done come to."""
        return sum(map(self._tally, sorted(self.done())), Tally())

    def _tally(self, name: str) -> Tally:
        found = json.loads((self.path / f"{name}.json").read_bytes())
        return Tally(**{**found, "listed": tuple(found["listed"])})

    def join(self, form: Format, labels: Sequence[str]) -> None:
        """Make the output from the parts, all of them done, and remove the folder."""
        parts = [self.path / f"{name}.part" for name in sorted(self.done())]
        with replacing(self.output, within=self.path) as stream:
            form.join(stream, parts, labels)
        _sync(self.output.parent)
        self._remove()

    def close(self) -> int:
        """Let another process have it. How many parts are kept; without any the folder goes."""
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
        """`job.json` first, so that half a folder is no job."""
        self._clear(JOB)
        self._clear("*.json", "*.part", f".*{PARTIAL}")

    def _clear(self, *patterns: str) -> None:
        for file in [it for pattern in patterns for it in self.path.glob(pattern)]:
            file.unlink()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        """Of the directory, where the system and the file system have such locks. Where they have
        none, parts that two processes write are the same."""
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
            found = dict(json.loads((self.path / JOB).read_bytes()))
        except (ValueError, TypeError):
            raise InputError(
                f"{self.path / JOB} is damaged, so the job cannot go on; begin anew with --force"
            ) from None
        differ = sorted(it for it in {*found, *identity} if found.get(it) != identity.get(it))
        if differ:
            raise InputError(
                f"{self.path} belongs to a job with another {', '.join(differ)}, so it cannot go "
                "on; give what that job was given, or begin anew with --force"
            )


def keep(directory: Path, name: str, rows: bytes, found: Tally) -> None:
    """Write a part's rows, then the tally that makes it done."""
    for suffix, content in ((".part", rows), (".json", json.dumps(asdict(found)).encode())):
        with replacing(directory / f"{name}{suffix}") as stream:
            stream.write(content)


def _sync(directory: Path) -> None:
    """Have a directory's names on the disk, where the system can be asked for it."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
