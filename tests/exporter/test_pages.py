"""HTML pages: text in them is escaped, and a template asks for nothing that is not given."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from trimexport.pages import render_page


def _template(tmp_path: Path, source: str) -> Path:
    path = tmp_path / "page.html.jinja"
    path.write_text(source, encoding="utf-8")
    return path


def test_strings_are_text(tmp_path: Path) -> None:
    template = _template(tmp_path, '<p title="{{ text }}">{{ text }}</p>')
    page = render_page(template, text='<b> & "b" &amp;')
    escaped = "&lt;b&gt; &amp; &#34;b&#34; &amp;amp;"
    assert page == f'<p title="{escaped}">{escaped}</p>'


def test_a_name_that_is_not_given(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        render_page(_template(tmp_path, "<h1>{{ title }}</h1>"), text="there")
