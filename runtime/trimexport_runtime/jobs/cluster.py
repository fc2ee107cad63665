"""Parts scored by a Ray cluster, through Ray Data: files are read by tasks, a part is a row, and
actors score them, each with a model of its own.

An actor or a node that dies costs the parts it had: Ray gives them to another, and a part that was
kept before is kept again, the same. Bundle, texts and output must be at the same path on every
node, and `trimexport-runtime[ray]` installed there.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Generator, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimexport_runtime.columns import Column
from trimexport_runtime.errors import BackendError, TrimexportRuntimeError
from trimexport_runtime.files import Source

from .parts import parts_in
from .scorer import DonePart, Scorer, ScorerOptions

_BLOCK_BYTES = 1 << 17  # of parts that an actor is given at once; few, so that no actor is idle


def in_cluster(
    files: Sequence[Source],
    columns: Sequence[Column],
    done: Set[str],
    options: ScorerOptions,
    workers: int | None,
) -> Generator[DonePart, None, None]:
    """Score the parts of files that are not in `done`, and yield each when it is done.

    Where the process has a session of Ray already, that is used, and stays.

    Args:
        options: its `threads` are the cores of an actor; None is all cores of the smallest node.
        workers: the number of actors; None is as many as there are cores for.

    Raises:
        BackendError: Ray is not installed, or the cluster failed.
        TrimexportRuntimeError: what reading or scoring raised.
    """
    with _session() as ray, _settings(ray):
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            cores, actors = _share(nodes, options.threads)
            placed = replace(options, threads=cores)
            yield from _scored(ray, files, columns, done, placed, workers or actors)
        except ray.exceptions.RayError as error:
            raise _cause(error) from None


def _scored(
    ray: Any,
    files: Sequence[Source],
    columns: Sequence[Column],
    done: Set[str],
    options: ScorerOptions,
    actors: int,
) -> Iterator[DonePart]:
    items = [
        {"place": place, "name": source.name, "path": str(source.path.resolve())}
        for place, source in enumerate(files)
    ]
    rows = ray.data.from_items(items, override_num_blocks=len(items))
    rows = rows.map_batches(
        _read, batch_size=1, num_cpus=0, fn_kwargs={"columns": columns, "done": done}
    )
    rows = rows.map(
        _Actor,
        fn_constructor_args=(options,),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=options.threads,
    )
    for row in rows.iter_rows():
        yield pickle.loads(row["done"])


class _Actor:
    """Scores pickled parts with a model of its own. Ray Data makes one in each actor."""

    def __init__(self, options: ScorerOptions) -> None:
        self._scorer = Scorer(options)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"done": pickle.dumps(self._scorer.score(pickle.loads(row["part"])))}


def _read(
    batch: dict[str, Any], columns: Sequence[Column], done: Set[str]
) -> Iterator[dict[str, list[bytes]]]:
    """The pickled parts of one file that are not in `done`, as they are asked for."""
    place, name, path = int(batch["place"][0]), str(batch["name"][0]), Path(str(batch["path"][0]))
    for part in parts_in(Source(name, path), place, columns):
        if part.name not in done:
            yield {"part": [pickle.dumps(part)]}


@contextmanager
def _session() -> Iterator[Any]:
    """The package `ray` with a session: the process's own, or else one of the cluster that
    RAY_ADDRESS names, of the one that runs here, or of a new one, which ends with the block.

    Raises:
        BackendError: Ray is not installed, or no cluster can be used.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError(
            f"Ray is not installed ({error}); install `trimexport-runtime[ray]`"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"no Ray cluster can be used ({error}); start one with `ray start --head`, or name one "
            "in RAY_ADDRESS"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _settings(ray: Any) -> Iterator[None]:
    """What Ray Data is told for the time of a job."""
    logger, context = logging.getLogger("ray.data"), ray.data.DataContext.get_current()
    before = logger.level, context.enable_progress_bars, context.target_max_block_size
    logger.setLevel(logging.ERROR)
    context.enable_progress_bars, context.target_max_block_size = False, _BLOCK_BYTES
    try:
        yield
    finally:
        context.enable_progress_bars, context.target_max_block_size = before[1:]
        logger.setLevel(before[0])


def _share(nodes: Sequence[dict[str, float]], threads: int | None) -> tuple[int, int]:
    """How many cores each actor gets, and how many actors the nodes have cores for.

    Raises:
        BackendError: no node has cores enough for one.
    """
    each = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    cores = threads or min(each, default=1)
    actors = sum(count // cores for count in each)
    if not actors:
        raise BackendError(
            f"no node of the Ray cluster has {cores} cores (they have: {each}); give fewer "
            "--threads"
        )
    return cores, actors


def _cause(error: BaseException) -> TrimexportRuntimeError:
    """The runtime's own error that Ray's error wraps, or a `BackendError` about Ray's."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TrimexportRuntimeError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return BackendError(f"the Ray cluster failed: {error}; --resume goes on with what is done")
