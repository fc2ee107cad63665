"""TensorRT's Python bindings, of version 10 and 11: how they are loaded, what they log, and how a
build that takes minutes is interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, SupportsInt, TypeVar

from .errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST, NEWEST = 10, 11

T = TypeVar("T")


def load() -> None:
    """Import the bindings.

    Raises:
        BackendError: the bindings or the library are not here, or their version is not known.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
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


def make(what: str, maker: Callable[[], T], errors: list[str]) -> T:
    """Make one of TensorRT's objects, which messages call `what`.

    Raises:
        BackendError: the library gives no such object; the bindings raise a TypeError then.
    """
    try:
        made = maker()
    except (TypeError, RuntimeError):
        made = None
    if made is None:
        raise BackendError(
            f"TensorRT gives no {what} ({reason(errors)}); check the GPU, its driver and its free "
            "memory with nvidia-smi"
        )
    return made


def reason(errors: list[str]) -> str:
    """The last errors that were logged, in one line."""
    return "; ".join(errors[-3:]) or "TensorRT logs no reason"


@contextlib.contextmanager
def interruptible(config: trt.IBuilderConfig) -> Iterator[None]:
    """Let Ctrl-C end the build of an engine in the block, at the build's next step.

    The bindings lose exceptions that are raised while they run, so KeyboardInterrupt is raised
    after the block.
    """
    import tensorrt

    received: list[int] = []

    class Monitor(tensorrt.IProgressMonitor):
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: SupportsInt) -> None:
            pass

        def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
            return not received

        def phase_finish(self, phase_name: str) -> None:
            pass

    config.progress_monitor = Monitor()
    if threading.current_thread() is not threading.main_thread():  # signals belong to it
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            raise KeyboardInterrupt
