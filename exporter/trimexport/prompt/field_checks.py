"""What a spec asks of a prompt's fields, refused before a model is looked at."""

from __future__ import annotations

from trimexport.errors import SpecError
from trimexport.spec import BuildSpec, parse_truncate
from trimexport_runtime.questions import FIELD

from .questions import check_question_field
from .template import PromptTemplate


def check_fields(template: PromptTemplate, spec: BuildSpec) -> None:
    """Raise SpecError for what goes with one field alone, for a field to cut that is none, and for
    questions that have no place behind the text."""
    check_question_field(template, spec)
    names = [field.name for field in template.fields if not spec.questions or field.name != FIELD]
    if spec.few_shot is not None and len(names) > 1:
        raise SpecError(
            f"--few-shot writes examples of a prompt with one field, and this one has "
            f"{', '.join(names)}; drop it and write the examples into the prompt"
        )
    cut, _ = parse_truncate(spec.truncate)
    if cut is not None and cut not in names:
        raise SpecError(
            f'truncate names "{spec.truncate}", and the prompt has no field "{cut}"; give end, '
            f"start, or one of {', '.join(names)}, with :start behind it to cut its start"
        )
