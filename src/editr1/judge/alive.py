"""Is anybody there? One cheap request to every endpoint behind a judge, before weights are loaded and pictures are made for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_INSIDE = ("vlm", "decomposer", "model")
"""Attributes by which a judge holds the models that it asks."""


def check_alive(*judges: Any) -> None:
    """Calls `check` of every part that has one, as `vlm.openai_api` does; a model on this machine is alive when it is loaded.

    Raises BackendError, which says what answered, where nobody can be asked.
    """
    for check in {id(part): part.check for judge in judges for part in _parts(judge)}.values():
        check()


def _parts(judge: Any) -> Iterator[Any]:
    if callable(getattr(judge, "check", None)):
        yield judge
    elif type(judge).__module__.startswith("editr1."):  # a judge of one's own may name anything `model`
        for name in _INSIDE:
            yield from _parts(getattr(judge, name, None))
