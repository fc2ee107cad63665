"""An evaluation as files: a page for people, and JSON for programs and for later comparisons."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimexport.atomic import check_place, write_files
from trimexport.errors import OutputError

from .run import Evaluated, Evaluation

_PAGES = (".html", ".htm")
_ARRAYS = ("answers", "confidence", "tokens")


def check_page(page: Path) -> None:
    """Refuse a page beside which there is no place for its JSON, before any work is done.

    Raises:
        OutputError: its name does not end as those of pages do, or it cannot be written.
    """
    if page.suffix.lower() not in _PAGES:
        raise OutputError(
            f"{page} is named as the page, which is HTML; end its name in .html, and a .json of "
            "that name is written beside it"
        )
    check_place(page)


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
