"""TensorRT's Python bindings, of version 10 and 11: getting hold of them, and what they log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST, NEWEST = 10, 11


def load() -> None:
    """Import the bindings.

    Raises:
        BackendError: they are not here, lack the library, or are of a version that is not known.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise BackendError(
            f"TensorRT is not here ({error}); install `trimexport-runtime[tensorrt]`, or on Jetson "
            "the TensorRT of its JetPack"
        ) from None
    if not OLDEST <= major() <= NEWEST:
        raise BackendError(
            f"TensorRT {tensorrt.__version__} is installed, this release knows {OLDEST} and "
            f"{NEWEST}; install one of these"
        )


def version() -> str:
    """TensorRT's version, such as 10.13.3.9."""
    import tensorrt

    return tensorrt.__version__


def major() -> int:
    """The first number of the version."""
    return int(version().partition(".")[0])


def make_log() -> tuple[trt.ILogger, list[str]]:
    """A logger, and the list into which it writes the errors that TensorRT reports."""
    import tensorrt

    errors: list[str] = []
    kinds = (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR)

    class Log(tensorrt.ILogger):
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in kinds:
                errors.append(msg.strip())

    return Log(), errors


def reason(errors: list[str]) -> str:
    """What was logged, in one line."""
    return "; ".join(errors[-3:]) or "TensorRT logs no reason"
