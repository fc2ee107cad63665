"""HTML pages, from Jinja templates that lie beside the code that fills them."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: Path, **values: object) -> str:
    """The page that `template` makes of the values. Strings are text: `<` and `&` in them are
    escaped, unless the template marks a value as safe.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
