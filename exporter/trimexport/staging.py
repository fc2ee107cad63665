"""Make a directory appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError


def check_output(output: Path, force: bool) -> None:
    """Refuse an output that exists, before any work is done.

    Raises:
        OutputError: it exists and `force` is not given, or it is not a bundle to replace.
    """
    if not output.exists():
        return
    if not force:
        raise OutputError(
            f"{output} exists; give --force to replace it, or another directory with -o"
        )
    if not output.is_dir() or (any(output.iterdir()) and not (output / "trimexport.json").is_file()):
        raise OutputError(
            f"{output} exists and is not a bundle, so --force does not replace it; "
            "remove it yourself or give another directory with -o"
        )


@contextlib.contextmanager
def staged(output: Path, force: bool) -> Iterator[Path]:
    """A new directory beside `output` that becomes `output` when the block ends well.

    However the block ends otherwise (error, Ctrl-C), the new directory is removed and an old
    `output` stays as it was.

    Raises:
        OutputError: see `check_output`; or the disk is full, or the place cannot be written.
    """
    check_output(output, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror or error}") from None
    try:
        yield work
        work.chmod(0o755)
        _replace(output, work)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"the disk of {output.parent} is full; nothing was kept. Free some room or give "
                "another directory with -o"
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EFBIG, errno.EIO):
            raise OutputError(f"{output} cannot be written: {error.strerror}") from None
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(output: Path, work: Path) -> None:
    """Move `work` to `output`; an old `output` is put aside first and back if that fails."""
    if not output.exists():
        work.rename(output)
        return
    aside = work.with_name(work.name + ".old")
    output.rename(aside)
    try:
        work.rename(output)
    except BaseException:
        aside.rename(output)
        raise
    shutil.rmtree(aside, ignore_errors=True)
