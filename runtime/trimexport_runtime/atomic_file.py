"""Write a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

PARTIAL = ".partial"
"""How the names of files end that are not whole yet."""


@contextmanager
def atomic_file(path: Path, within: Path | None = None) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` if the block ends well, and vanishes otherwise.

    It is flushed to the disk before it takes the place. Until then it has another name, in the
    directory `within`, or beside `path` if that is None.
    """
    partial = (within or path.parent) / f".{uuid4().hex}{PARTIAL}"
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
