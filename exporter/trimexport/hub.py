"""From what the user calls a model to a directory that holds it."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import CheckpointError, HubError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# No Python files (remote code is never run) and no pickled weights.
_WANTED = ["*.json", "*.safetensors", "tokenizer.model", "*.toml", "merges.txt"]


def locate_model(model: str, revision: str | None) -> Path:
    """The directory of a model: `model` itself, or the hub's files, downloaded once and cached.

    Args:
        model: a directory, or a hub id such as `google/gemma-2b`.
        revision: branch, tag or commit of a hub id; None is its default branch.

    Raises:
        CheckpointError: neither a directory nor a hub id.
        HubError: gated, unknown, or the hub cannot be reached.
    """
    directory = Path(model)
    if directory.is_dir():
        return directory
    if not _HUB_ID.fullmatch(model) or model.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{model} does not exist; --model takes a directory with config.json, safetensors "
            "and a tokenizer, or a hub id such as google/gemma-2b"
        )
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except GatedRepoError:
        raise HubError(
            f"{model} is gated: accept its terms at https://huggingface.co/{model}, then log in "
            "with `hf auth login` (or set HF_TOKEN) and build again"
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{model} has no revision {revision!r}; see its branches and tags") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"{model} is neither a directory here nor a repository on the hub that you may read; "
            "check the name, or log in with `hf auth login` if it is private"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, EntryNotFoundError, OSError) as error:
        raise _unreachable(model, error) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise HubError(f"the hub refused {model}: {str(error).splitlines()[0]}") from None


def _unreachable(model: str, error: Exception) -> HubError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return HubError(
        f"{model} is no directory here and the hub cannot be reached ({first}); on a machine that "
        f"can, run `hf download {model} --local-dir DIR`, copy DIR here and give --model DIR"
    )
