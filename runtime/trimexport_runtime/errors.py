"""The errors that this package raises on purpose.

    TrimexportRuntimeError
    |- BundleError            the bundle cannot be read or is not what it says it is
    |  |- IntegrityError      a file is missing, truncated or altered
    |  |- PackError           a task pack is damaged, or does not fit the backbone
    |  '- VersionError        the bundle's format is newer than this runtime
    |- InputError             a text, or the file of texts, cannot be classified
    |  |- ColumnError         a file has no such column of texts
    |  |- NoNumberError       the model's answer to a text is no finite number
    |  '- NoRoomError         the fields that are not cut are over the bundle's limit
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


class PackError(BundleError):
    """A task pack cannot be read, or does not fit the backbone."""


class VersionError(BundleError):
    """The bundle's format is newer than this runtime understands."""


class InputError(TrimexportRuntimeError):
    """A text, or the file of texts, cannot be classified."""


class ColumnError(InputError):
    """A file has no such column.

    `fact` says so, `advice` what to do, and `column` is the one that was asked for. A caller whose
    option for the column has another name takes the fact and gives advice of its own.
    """

    def __init__(self, fact: str, advice: str, column: str) -> None:
        super().__init__(fact, advice, column)
        self.fact, self.advice, self.column = fact, advice, column

    def __str__(self) -> str:
        return f"{self.fact}; {self.advice}"


class NoNumberError(InputError):
    """The model's answer to a text is no finite number, so there is no label for it."""


class NoRoomError(InputError):
    """The fields that are not cut leave no room for the one that is."""


class BackendError(TrimexportRuntimeError):
    """The backend, or the variant, cannot run on this device."""
