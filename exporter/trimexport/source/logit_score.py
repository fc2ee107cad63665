"""What sentence-transformers writes of a reranker that is a language model.

`modules.json` lists the model's modules, each with its type and its folder. The one of type
`LogitScore` has a `config.json` there with `true_token_id` and `false_token_id`: the score is the
first token's logit less the second's or, where the second is null, the first token's alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trimexport.errors import CheckpointError

from .json_file import read_json_object

MODULES = "modules.json"


@dataclass(frozen=True)
class LogitScore:
    """The tokens of a score, and the file that names them."""

    true_token_id: int
    false_token_id: int | None
    file: Path

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens, the one that the score is high for first."""
        second = self.false_token_id
        return (self.true_token_id,) if second is None else (self.true_token_id, second)


def read_logit_score(directory: Path) -> LogitScore | None:
    """The score that a checkpoint's directory has, or None.

    Raises:
        CheckpointError: a file of it cannot be read, or names no tokens.
    """
    folder = score_folder(directory / MODULES)
    if folder is None:
        return None
    file = directory / folder / "config.json"
    try:
        raw = read_json_object(file, "download it again")
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory / MODULES} has a LogitScore in {folder}, and {file} is missing; download "
            "it too, or name the labels with --labels"
        ) from None
    first, second = raw.get("true_token_id"), raw.get("false_token_id")
    if type(first) is not int or type(second) not in (int, type(None)):
        raise CheckpointError(
            f"{file} has true_token_id {first!r} and false_token_id {second!r}, which are no "
            "tokens; mend it, or name the labels with --labels"
        )
    return LogitScore(first, second, file)


def score_folder(path: Path) -> str | None:
    """The folder of the LogitScore among the modules; None where there is none.

    Raises:
        CheckpointError: the file `path` cannot be read, or names a folder that is not inside.
    """
    try:
        modules: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; download it again") from None
    for module in modules if isinstance(modules, list) else []:
        if isinstance(module, dict) and str(module.get("type")).endswith(".LogitScore"):
            folder = PurePosixPath(str(module.get("path")))
            if folder.is_absolute() or ".." in folder.parts:
                raise CheckpointError(f"{path} names the folder {folder}, which is not inside it")
            return str(folder)
    return None
