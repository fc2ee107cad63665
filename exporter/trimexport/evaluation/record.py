"""An evaluation as files: a page for people, and JSON for programs and for later comparisons."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimexport.atomic import write_files

from .run import Evaluated, Evaluation

_ARRAYS = ("answers", "confidence", "tokens")


def write_record(evaluated: Evaluated, page: Path) -> None:
    """Write the page, and `as_dict` beside it with the ending `.json`.

    Raises:
        OutputError: one of them cannot be written.
    """
    from .page import html_page  # here, for it needs matplotlib

    title = f"{evaluated.bundle.resolve().name} on {Path(evaluated.data).name}"
    text = html_page(title, evaluated.variants, evaluated.labels)
    write_files(
        {page: text, page.with_suffix(".json"): json.dumps(as_dict(evaluated), allow_nan=False)}
    )


def as_dict(evaluated: Evaluated) -> dict[str, Any]:
    """An evaluation as JSON can hold it, with the answer to every text and its probability."""
    return {
        "bundle": str(evaluated.bundle),
        "data": evaluated.data,
        "digest": evaluated.digest,
        "labels": list(evaluated.labels),
        "variants": [_variant(evaluation) for evaluation in evaluated.variants],
    }


def _variant(evaluation: Evaluation) -> dict[str, Any]:
    value = asdict(evaluation)
    return value | {name: value[name].tolist() for name in _ARRAYS}
