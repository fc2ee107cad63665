"""The errors of the exporter, one tree.

    TrimexportError
    |- SpecError              labels, prompt, verbalizers or a recipe that cannot be built
    |- CheckpointError        the model's files are missing, damaged or cannot be read
    |  |- UnsupportedError    the model is whole, but of a kind that is not supported
    |  '- HubError            the model hub refuses, or cannot be reached
    |- ExportError            the traced graph is not what the next stage requires
    |- OutputError            the bundle cannot be written where it was asked for
    |- ParityError            a variant does not answer as the untrimmed model does
    |  '- PartialBuildError   the bundle holds the other variants (in `pipeline`)
    |- BenchError             a subject of a measurement cannot run, or ended by itself
    '- EvaluationError        a library that evaluation needs is not installed

Every message says what is wrong with the value, what was allowed, and the next step.
"""

from __future__ import annotations


class TrimexportError(Exception):
    """The base of every error this package raises on purpose."""


class SpecError(TrimexportError):
    """Labels, prompt, verbalizers or a recipe that cannot be built."""


class CheckpointError(TrimexportError):
    """The model's files are missing, damaged or cannot be read."""


class UnsupportedError(CheckpointError):
    """The model is whole, but of a kind that is not supported."""


class HubError(CheckpointError):
    """The model hub refuses, or cannot be reached."""


class ExportError(TrimexportError):
    """The traced graph is not what the next stage requires."""


class OutputError(TrimexportError):
    """The bundle cannot be written where it was asked for."""


class ParityError(TrimexportError):
    """A variant does not answer as the untrimmed model does."""


class BenchError(TrimexportError):
    """A subject of a measurement cannot run, or ended by itself."""


class EvaluationError(TrimexportError):
    """A library that evaluation needs is not installed."""


def reason_of(error: BaseException) -> str:
    """What another library's error says, for a message of ours: its first line, at most 200
    characters of it. Some show all of a wrong value."""
    said = str(error).strip() or repr(error)
    first = said.splitlines()[0]
    return first if len(first) <= 200 else first[:199] + "…"
