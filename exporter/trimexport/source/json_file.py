"""JSON files of a checkpoint."""

from __future__ import annotations

import json
import math
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
        CheckpointError: it cannot be read, or holds something else, or a number that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {remedy}") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object; {remedy}")
    return raw


def _finite(written: str) -> float:
    """A number of JSON. Python's reader takes NaN and infinities too, which its standard lacks."""
    number = float(written)
    if not math.isfinite(number):
        raise ValueError(f"{written} in it is no finite number")
    return number
