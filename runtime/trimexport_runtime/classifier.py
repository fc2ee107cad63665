"""The classifier: a bundle that is loaded, and answers texts with labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends import DEFAULT, Backend, load_backend
from .batching import batches, pad, windows
from .bundle import Manifest, Variant, read_manifest
from .choice import choose
from .errors import BackendError, BundleError, InputError
from .inputs import Input, characters, required
from .integrity import check_files
from .loading import load_both
from .prediction import Prediction, finite_rows, no_number, predictions
from .tokenize import Encoded, TextEncoder

_LONG = 4096  # characters; while a longer text is tokenised, other threads run


class Classifier:
    """A loaded bundle. Make one with `Classifier.load`; threads may share it.

    On the CPU a text's answer does not depend on the texts it is classified with; on a GPU its
    last digits do.
    """

    def __init__(
        self,
        manifest: Manifest,
        variant: Variant,
        encoder: TextEncoder,
        backend: Backend,
    ) -> None:
        self.manifest = manifest
        self.variant = variant
        self._encoder = encoder
        self._backend = backend

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        *,
        variant: str | None = None,
        threads: int | None = None,
        token_budget: int | None = None,
        backend: str = DEFAULT,
        spin: bool = True,
        task: str | os.PathLike[str] | None = None,
    ) -> Classifier:
        """Load a bundle, or a backbone with a task; `Backbone.load` is for several tasks.

        Every file is checked for presence and size; `check_files` also compares hashes.

        Args:
            directory: what `trimexport build -o` wrote.
            variant: which numeric form of the model; None is the fastest on the backend.
            threads: how many threads one batch may use; None leaves it to ONNX Runtime.
            token_budget: the most tokens, padding included, of one batch; None is what is fast for
                a model of this size. Smaller ones take less memory.
            backend: what runs it: `onnxruntime` on the CPU, `onnxruntime-cuda`,
                `onnxruntime-tensorrt`, or `tensorrt` with an engine. No other stands in for it.
            spin: whether ONNX Runtime's threads wait for each other at full speed. Without it a
                text alone takes up to a third longer, and other work on the cores less.
            task: the file of a task pack, where `directory` is a backbone.

        Raises:
            BundleError: no bundle there, no such variant, or files that cannot be read; PackError
                where it is the pack that cannot be read, or does not fit the backbone.
            IntegrityError: a file is missing or truncated.
            VersionError: the bundle needs a newer runtime.
            BackendError: the backend is not here, or the variant cannot run on it.
        """
        if task is not None:
            from .backbone import Backbone  # which imports this module

            backbone = Backbone.load(
                directory,
                variant=variant,
                threads=threads,
                token_budget=token_budget,
                backend=backend,
                spin=spin,
            )
            return backbone.task(task)
        bundle = Path(directory)
        manifest = read_manifest(bundle)
        chosen = choose(manifest, variant, backend)
        if token_budget is not None and token_budget < 1:
            raise BackendError(f"token_budget is {token_budget}; give 1 or more tokens")
        try:
            check_files(bundle, manifest, hashes=False)
            load = partial(
                load_backend,
                backend,
                bundle,
                manifest,
                chosen,
                threads=threads,
                token_budget=token_budget,
                spin=spin,
            )
            loaded, encoder = load_both(
                lambda begun: load(begun=begun), lambda: TextEncoder.load(bundle, manifest)
            )
        except OSError as error:
            raise BundleError(
                f"{bundle} cannot be loaded ({error}); check it with `trimexport-run info --check`"
            ) from None
        return cls(manifest, chosen, encoder, loaded)

    @property
    def provider(self) -> str:
        """What computes: an execution provider of ONNX Runtime, or TensorRT."""
        return self._backend.provider

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the logits, of which a score may have one for all of them;
        of several questions those of all, each with its question's name before it."""
        return self.manifest.label_names

    def classify(self, texts: Iterable[Input]) -> list[Prediction]:
        """Classify texts; the answers are in their order.

        Where the bundle's prompt has several fields, each of `texts` is a dict of theirs, or the
        texts of those without a default, in the prompt's order.

        Raises:
            InputError: a text cannot be classified, named by its position; none is answered.
            BackendError: the model cannot be run on them.
        """
        return list(self.classify_stream(texts))

    def classify_stream(self, texts: Iterable[Input]) -> Iterator[Prediction]:
        """Classify a stream of texts of any length, in order, in bounded memory.

        `texts` is read a window at a time, as the answers are taken.

        Raises:
            InputError: a text cannot be classified; those before it have been answered.
            BackendError: the model cannot be run on them.
        """
        return _or_raise(self.classify_each(texts))

    def classify_each(self, texts: Iterable[Input]) -> Iterator[Prediction | InputError]:
        """Like `classify_stream`, with an `InputError` in the place of a text that has none.

        The errors are values here: one bad text does not end the stream.

        Raises:
            InputError: `texts` is a single text or pair.
            BackendError: the model cannot be run on them.
        """
        return self._each(self._listed(texts))

    def logits(self, texts: Iterable[Input]) -> npt.NDArray[np.float32]:
        """The logits of texts, float32 `[texts, outputs]`, rows in their order.

        Raises:
            InputError: a text cannot be classified, named by its position; NoNumberError where the
                model's answer to it is no finite number.
            BackendError: the model cannot be run on them.
        """
        windows_ = [np.empty((0, self.manifest.outputs), dtype=np.float32)]
        position = 0
        for items, logits in self._answers(self._listed(texts)):
            finite = iter(finite_rows(logits))
            for item in items:
                if isinstance(item, InputError):
                    raise _placed(item, position)
                if not next(finite):
                    raise _placed(no_number(self.variant), position)
                position += 1
            windows_.append(logits)
        return np.concatenate(windows_)

    def encode(self, given: Input, *, bounded: bool = False) -> Encoded:
        """A text's own tokens, or those of all fields and what stands between them, cut to the
        bundle's limit. A long text lets other threads run.

        Args:
            bounded: refuse a text of which more than `most_characters` would be tokenised at once.

        Raises:
            InputError: the text cannot be classified; NoRoomError where fields that are not cut
                are over the limit.
        """
        return self._encoder.encode(given, aside=characters(given) > _LONG, bounded=bounded)

    @property
    def most_characters(self) -> int:
        """The most characters that a text within the bundle's limit, or all fields together, can
        have."""
        return self._encoder.most_characters

    def most_rows(self, width: int) -> int:
        """How many texts of `width` tokens one batch may have, at least 1."""
        return self._backend.most_rows(width)

    def run(self, rows: Sequence[Encoded]) -> npt.NDArray[np.float32]:
        """The logits of texts as one batch, float32 `[rows, outputs]`. Where the variant cannot
        answer a row, some of its logits are no finite numbers.

        Raises:
            BackendError: the model cannot be run on them.
        """
        ids, mask = pad([row.ids for row in rows])
        return self._backend.run(ids, mask)

    def predictions(
        self, rows: Sequence[Encoded], logits: npt.NDArray[np.float32]
    ) -> list[Prediction | InputError]:
        """The answers that logits `[rows, outputs]` give to texts, or a NoNumberError for a text
        some of whose logits are no finite numbers."""
        return predictions(self.manifest, self.variant, rows, logits)

    def _each(self, texts: Iterable[Input]) -> Iterator[Prediction | InputError]:
        for items, logits in self._answers(texts):
            rows = [item for item in items if isinstance(item, Encoded)]
            predictions = iter(self.predictions(rows, logits))
            for item in items:
                yield next(predictions) if isinstance(item, Encoded) else item

    def _answers(
        self, texts: Iterable[Input]
    ) -> Iterator[tuple[list[Encoded | InputError], npt.NDArray[np.float32]]]:
        """For each window of texts, the tokens or the error of each text, and the logits of those
        with tokens."""
        for window in windows(texts, characters):
            items = [self._encode(text) for text in window]
            rows = [item for item in items if isinstance(item, Encoded)]
            logits = np.empty((len(rows), self.manifest.outputs), dtype=np.float32)
            for batch in batches([len(row.ids) for row in rows], self.most_rows):
                logits[batch] = self.run([rows[index] for index in batch])
            yield items, logits

    def _encode(self, given: Input) -> Encoded | InputError:
        try:
            return self._encoder.encode(given)
        except InputError as error:
            return error

    def _listed(self, texts: Any) -> Iterable[Input]:
        """`texts`, unless it is one input, whose characters or fields would be taken for texts."""
        names = required(self.manifest.prompt.places)
        if len(names) == 1:
            what, example = "a list of str", "text"
        else:
            what, example = "a list of tuples or dicts", f"({', '.join(names)})"
        if isinstance(texts, str | bytes | Mapping):
            example = "{...}" if isinstance(texts, Mapping) else example
            raise InputError(
                f"texts must be {what}, this is a single {type(texts).__name__}; "
                f"put it in a list: classify([{example}])"
            )
        if not isinstance(texts, Iterable):
            raise InputError(f"texts must be {what}, this is {type(texts).__name__}")
        pair = isinstance(texts, list | tuple) and {isinstance(text, str) for text in texts}
        if len(names) > 1 and pair == {True}:
            raise InputError(
                f"texts must be {what}, and this has single texts; put those that belong together "
                f"into one: classify([{example}])"
            )
        given: Iterable[Input] = texts
        return given


def _placed(error: InputError, position: int) -> InputError:
    return type(error)(f"text {position}: {error}")


def _or_raise(answers: Iterable[Prediction | InputError]) -> Iterator[Prediction]:
    for position, answer in enumerate(answers):
        if isinstance(answer, InputError):
            raise _placed(answer, position)
        yield answer
