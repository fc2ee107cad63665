"""Values out of JSON, checked against type hints, and what all manifests have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path, PureWindowsPath
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .errors import BundleError, VersionError

_SHOWN = 60  # characters of a value in a message
_SCALARS: Mapping[Any, tuple[str, tuple[type, ...]]] = {
    str: ("a string", (str,)),
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (float, int)),
}


def read(hint: Any, value: Any, path: str = "") -> Any:
    """The value of type `hint` that `value` stands for, as `json.loads` gave it.

    Keys that a dataclass does not have are ignored, and keys whose field has a default may be
    missing. Lists become tuples; a whole number stays one where the hint is float.

    Args:
        hint: str, bool, int, float, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, or a dataclass
            whose fields have such hints.
        path: where the value stands in its document, such as `variants[0].opset`.

    Raises:
        ValueError: a key is missing or a value has another type; it names the path.
        TypeError: the hint is none of these, which is a mistake in the program.
    """
    if hint in _SCALARS:
        wanted, kinds = _SCALARS[hint]
        return _finite(_checked(value, path, wanted, *kinds), path)
    if is_dataclass(hint):
        return _dataclass(hint, _checked(value, path, "an object", dict), path)
    match get_origin(hint), get_args(hint):
        case origin, (inner, none) if origin in (Union, UnionType) and none is NoneType:
            return None if value is None else read(inner, value, path)
        case origin, (inner, rest) if origin is tuple and rest is Ellipsis:
            items = _checked(value, path, "a list", list)
            return tuple(read(inner, item, f"{path}[{at}]") for at, item in enumerate(items))
        case origin, (key, inner) if origin is Mapping and key is str:
            pairs = _checked(value, path, "an object", dict).items()
            return {
                name: read(inner, item, f"{path}[{json.dumps(name, allow_nan=False)}]")
                for name, item in pairs
            }
    raise TypeError(f"no values of the type {hint} are read from JSON ({path})")


def _dataclass(kind: Any, raw: dict[str, Any], path: str) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for item in fields(kind):
        place = f"{path}.{item.name}" if path else item.name
        if item.name in raw:
            values[item.name] = read(hints[item.name], raw[item.name], place)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"no '{place}'")
    return kind(**values)


def _finite(value: Any, path: str) -> Any:
    """`value`, unless it is NaN or an infinity, which Python's reader of JSON takes."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}, not a finite number")
    return value


def _checked(value: Any, path: str, wanted: str, *kinds: type) -> Any:
    """`value`, if its type is one of `kinds`. A bool is no int here, though Python's is one."""
    if type(value) in kinds:
        return value
    text = str(value)
    if not isinstance(value, float):
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    raise ValueError(f"{path} is {text}, not {wanted}")


def check_format(
    raw: Any,
    path: Path,
    newest: int,
    hint: str,
    *,
    what: str = "a trimexport manifest",
    kind: type[BundleError] = BundleError,
) -> None:
    """Refuse a JSON value that says no `format_version`, or one after `newest`.

    Args:
        hint: what to do about a value that says none.
        what: what it is not then.
        kind: the error that is raised of it.

    Raises:
        BundleError: it says none.
        VersionError: it is newer than this runtime.
    """
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if type(version) is not int:  # a bool is an instance of int
        raise kind(f"{path} has no format_version, so it is not {what}; {hint}")
    if version > newest:
        raise VersionError(
            f"{path} has format_version {version}, this runtime reads up to {newest}; "
            "upgrade with `pip install -U trimexport-runtime`"
        )


def check_inside(path: str, whole: str = "bundle") -> None:
    """Refuse a path that leaves a bundle, or another whole, on some platform.

    Raises:
        ValueError: it does.
    """
    pure = PureWindowsPath(path)  # it knows both separators and drives
    if pure.anchor or not pure.parts or ".." in pure.parts:
        raise ValueError(f'the path "{path}" is not one inside the {whole}')
