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
from trimexport_runtime.replacing import replacing

from .formats import Format
from .parts import Tally

JOB = "job.json"


class Folder:
    """The folder of the job that writes `output`."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.job")
        self._lock: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a job to go on with."""
        return (self.path / JOB).is_file()

    def open(self, identity: Mapping[str, Any], *, anew: bool = False) -> None:
        """Own the folder: a new one, emptied if `anew`, or the one of a job that is the same.

        Raises:
            InputError: another process owns it, the job there is another, or it cannot be written.
        """
        try:
            self.path.mkdir(exist_ok=True)
            self._take_lock()
            if anew:
                self._empty()
            if self.exists:
                self._compare(identity)
            else:
                with replacing(self.path / JOB) as stream:
                    stream.write(json.dumps(identity, indent=2).encode())
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
        with replacing(self.output) as stream:
            form.join(stream, parts, labels)
        self.remove()

    def remove(self) -> None:
        """Forget the job."""
        self._empty()
        self._release()
        shutil.rmtree(self.path, ignore_errors=True)

    def _empty(self) -> None:
        """`job.json` first, so that half a folder is no job."""
        (self.path / JOB).unlink(missing_ok=True)
        for file in [*self.path.glob("*.json"), *self.path.glob("*.part")]:
            file.unlink()

    def close(self) -> None:
        """Let another process have it; a folder in which nothing was done vanishes."""
        if self.path.is_dir() and not self.done():
            self.remove()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        """Where the system has such locks; where it has none, parts written twice are the same."""
        try:
            import fcntl
        except ImportError:
            return
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"another process is writing {self.output}; let it end, or choose another -o"
            ) from None

    def _compare(self, identity: Mapping[str, Any]) -> None:
        found = json.loads((self.path / JOB).read_bytes())
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
            stream.flush()
            os.fsync(stream.fileno())
