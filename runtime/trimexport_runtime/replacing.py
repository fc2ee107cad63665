"""Write a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

PARTIAL = ".partial"


@contextmanager
def replacing(path: Path, within: Path | None = None) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, and vanishes otherwise. It is
    on the disk before it does, and is written in the directory `within`, beside `path` if None."""
    name = (within or path.parent) / f".{uuid4().hex}{PARTIAL}"
    try:
        with name.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        name.replace(path)
    finally:
        name.unlink(missing_ok=True)
