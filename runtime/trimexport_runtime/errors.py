"""What can go wrong on the device.

    TrimexportRuntimeError
    |- BundleError            the bundle cannot be read or is not what it says it is
    |  |- IntegrityError      a file is missing, truncated or altered
    |  '- VersionError        the bundle's format is newer than this runtime
    |- InputError             a text, or the file of texts, cannot be classified
    |  '- ColumnError         a file has no such column of texts
    '- BackendError           the backend, or the variant, cannot run here

Every message says what is wrong with the value, what was allowed, and the next step.
"""

from __future__ import annotations


class TrimexportRuntimeError(Exception):
    """The base of every error this package raises on purpose."""


class BundleError(TrimexportRuntimeError):
    """The bundle cannot be read or is not what it says it is."""


class IntegrityError(BundleError):
    """A file of the bundle is missing, truncated or altered."""


class VersionError(BundleError):
    """The bundle's format is newer than this runtime understands."""


class InputError(TrimexportRuntimeError):
    """A text, or the file of texts, cannot be classified."""


class ColumnError(InputError):
    """A file has no such column of texts. `fact` says so, and the second argument what to do; who
    has another option for the column, or none, says something else instead. `column` is the one
    that was asked for."""

    def __init__(self, fact: str, advice: str, column: str) -> None:
        super().__init__(fact, advice, column)
        self.fact, self.advice, self.column = fact, advice, column

    def __str__(self) -> str:
        return f"{self.fact}; {self.advice}"


class BackendError(TrimexportRuntimeError):
    """The backend, or the variant, cannot run on this device."""
