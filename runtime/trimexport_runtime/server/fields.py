"""The fields of a request's JSON object: which there may be, and those that are true or false; and
the tensors of a prompt's fields and of a bundle's answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from trimexport_runtime.manifest import Field, Manifest
from trimexport_runtime.questions import views
from trimexport_runtime.render_questions import question_keys

from .refusals import Refusal, shown


def tensors(fields: Sequence[Field]) -> dict[str, Field]:
    """The fields of a prompt by the names of their tensors in the Open Inference Protocol: `text`
    where there is one, else their own."""
    return {"text" if len(fields) == 1 else field.name: field for field in fields}


def output_names(manifest: Manifest) -> list[tuple[str, str]]:
    """The names of the tensors of the label and of the labels' probabilities in that protocol; of
    several questions two for each."""
    if not manifest.questions:
        return [("label", "probabilities")]
    return question_keys([it.name for it in manifest.questions], (), "_probabilities")


def outputs(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """The names of all of these, with the size of a row of numbers; labels have none."""
    found: dict[str, tuple[int, ...]] = {}
    for (label, share), view in zip(output_names(manifest), views(manifest), strict=True):
        found |= {label: (), share: (len(view.labels),)}
    return found


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


def flag_or(body: dict[str, Any], name: str, default: bool) -> bool:
    """A field that is true or false, and `default` where it lacks or is null.

    Raises:
        Refusal: it is something else.
    """
    return default if body.get(name) is None else flag(body, name)


def text(body: dict[str, Any], name: str) -> str:
    """A field that is a string.

    Raises:
        Refusal: it lacks, or is something else.
    """
    if name not in body:
        raise Refusal("bad_input", f"{name} is missing; it must be a string")
    if not isinstance(body[name], str):
        raise Refusal("bad_input", f"{name} is {shown(body[name])}; it must be a string")
    return str(body[name])


def text_or_none(body: dict[str, Any], name: str) -> str | None:
    """A field that is a string, and None where it lacks or is null.

    Raises:
        Refusal: it is something else.
    """
    return None if body.get(name) is None else text(body, name)


def count_or_none(body: dict[str, Any], name: str) -> int | None:
    """A field that is a number from 1 on, and None where it lacks or is null.

    Raises:
        Refusal: it is something else.
    """
    value = body.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise Refusal(
            "bad_input", f"{name} is {shown(value)}; it must be 1 or more, or left out for all"
        )
    return value
