"""From the manifest's JSON to dataclasses, with every value's type checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import PureWindowsPath
from typing import Any, TypeVar

T = TypeVar("T")


def is_int(value: object) -> bool:
    """Whether JSON says a whole number; Python takes its true and false for some."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: object) -> bool:
    return isinstance(value, float) or is_int(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": is_int,
    "int | None": lambda value: value is None or is_int(value),
    "float": _is_float,
    "float | None": lambda value: value is None or _is_float(value),
    "tuple[str, ...]": lambda value: (
        isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    ),
    "tuple[int, ...]": lambda value: (
        isinstance(value, tuple) and all(is_int(item) for item in value)
    ),
    "tuple[float, ...]": lambda value: (
        isinstance(value, tuple) and all(_is_float(item) for item in value)
    ),
    "tuple[tuple[int, ...], ...]": lambda value: (
        isinstance(value, tuple)
        and all(isinstance(item, tuple) and all(map(is_int, item)) for item in value)
    ),
    "Mapping[str, str]": lambda value: isinstance(value, dict),
    "Mapping[str, int]": lambda value: (
        isinstance(value, dict) and all(is_int(item) for item in value.values())
    ),
    "Mapping[str, float] | None": lambda value: (
        value is None
        or (isinstance(value, dict) and all(_is_float(item) for item in value.values()))
    ),
}


def known(kind: type[T], raw: Any, **converted: Any) -> T:
    """Make a dataclass from the keys of `raw` that it has, `converted` taking precedence.

    Raises:
        TypeError: a key is missing or its value has another type than the field.
    """
    if not isinstance(raw, dict):
        raise TypeError(f"a {kind.__name__} is a {type(raw).__name__}, not an object")
    values = {}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name in converted or item.name not in raw:
            continue
        value = raw[item.name]
        value = _frozen(value)
        if not _CHECKS[str(item.type)](value):
            raise TypeError(f"{kind.__name__}.{item.name} is {value!r}, not {item.type}")
        values[item.name] = value
    return kind(**values, **converted)


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def inside(path: str) -> str:
    """`path`, if it stays within the bundle on every platform."""
    pure = PureWindowsPath(path)  # it knows both separators and drives
    if pure.anchor or not pure.parts or ".." in pure.parts:
        raise ValueError(f'the path "{path}" is not one inside the bundle')
    return path
