"""The directory of a model or an adapter that a user names: a local one, or the hub's download."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trimexport.errors import CheckpointError, HubError

from .gguf_place import gguf_in, is_named_gguf

_FULL_OR_LOCKED = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# No Python files (remote code is never run) and no pickled weights.
_WANTED = ["*.json", "*.safetensors", "tokenizer.model", "*.toml", "*.jinja", "merges.txt"]
# Copies in other formats or folders, some of them as large as the weights.
_UNWANTED = ["consolidated*", "*/*"]
_SMALL = ["config.json", "modules.json", "*.toml"]
_ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]


def locate_model(model: str, revision: str | None, also: str | None = None) -> Path:
    """The place of a model: `model` itself, or the hub's files, downloaded once and cached.

    Args:
        model: a directory, a GGUF file, or a hub id such as `google/gemma-2b`.
        revision: branch, tag or commit of a hub id; None is its default branch.
        also: a file in a folder of the hub's repository, which is not among a model's files.

    Raises:
        CheckpointError: `model` is neither a directory nor a hub id.
        HubError: the model is gated, unknown or without safetensors, or the hub cannot be reached.
    """
    directory = local_directory(model)
    if directory is not None:
        return directory
    snapshot = _download(model, revision, _WANTED)
    if also is not None:
        _download(model, revision, [also], unwanted=[])
    if not any(snapshot.glob("*.safetensors")) and not any(snapshot.glob("tokenizer*")):
        raise HubError(
            f"the hub's cache holds only a part of {model} ({snapshot}), and the rest cannot be "
            "fetched; connect to the hub (HF_HUB_OFFLINE must not be set) and build again"
        )
    if not any(snapshot.glob("*.safetensors")):
        raise HubError(
            f"{model} has no safetensors on the hub (its weights may be PyTorch .bin files, which "
            "can run code when they are loaded, and are not downloaded); where you trust it, "
            'convert it: python -c "from transformers import AutoModelForCausalLM as M, '
            f"AutoTokenizer as T; M.from_pretrained('{model}').save_pretrained('DIR'); "
            f"T.from_pretrained('{model}').save_pretrained('DIR')\" and give --model DIR"
        )
    return snapshot


def locate_config(model: str, revision: str | None) -> Path:
    """A directory with the model's config.json, by which a model can be refused before its weights
    are downloaded.

    Raises:
        CheckpointError, HubError: as `locate_model`.
    """
    return local_directory(model) or _download(model, revision, _SMALL)


def locate_adapter(adapter: str) -> Path:
    """The directory of an adapter: `adapter` itself, or the hub's files on the default branch.

    Raises:
        CheckpointError: `adapter` is neither a directory nor a hub id.
        HubError: the adapter is gated or unknown, or the hub cannot be reached.
    """
    if adapter and os.path.isdir(adapter):
        return Path(adapter)
    if _HUB_ID.fullmatch(adapter):
        return _download(adapter, None, _ADAPTER, "--adapter")
    problem = f"{adapter} is no directory" if adapter.strip() else "the adapter's name is empty"
    raise CheckpointError(
        f"{problem}; --adapter takes a directory with {' and '.join(_ADAPTER)}, or a hub id"
    )


def local_directory(model: str) -> Path | None:
    """The directory or GGUF file that `model` names, or None if it is a hub id. The hub is not
    asked.

    Raises:
        CheckpointError: it is neither of the two.
    """
    if model and os.path.isdir(model):
        return gguf_in(Path(model)) or Path(model)
    if os.path.isfile(model) and is_named_gguf(Path(model)):
        return Path(model)
    if _HUB_ID.fullmatch(model):
        return None
    if model.strip():
        problem = f"{model} {'is a file' if os.path.isfile(model) else 'does not exist'}"
    else:
        problem = "the model's name is empty"
    raise CheckpointError(
        f"{problem}; --model takes a directory with config.json, safetensors and a tokenizer, a "
        "GGUF file, or a hub id such as google/gemma-2b"
    )


def _download(
    model: str,
    revision: str | None,
    wanted: list[str],
    option: str = "--model",
    unwanted: Sequence[str] = _UNWANTED,
) -> Path:
    """The hub's snapshot of a model.

    Args:
        wanted: patterns of the files to download, but for those that are `unwanted`.
        option: the option with which the user names the model, for messages.

    Raises:
        HubError: for each kind of failure with its own message.
    """
    try:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=wanted, ignore_patterns=list(unwanted)
            )
        )
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
    except LocalEntryNotFoundError as error:  # in some releases also a HfHubHTTPError
        raise _unreachable(model, error, option) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise HubError(f"the hub refused {model}: {_first_line(error)}") from None
    except Exception as error:  # of network libraries, each with errors of its own
        if isinstance(error, OSError) and error.errno in _FULL_OR_LOCKED:
            raise HubError(
                f"{model} cannot be stored in {constants.HF_HUB_CACHE} ({error.strerror}); free "
                "some room, or set HF_HOME to another place"
            ) from None
        raise _unreachable(model, error, option) from None


def _unreachable(model: str, error: Exception, option: str) -> HubError:
    """The error for a hub that cannot be reached."""
    return HubError(
        f"{model} is no directory here and the hub cannot be reached ({_first_line(error)}); on a "
        f"machine that can, run `hf download {model} --local-dir DIR`, copy DIR here and give "
        f"{option} DIR"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
