"""Make a directory appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trimexport_runtime.atomic_file import atomic_file
from trimexport_runtime.interruption import signals_held, uninterrupted

from .errors import CheckpointError, OutputError

MANIFESTS = ("trimexport.json", "backbone.json")
"""A directory with one of them is a bundle or a backbone, which may be replaced."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = "give another directory with -o"


def check_output(output: Path, force: bool) -> None:
    """Refuse an output that exists, before any work is done.

    Raises:
        OutputError: it exists and `force` is not given, or it is not a bundle to replace; or it
            could not be written there.
    """
    if not _exists(output):
        check_place(output)
        return
    if not force:
        raise OutputError(
            f"{output} exists; give --force to replace it, or another directory with -o"
        )
    known = any((output / name).is_file() for name in MANIFESTS)
    if not output.is_dir() or (any(output.iterdir()) and not known):
        raise OutputError(
            f"{output} exists and is not a bundle, so --force does not replace it; "
            "remove it yourself or give another directory with -o"
        )


@contextlib.contextmanager
def staged(output: Path, force: bool, remedy: str = _ELSEWHERE) -> Iterator[Path]:
    """A new directory beside `output` that becomes `output` when the block ends well.

    If the block ends in any other way (error, Ctrl-C), the new directory is removed, with those
    above it that were made for it, and an old `output` stays as it was. Signals that come while
    directories are replaced or removed take effect when that is done.

    Args:
        remedy: what the error tells the user to do where `output` cannot be written.

    Raises:
        OutputError: see `check_output`, which holds when the block ends too; or the disk is full,
            or the place cannot be written.
        CheckpointError: a file elsewhere, of which something is made, cannot be read.
    """
    check_output(output, force)
    output = Path(os.path.realpath(output))  # a link stays, what it names is replaced
    work = output.with_name(f".trimexport-{uuid.uuid4().hex[:12]}.partial")
    aside = work.with_suffix(".old")
    above = [folder for folder in output.parents if not folder.exists()]
    try:
        work.mkdir(parents=True)
        yield work
        with signals_held():
            _replace(output, work, aside, force)
    except OSError as error:
        if (source := _source_of(error, output, (work, aside))) is not None:
            raise CheckpointError(
                f"{source} cannot be read ({error.strerror}); nothing was kept. See that it is "
                "there and may be read, and start again"
            ) from error
        raise _refused(output, error, remedy) from error
    finally:
        uninterrupted(lambda: _clean_up(output, work, aside, above))


def check_place(output: Path) -> None:
    """Raise OutputError where what is above `output` is a file, or may not be written."""
    above = next(folder for folder in Path(os.path.abspath(output)).parents if folder.exists())
    if not above.is_dir():
        raise _refused(output, NotADirectoryError(errno.ENOTDIR, f"{above} is a file"), _ELSEWHERE)
    if not os.access(above, os.W_OK):
        raise _refused(output, PermissionError(errno.EACCES, "permission denied"), _ELSEWHERE)


def write_files(files: Mapping[Path, str]) -> None:
    """Write texts, each whole or not at all, into folders that are made for them.

    Raises:
        OutputError: one cannot be written.
    """
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as stream:
                stream.write(text.encode())
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}); name another file with -o"
            ) from None


def _exists(output: Path) -> bool:
    try:
        return output.exists()
    except OSError as error:
        raise _refused(output, error, _ELSEWHERE) from None


def _source_of(error: OSError, output: Path, written: Sequence[Path]) -> Path | None:
    """The file that could not be read, if an error is about one: its name is neither below the
    directories that are written nor that of the output or of one above it."""
    if error.errno in _FULL:  # of a copy, whose source stands first
        return None
    names = [it for it in (error.filename, error.filename2) if isinstance(it, (str, bytes))]
    places = [Path(os.path.abspath(os.fsdecode(name))) for name in names]
    ours = any(
        place in (output, *output.parents) or any(map(place.is_relative_to, written))
        for place in places
    )
    return places[0] if places and not ours else None


def _refused(output: Path, error: OSError, remedy: str) -> OutputError:
    """The error for a place that cannot be written."""
    if error.errno in _FULL:
        return OutputError(
            f"the disk of {output.parent} is full; nothing was kept. Free some room or {remedy}"
        )
    return OutputError(
        f"{output} cannot be written ({error.strerror or error}); nothing was kept. "
        + remedy[0].upper()
        + remedy[1:]
    )


def _replace(output: Path, work: Path, aside: Path, force: bool) -> None:
    """Move `work` to `output`, an old `output` going to `aside`."""
    check_output(output, force)  # again: it may have appeared since
    if force and output.exists():
        output.rename(aside)
    work.rename(output)


def _clean_up(output: Path, work: Path, aside: Path, above: list[Path]) -> None:
    """Put an old `output` back that was moved aside and not replaced, and remove all else."""
    if aside.exists() and not output.exists():
        aside.rename(output)
    for folder in (work, aside):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in above:  # the innermost first; one that holds something stays
        with contextlib.suppress(OSError):
            folder.rmdir()
