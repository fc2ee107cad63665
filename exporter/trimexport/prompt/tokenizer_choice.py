"""Which tokenizer a model is given: its own, or one that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimexport.errors import CheckpointError, SpecError, UnsupportedError
from trimexport.source.checkpoint import Checkpoint
from trimexport.texts import short
from trimexport_runtime.bundle import Source
from trimexport_runtime.integrity import sha256_of

from .tokenizer import FILES, SourceTokenizer, load_tokenizer


def tokenizer_place(given: str | None, checkpoint: Checkpoint) -> Path:
    """Where the tokenizer is: the directory or file that the user names, or the checkpoint.

    Raises:
        CheckpointError: there is nothing of that name.
    """
    if given is None:
        return checkpoint.directory
    if not given.strip() or not Path(given).exists():
        raise CheckpointError(
            f"there is no tokenizer {given!r}; --tokenizer takes a directory or a file: "
            f"{', '.join(FILES)}, or a GGUF"
        )
    return Path(given)


def tokenizer_sha256(place: Path) -> str:
    """Hash of the file that a tokenizer is read from."""
    if place.is_dir():
        place = next(place / name for name in FILES if (place / name).is_file())
    return sha256_of(place)


def tokenizer_of(source: Source, checkpoint: Checkpoint, given: str | None) -> Path:
    """The tokenizer that a bundle was made with, or `given`, if it is the same one.

    Raises:
        SpecError: the bundle was made with the checkpoint's own.
        CheckpointError: it is not there any more, or is another one.
    """
    if source.tokenizer is None:
        if given is not None:
            raise SpecError("the bundle was made with the model's own tokenizer; drop --tokenizer")
        return checkpoint.directory
    if given is None and not Path(source.tokenizer).exists():
        raise CheckpointError(
            f"the bundle was made with the tokenizer {source.tokenizer}, which is not there any "
            "more; name its place with --tokenizer"
        )
    place = tokenizer_place(given or source.tokenizer, checkpoint)
    if tokenizer_sha256(place) != source.tokenizer_sha256:
        raise CheckpointError(
            f"{place} is not the tokenizer that the bundle was made with ({source.tokenizer}): its "
            "file differs; name the right one with --tokenizer"
        )
    return place


def check_vocabulary(tokenizer: SourceTokenizer, place: Path, checkpoint: Checkpoint) -> None:
    """Raise UnsupportedError where a text could have tokens that the embedding has no row for.
    Special tokens cannot be in a text."""
    rows = checkpoint.config.vocab_size
    special = {token["id"] for token in tokenizer.definition["added_tokens"] if token["special"]}
    vocabulary = tokenizer.whole.get_vocab(with_added_tokens=True).values()
    beyond = sorted(it for it in vocabulary if it >= rows and it not in special)
    if beyond:
        raise UnsupportedError(
            f"the tokenizer of {place} has {len(beyond):,} tokens that {checkpoint.model} does not "
            f"know, the first of them {tokenizer.token(beyond[0])!r} ({beyond[0]}): its embedding "
            f"has {rows:,} rows; give the model's own with --tokenizer"
        )


def check_known(ids: Sequence[int], tokenizer: SourceTokenizer, checkpoint: Checkpoint) -> None:
    """Raise SpecError where a prompt has a special token that the embedding has no row for."""
    rows = checkpoint.config.vocab_size
    for token in ids:
        if token >= rows:
            raise SpecError(
                f"the prompt has the token {tokenizer.token(token)!r} ({token}), and the embedding "
                f"of {checkpoint.model} {rows:,} rows; write the prompt without it"
            )


def difference_note(
    given: str | None, tokenizer: SourceTokenizer, checkpoint: Checkpoint, texts: Sequence[str]
) -> str | None:
    """A line where the tokenizer that the user names and the checkpoint's own differ on texts."""
    if given is None:
        return None
    try:
        own = load_tokenizer(checkpoint.directory)
    except CheckpointError:
        return None  # there is nothing to compare with, which is why one was named
    other = [it for it in texts if own.encode_start(it) != tokenizer.encode_start(it)]
    if not other:
        return None
    return (
        f"{given} gives other tokens than the tokenizer of {checkpoint.directory} for "
        f"{len(other)} of {len(texts)} texts, the first of them {short(other[0])}; the former is "
        "used, as it was named"
    )
