"""Writes docs/api.md: the public surface of the package, from signatures and docstrings.

python -m research.api_page
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import editr1

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """# The public surface

What `from editr1 import ...` gives; a name is loaded when it is first used, so `import editr1` loads no torch. Made from the docstrings by
`python -m research.api_page`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_entry(name, getattr(editr1, name)) for name in sorted(editr1.__all__, key=str.lower))])


def _entry(name: str, what: Any) -> str:
    parts = [f"## `{name}{_signature(what)}`", f"`{what.__module__}`", _text(what)]
    if inspect.isclass(what):
        own = [(key, value) for key, value in vars(what).items() if not key.startswith("_")]
        methods = [(key, _function(value)) for key, value in own if _function(value) is not None and _text(_function(value))]
        parts += [f"**`{key}{_signature(value)}`** {_text(value)}" for key, value in methods]
    return "\n\n".join(filter(None, parts)) + "\n"


def _function(value: Any) -> Any:
    """What a member runs, or None for what is no method or property."""
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return value if inspect.isfunction(value) else None


def _signature(what: Any) -> str:
    if inspect.isclass(what) and issubclass(what, Exception):
        return ""
    found = str(inspect.signature(what)) if not getattr(what, "_is_protocol", False) else ""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", found).removesuffix(" -> None")


def _text(what: Any) -> str:
    """The docstring, examples and argument lists as code."""
    text = inspect.cleandoc(what.__doc__ or "")
    if not text or text.startswith(f"{getattr(what, '__name__', '')}("):  # a dataclass without a docstring
        return ""
    first, _, rest = text.partition("\n\n")
    return f"{first}\n\n```text\n{rest}\n```" if rest else first


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
