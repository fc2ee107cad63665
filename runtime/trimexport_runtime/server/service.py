"""The bundles of a server, and the answers to texts, whatever protocol the texts came in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimexport_runtime.classifier import Classifier
from trimexport_runtime.errors import InputError, NoRoomError, TrimexportRuntimeError
from trimexport_runtime.inputs import Input, characters
from trimexport_runtime.prediction import Prediction
from trimexport_runtime.tokenize import Encoded

from .batcher import Answered, Batcher, Ran
from .metrics import Metrics
from .refusals import Refusal
from .settings import Settings
from .turns import Turns

ENCODERS = 2  # threads that tokenise; the tokenizer itself uses no others
CHARACTERS_PER_TOKEN = 4  # an estimate for texts that are not tokenised yet
SHORT_CHARACTERS = 4096  # texts up to this together are tokenised at once, without a thread
Watch = Callable[[Future[Answered]], None]


@dataclass(eq=False)
class Model:
    """A bundle, or a task on a backbone, that is served. `requests` counts those under way, which
    are answered also after it is `retired`."""

    name: str
    classifier: Classifier
    batcher: Batcher
    requests: int = 0
    retired: bool = False


@dataclass(frozen=True)
class Classified:
    """The answers to the texts of a request: predictions, and logits float32 `[texts, labels]`."""

    predictions: list[Prediction]
    logits: npt.NDArray[np.float32]


class Service:
    """Classifies the texts of requests with the bundles, within the server's limits.

    Tasks on a backbone may be added and removed while it runs, all in the thread of the requests.
    `unavailable` are then the reasons why some are not served, by their names; else None.
    """

    def __init__(
        self,
        classifiers: Mapping[str, Classifier],
        settings: Settings,
        unavailable: Mapping[str, str] | None = None,
    ) -> None:
        """Args:
        unavailable: where the classifiers are tasks on one backbone, why some are not served.
            Tasks run in turn, and a request has to name one, unless there is but one.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.draining = False
        self.unavailable = unavailable
        self._turns = None if unavailable is None else Turns()
        self._retired: set[Model] = set()
        self.models = {name: self._start(name, classifiers[name]) for name in classifiers}
        self._encoding = 0  # tokens that texts which `_encoders` have will keep, estimated
        self._encoders = ThreadPoolExecutor(ENCODERS, "encoder")

    def _start(self, name: str, classifier: Classifier) -> Model:
        rows, tokens = self.metrics.rows.labels(name), self.metrics.tokens.labels(name)

        def note(ran: Ran) -> None:
            rows.observe(ran.rows)
            tokens.observe(ran.tokens)

        batcher = Batcher(classifier, self.settings.wait, note, self._turns, self.settings.workers)
        _ = classifier.most_characters  # takes a moment once; no request should wait for it
        self.metrics.watch_queue(name, lambda: batcher.tokens)
        return Model(name, classifier, batcher)

    def model(self, name: str | None = None) -> Model:
        """The model called `name`; without a name the first, but of several tasks none.

        Raises:
            Refusal: there is none of this name, or a name is needed.
        """
        models = self.models
        there = f"there are: {', '.join(models) or 'none'}"
        if name is None and (not models or (len(models) > 1 and self.unavailable is not None)):
            raise Refusal("no_model", f"name a model, as ?model=NAME; {there}")
        if name is None:
            return next(iter(models.values()))
        if name not in models:
            raise Refusal("no_model", f'no model "{name}"; {there}')
        return models[name]

    def add(self, name: str, classifier: Classifier) -> None:
        """Serve a task. One of its name that is served is replaced, and answers what it has."""
        before = self.models.get(name)
        model = self._start(name, classifier)
        self.models = dict(sorted({**self.models, name: model}.items()))
        if before is not None:
            self._retire(before)

    def remove(self, name: str) -> None:
        """Serve a task no more. Requests to it that are under way are answered."""
        model = self.models[name]
        self.models = {it: self.models[it] for it in self.models if it != name}
        self.metrics.forget(name)
        self._retire(model)

    def _retire(self, model: Model) -> None:
        model.retired = True
        self._retired.add(model)
        self._end_if_done(model)

    def lease(self, model: Model) -> None:
        """Count a request to a model, which is answered even if the model is removed meanwhile."""
        model.requests += 1

    def release(self, model: Model) -> None:
        """Count a request that `lease` has counted as answered."""
        model.requests -= 1
        self._end_if_done(model)

    def _end_if_done(self, model: Model) -> None:
        if model.retired and not model.requests:
            self._retired.discard(model)
            model.batcher.end()

    def check_running(self) -> None:
        """Refuse a request that comes while the server is shutting down."""
        if self.draining:
            raise Refusal("shutting_down", "the server is shutting down; ask another", 1)

    async def classify(
        self, model: Model, texts: Sequence[Input], truncate: bool, watch: Watch
    ) -> Classified:
        """Classify texts, or the texts of several fields each. `watch` is called with the future of
        the answers, so that it can be cancelled if the client disconnects.

        Raises:
            Refusal: too many, none, one that cannot be classified, one that is too long where
                `truncate` is not given, or no room in the queue.
        """
        if not texts:
            raise Refusal("bad_input", "there is no text; give one at least")
        if len(texts) > self.settings.max_texts:
            raise Refusal(
                "too_many_texts",
                f"{len(texts)} texts, at most {self.settings.max_texts} go in one request; send "
                "several",
            )
        if not truncate:
            self._check_lengths(model, texts)
        began = time.monotonic()
        rows = await self._encode(model, texts, truncate)
        self._check_room(model, sum(len(row.ids) for row in rows))
        self.metrics.stage("tokenise", time.monotonic() - began)
        answered = await self._run(model, rows, watch)
        self.metrics.stage("queue", answered.queued)
        self.metrics.stage("model", answered.ran)
        self.metrics.texts.labels(model.name).inc(len(texts))
        return Classified(answered.predictions, answered.logits)

    async def _run(self, model: Model, rows: Sequence[Encoded], watch: Watch) -> Answered:
        future = model.batcher.submit(rows)
        watch(future)
        try:
            return await asyncio.wrap_future(future)
        except TrimexportRuntimeError as error:
            raise Refusal("failed", str(error)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Refusal("client_gone", "the client is gone") from None

    async def _encode(self, model: Model, texts: Sequence[Input], truncate: bool) -> list[Encoded]:
        def encode() -> list[Encoded]:
            return [self._row(model, place, text, truncate) for place, text in enumerate(texts)]

        sizes = [characters(text) for text in texts]
        if sum(sizes) <= SHORT_CHARACTERS:
            return encode()
        limit = model.classifier.manifest.text_limit.tokens
        kept = sum(min(size // CHARACTERS_PER_TOKEN, limit) for size in sizes)
        self._check_room(model, kept)
        self._encoding += kept
        try:
            return await asyncio.get_running_loop().run_in_executor(self._encoders, encode)
        finally:
            self._encoding -= kept

    def _row(self, model: Model, place: int, text: Input, truncate: bool) -> Encoded:
        try:
            row = model.classifier.encode(text, bounded=True)
        except InputError as error:
            kind = "text_too_long" if isinstance(error, NoRoomError) else "bad_input"
            raise Refusal(kind, f"text {place}: {error}") from None
        if row.truncated and not truncate:
            raise _too_long(model, place)
        return row

    def _check_lengths(self, model: Model, texts: Sequence[Input]) -> None:
        """Refuse a text that is over the limit whatever its tokens are, before it is tokenised."""
        for place, text in enumerate(texts):
            if characters(text) > model.classifier.most_characters:
                raise _too_long(model, place)

    def _check_room(self, model: Model, tokens: int) -> None:
        """Refuse `tokens` more tokens if the queue has no room for them. Texts that are being
        tokenised count by what will be kept of them."""
        sharing = [model] if self._turns is None else list(self.models.values())
        waiting = sum(it.batcher.tokens for it in sharing) + self._encoding
        most = self.settings.max_queue
        if waiting and waiting + tokens > most:
            raise Refusal(
                "queue_full", f"{waiting} tokens wait, of {most} at most; try again later", 1
            )

    def close(self) -> None:
        """Answer the requests that were accepted, and end the threads."""
        for model in (*self.models.values(), *self._retired):
            model.batcher.close()
        self._encoders.shutdown()


def _too_long(model: Model, place: int) -> Refusal:
    manifest = model.classifier.manifest
    limit, several = manifest.text_limit.tokens, len(manifest.prompt.places) > 1
    whole, cut = (", all its fields together,", manifest.cut_field) if several else ("", "it")
    return Refusal(
        "text_too_long",
        f"text {place}{whole} has more than {limit} tokens; shorten it, or send truncate: true to "
        f"have {cut} cut",
    )
