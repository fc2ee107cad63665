"""JSON files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimexport.errors import CheckpointError


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file of a model that the system does not let be read."""
    return CheckpointError(
        f"{path} cannot be read ({error.strerror}); see that it is there and may be read"
    )


def read_json_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        remedy: what a user should do if the file is damaged, for messages.

    Raises:
        FileNotFoundError: it is missing.
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {remedy}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object; {remedy}")
    return raw
