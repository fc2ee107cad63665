"""A job: it classifies the texts of files into one file of results."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimexport_runtime import __version__
from trimexport_runtime.backbone import manifest_of_either
from trimexport_runtime.backbone_manifest import BACKBONE
from trimexport_runtime.backends import DEFAULT
from trimexport_runtime.batching import SMALL_BYTES
from trimexport_runtime.bundle import MANIFEST
from trimexport_runtime.choice import choose
from trimexport_runtime.columns import Column, columns_for
from trimexport_runtime.cores import usable_cores
from trimexport_runtime.errors import InputError
from trimexport_runtime.files import Source, read_file, sources
from trimexport_runtime.integrity import sha256_of
from trimexport_runtime.progress import Progress

from .folder import Folder
from .formats import format_of
from .local import in_processes, in_this_process
from .parts import PART_CHARACTERS, PART_RECORDS, Tally, parts_of
from .scorer import DonePart, ScorerOptions

MUCH_INPUT = 1 << 20  # bytes of files, from which on starting processes pays


@dataclass(frozen=True)
class Job:
    """The options of a job.

    Args:
        texts: a file or a directory of files (see `files.sources`).
        output: .parquet, .jsonl or .csv.
        task: a task pack, where the bundle is a backbone.
        column, columns: the columns of the texts, as in `columns_for`.
        engine: `local`, or `ray`.
        workers: processes; None is one, for much input and a small model one for each core that
            this process may use, and with `ray` as many as there are cores for.
        threads: threads of each; None shares the cores among them.
        resume: go on with the parts that are done.
        force: begin anew, and replace the output.
    """

    bundle: Path
    texts: Path
    output: Path
    task: Path | None = None
    column: str | None = None
    columns: Mapping[str, str] | None = None
    variant: str | None = None
    backend: str = DEFAULT
    engine: str = "local"
    workers: int | None = None
    threads: int | None = None
    resume: bool = False
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """The tally of the whole output, and how many of its records this run scored."""

    tally: Tally
    scored: int


def run(job: Job, progress: Progress) -> Outcome | None:
    """Run a job. Without a job to go on with, and with the output there, `resume` returns None.

    An error that ends the job has a note of how many parts are kept for `--resume`.

    Raises:
        InputError: no such texts, an output that cannot be written or is there already, an
            unfinished job where `resume` is not given, or another job's.
        BundleError: as `Classifier.load`.
        BackendError: as `Classifier.load`, or a worker died.
    """
    form, folder = format_of(job.output), Folder(job.output)
    manifest = manifest_of_either(job.bundle, job.task)
    columns = columns_for(manifest.prompt.places, job.column, job.columns)
    files = _inputs(job, columns)
    variant = choose(manifest, job.variant, job.backend)
    if _is_whole(job, folder):
        return None
    if job.engine == "local" and job.workers is None:
        job = replace(job, workers=_processes(variant.bytes, files))
    try:
        folder.open(_identity(job, variant.name, files, columns), anew=job.force)
        before = folder.total()
        progress.begin_at(before.records)
        total = _score(job, files, columns, folder, variant.name, progress)
        folder.join(form, manifest)
    except BaseException as error:
        if kept := folder.close():
            error.add_note(f"{kept:,} parts are done and kept; --resume goes on with them")
        raise
    return Outcome(total, total.records - before.records)


def _score(
    job: Job,
    files: Sequence[Source],
    columns: Sequence[Column],
    folder: Folder,
    variant: str,
    progress: Progress,
) -> Tally:
    """Score the parts that are not done, and return the tally of all parts."""
    done = folder.done()
    scored = _scored(job, files, columns, frozenset(done), _scorer_options(job, folder, variant))
    with closing(scored):  # before the folder is released, whatever happens between two parts
        for part in scored:
            done.add(part.name)
            progress.advance(part.tally.records)
    _check_whole(folder, done)
    return folder.total()


def _inputs(job: Job, columns: Sequence[Column]) -> list[Source]:
    """The files of texts, after a look that each can be read; the output is not one of them.

    Raises:
        InputError: there is no file of texts, or one cannot be read.
    """
    output = job.output.resolve()
    files = [source for source in sources(job.texts) if source.path.resolve() != output]
    if not files:
        raise InputError(f"{job.output} is where the texts are; choose another file with -o")
    for source in files:
        next(read_file(source.path, columns), None)
    return files


def _is_whole(job: Job, folder: Folder) -> bool:
    """Whether the output is there and no job is left; refuses to write over what is there."""
    if job.output.is_dir():
        raise InputError(f"{job.output} is a directory; name a file in it with -o")
    if job.force:
        return False
    if folder.exists and not job.resume:
        raise InputError(
            f"{folder.path} has a job that did not end; go on with --resume, or begin anew with "
            "--force"
        )
    if job.output.exists() and not folder.exists:
        if not job.resume:
            raise InputError(f"{job.output} is there already; replace it with --force")
        return True
    return False


def _identity(
    job: Job, variant: str, files: Sequence[Source], columns: Sequence[Column]
) -> dict[str, Any]:
    """What must be the same for a job to go on. The keys are the words of an error message."""
    stats = [(source.name, source.path.stat()) for source in files]
    return {
        "version of trimexport-runtime": __version__,
        "bundle": sha256_of(job.bundle / (MANIFEST if job.task is None else BACKBONE)),
        **({} if job.task is None else {"task": sha256_of(job.task)}),
        "variant": variant,
        "backend": job.backend,
        "column": [[column.field, column.name, column.needed] for column in columns],
        "input": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "size of parts": [PART_RECORDS, PART_CHARACTERS],
    }


def _scored(
    job: Job,
    files: Sequence[Source],
    columns: Sequence[Column],
    done: Set[str],
    options: ScorerOptions,
) -> Generator[DonePart, None, None]:
    """Score the parts that are not in `done`, and yield each when it is done."""
    if job.engine == "ray":
        from .cluster import in_cluster

        return in_cluster(files, columns, done, options, job.workers)
    left = (part for part in parts_of(files, columns) if part.name not in done)
    if job.workers is None or job.workers == 1:
        return in_this_process(left, options)
    return in_processes(left, options, job.workers)


def _check_whole(folder: Folder, done: Set[str]) -> None:
    """Refuse an output of which other nodes scored parts that are not in the folder here."""
    if missing := len(done - folder.done()):
        raise InputError(
            f"{missing} parts that were done are not in {folder.path}; with --engine ray the "
            "output's directory must be one that all nodes share"
        )


def _scorer_options(job: Job, folder: Folder, variant: str) -> ScorerOptions:
    """The scorer's options. Its paths are absolute: other nodes have another working directory."""
    bundle, output = job.bundle.resolve(), job.output.resolve()
    task = None if job.task is None else job.task.resolve()
    return ScorerOptions(
        bundle, output, folder.path.resolve(), task, variant, job.backend, _threads(job)
    )


def _processes(variant_bytes: int, files: Sequence[Source]) -> int:
    """How many processes are fastest. One with a large model keeps all cores busy, and a second
    would take the model's memory again."""
    much = sum(source.path.stat().st_size for source in files) >= MUCH_INPUT
    return usable_cores() if much and variant_bytes < SMALL_BYTES else 1


def _threads(job: Job) -> int | None:
    """Threads of each process: an equal share of the cores, where there are several."""
    if job.threads is not None or job.engine != "local" or job.workers in (None, 1):
        return job.threads
    assert job.workers is not None
    return max(1, usable_cores() // job.workers)
