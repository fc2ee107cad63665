"""What this machine's processor has for integer matrix products, as far as the system tells, and
whether int8 is guarded against their overflow.

On x64 without VNNI ONNX Runtime adds two products of an unsigned code and a signed weight in 16
bits, which may not hold them. The guard lets it make the weights unsigned when it loads them: such
products are exact everywhere, and take two to three times as long as with VNNI.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from .errors import BackendError

INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
"""What decides how fast integer and half-precision matrix products are."""

GUARD = "TRIMEXPORT_INT8_GUARD"
"""The environment variable that forces the guard `on` or `off`; unset, the processor decides."""

_FORCED = {"on": True, "off": False}
_X64 = frozenset(("x86_64", "amd64"))  # as systems call it, in lower case
_EXACT = frozenset(("avx_vnni", "avx512_vnni", "amx_int8"))


def guards_int8() -> bool:
    """Whether int8 is guarded here.

    Raises:
        BackendError: the environment variable is neither `on` nor `off`.
    """
    forced = forced_guard()
    return is_x64() and (not adds_exactly(instructions()) if forced is None else forced)


def forced_guard() -> bool | None:
    """What the environment variable says; None where it is not set, or empty.

    Raises:
        BackendError: it is neither `on` nor `off`.
    """
    value = os.environ.get(GUARD)
    if not value:
        return None
    if value not in _FORCED:
        raise BackendError(
            f'the environment variable {GUARD} is "{value}"; set it to on or off, or unset it and '
            "the processor decides"
        )
    return _FORCED[value]


def adds_exactly(found: Sequence[str] | None) -> bool:
    """Whether unsigned codes times signed weights add up without overflow: on x64 with VNNI or AMX
    (`found` has the processor's instructions; None, unknown, counts as without), elsewhere always.
    """
    return not is_x64() or (found is not None and not _EXACT.isdisjoint(found))


def is_x64() -> bool:
    """Whether this is an x64 processor, the only kind for which ONNX Runtime has the guard."""
    return platform.machine().lower() in _X64


def facts() -> dict[str, str]:
    """What Linux says of the first processor, names in lower case; nothing elsewhere."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def instructions() -> tuple[str, ...] | None:
    """Those of `INSTRUCTIONS` that the processor has; None where the system does not tell (it does
    on Linux)."""
    known = facts()
    has = known.get("flags", known.get("features"))  # as x86 and Arm call it
    return None if has is None else tuple(it for it in INSTRUCTIONS if it in has.split())
