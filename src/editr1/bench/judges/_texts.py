"""Renders the prompts of `texts/`; an unknown variable is an error."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jinja2

_TEXTS = files("editr1.bench.judges") / "texts"


def render(name: str, **values: Any) -> str:
    """The prompt `name` with its values; text from outside stands as a JSON string, so that it reads as data."""
    quoted = {key: json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value for key, value in values.items()}
    template = jinja2.Template((_TEXTS / f"{name}.md").read_text("utf-8"), undefined=jinja2.StrictUndefined, trim_blocks=True)
    return template.render(**quoted)
