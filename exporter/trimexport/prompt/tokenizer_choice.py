"""Which tokenizer a model is given: its own, or one that the user names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from trimexport.errors import CheckpointError, SpecError, UnsupportedError, reason_of
from trimexport.records import short
from trimexport.source.checkpoint import Checkpoint
from trimexport_runtime.bundle import Source
from trimexport_runtime.integrity import sha256_of
from trimexport_runtime.tokenize import panics_caught

from .prompt_ids import PromptIds
from .tokenizer import FILES, SourceTokenizer, load_tokenizer
from .tokenizer_json import special_ids_around


def tokenizer_place(given: str | None, checkpoint: Checkpoint) -> Path:
    """Where the tokenizer is: the directory or file that the user names, or the checkpoint.

    Raises:
        CheckpointError: there is nothing of that name.
    """
    if given is None:
        return checkpoint.directory
    if not given.strip() or not os.path.exists(given):
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
    if given is None and not os.path.exists(source.tokenizer):
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


def known_tokens(
    tokenizer: SourceTokenizer, place: Path, checkpoint: Checkpoint
) -> tuple[SourceTokenizer, tuple[str, ...]]:
    """The tokenizer without the added tokens that the embedding has no row for, and lines for the
    user on those that a text could have had and on another padding token.

    Raises:
        UnsupportedError: other tokens have no row.
    """
    rows = checkpoint.config.vocab_size
    added = {token["id"]: token for token in tokenizer.definition["added_tokens"]}
    vocabulary = tokenizer.whole.get_vocab(with_added_tokens=True).values()
    beyond = sorted(it for it in vocabulary if it >= rows)
    if not beyond:
        return tokenizer, ()
    ordinary = [it for it in beyond if it not in added or not added[it]["special"]]
    first = f"{tokenizer.token(ordinary[0])!r} ({ordinary[0]})" if ordinary else ""
    if not added.keys() >= set(ordinary):
        raise UnsupportedError(
            f"the tokenizer of {place} has {len(ordinary):,} tokens that {checkpoint.model} does "
            f"not know, the first of them {first}: its embedding has {rows:,} rows; give the "
            "model's own with --tokenizer"
        )
    known = _without_tokens_from(tokenizer, rows)
    notes = []
    if ordinary:
        notes.append(
            f"added tokens of the tokenizer without a row in the embedding, which has {rows:,}: "
            f"{len(ordinary):,}, the first {first}; in a text they are read as characters"
        )
    if known.pad_token_id != tokenizer.pad_token_id:
        notes.append(
            f"the padding token {tokenizer.pad_token!r} ({tokenizer.pad_token_id}) has no row in "
            f"the embedding, which has {rows:,}; the bundle names {known.pad_token!r} "
            f"({known.pad_token_id}) for padding, which is masked"
        )
    return known, tuple(notes)


def _without_tokens_from(source: SourceTokenizer, rows: int) -> SourceTokenizer:
    """The tokenizer without its added tokens of the id `rows` or a later one, which become
    characters.

    Requires a vocabulary whose other tokens have smaller ids.

    Raises:
        UnsupportedError: the vocabulary is made with one of them, or there is then no token that
            could be padding.
    """
    definition = {**source.definition, "model": dict(source.definition["model"])}
    definition["added_tokens"] = [it for it in definition["added_tokens"] if it["id"] < rows]
    vocabulary = definition["model"]["vocab"]
    definition["model"]["vocab"] = (
        {token: number for token, number in vocabulary.items() if number < rows}
        if isinstance(vocabulary, dict)
        else vocabulary[:rows]  # by place
    )
    padding = tuple((token, number) for token, number in source.padding if number < rows)
    if not padding:
        raise UnsupportedError(
            f"the tokenizer's padding token {source.pad_token!r} ({source.pad_token_id}) is beyond "
            f"the {rows:,} rows of the embedding, and it has no end or unknown token and no token "
            "0 to pad with; name a pad_token in tokenizer_config.json"
        )
    try:
        with panics_caught():
            return SourceTokenizer.of(definition, padding)
    except Exception as error:  # tokenizers raises plain Exception
        raise UnsupportedError(
            f"the tokenizer cannot do without its tokens beyond the {rows:,} rows of the embedding "
            f"({reason_of(error)}); give the model's own with --tokenizer"
        ) from None


def check_known(prompt: PromptIds, tokenizer: SourceTokenizer, checkpoint: Checkpoint) -> None:
    """Raise SpecError where a prompt has an added token that the embedding has no row for."""
    rows = checkpoint.config.vocab_size
    start, end = special_ids_around(tokenizer.definition)
    between = [token for field in prompt.fields for token in field.before]
    for token in (*prompt.prefix_ids, *between, *prompt.suffix_ids):
        if token < rows:
            continue
        named = f"the token {tokenizer.token(token)!r} ({token})"
        what = f"and the embedding of {checkpoint.model} has {rows:,} rows"
        if token in (*start, *end):
            raise SpecError(
                f"the tokenizer writes {named} around every string, {what}; give the model's own "
                "with --tokenizer"
            )
        if prompt.template.rendered:
            raise SpecError(
                f"the chat template writes {named}, {what}, so the model was not trained on it; "
                "drop --chat"
            )
        raise SpecError(f"the prompt has {named}, {what}; write the prompt without it")


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
