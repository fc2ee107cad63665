"""The checkpoint and the sample texts that ship with the package."""

from __future__ import annotations

from pathlib import Path

from trimexport.errors import CheckpointError

NAME = "gemma-mini"
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_checkpoint() -> Path:
    """The directory of gemma-mini: inside the installed package, or in the source tree.

    Raises:
        CheckpointError: it is in neither place.
    """
    for place in (_PACKAGE / "_models" / NAME, _PACKAGE.parents[1] / "models" / NAME):
        if (place / "config.json").is_file():
            return place
    raise CheckpointError(
        f"this installation of trimexport lacks the checkpoint {NAME}; reinstall it, or name "
        "another with --model"
    )


def sample_texts() -> list[str]:
    """The texts on which a build checks parity if it is given none."""
    return _lines("samples.txt")


def calibration_texts() -> list[str]:
    """The texts by which a build calibrates if it is given none: of the same kinds as the samples,
    and others than these."""
    return _lines("calibration.txt")


def _lines(name: str) -> list[str]:
    return (_PACKAGE / name).read_text(encoding="utf-8").splitlines()
