"""Which files of a checkpoint hold its weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trimexport.errors import CheckpointError

from .json_file import unreadable

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint. As in transformers, a single file comes before an
    index of several.

    Raises:
        CheckpointError: there are none, or some are missing.
    """
    if (directory / _SINGLE).is_file():
        return [directory / _SINGLE]
    index = directory / _INDEX
    if index.is_file():
        shards = _shards(index)
        missing = [shard for shard in shards if not os.path.isfile(directory / shard)]
        if missing:
            raise CheckpointError(
                f"{directory} lacks {len(missing)} of {len(shards)} weight files "
                f"({', '.join(missing)}); download the missing ones"
            )
        return [directory / shard for shard in shards]
    if any(directory.glob("*.bin")):
        raise CheckpointError(
            f"{directory} has its weights only as PyTorch .bin files, which can run code when "
            'they are loaded; convert them where you trust them: python -c "from transformers '
            f"import AutoModelForCausalLM as M; M.from_pretrained('{directory}')"
            f".save_pretrained('{directory}-safetensors')\" and copy the tokenizer's files too"
        )
    raise CheckpointError(f"{directory} has no weights: neither {_SINGLE} nor {_INDEX}")


def _shards(index: Path) -> list[str]:
    """The names of the files that an index lists. They must lie beside it."""
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not shards or any(Path(shard).name != shard for shard in shards):
            raise ValueError("its weight_map does not name files beside it")
    except OSError as error:
        raise unreadable(index, error) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read: {error!r}; download it again") from None
    return shards
