"""The fields of a request's JSON object: which there may be, and those that are true or false; and
the tensors of a prompt's fields."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from trimexport_runtime.manifest import Field

from .refusals import Refusal, shown


def tensors(fields: Sequence[Field]) -> dict[str, Field]:
    """The fields of a prompt by the names of their tensors in the Open Inference Protocol: `text`
    where there is one, else their own."""
    return {"text" if len(fields) == 1 else field.name: field for field in fields}


def check_fields(body: dict[str, Any], names: Collection[str], advice: str = "") -> None:
    """Refuse an object with a field that is none of `names`, so that nothing that is asked for goes
    by in silence. A field that is null or an empty object asks for nothing.

    Raises:
        Refusal: there is such a field.
    """
    for name, value in body.items():
        if name not in names and value is not None and value != {}:
            raise Refusal(
                "bad_input",
                f"there is no field {shown(name)} here; there are: {', '.join(names)}{advice}",
            )


def flag(body: dict[str, Any], name: str) -> bool:
    """A field that is true or false, and false where it lacks.

    Raises:
        Refusal: it is something else.
    """
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Refusal("bad_input", f"{name} is {shown(value)}; it must be true or false")
    return value
