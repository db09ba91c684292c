"""Is anybody there, and does it answer the question? Found out before weights are loaded, pictures made, or a whole table asked about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from editr1.errors import UnscoredError

_INSIDE = ("vlm", "decomposer", "model")
"""Attributes by which a judge holds the models that it asks."""
NUM_FIRST = 8  # ours: a judge that answers none of so many answers nothing
MAX_WORDS = 120  # of an answer in a message


def check_alive(*judges: Any) -> None:
    """Calls `check` of every part that has one, as `vlm.openai_api` does; a model on this machine is alive when it is loaded.

    Raises BackendError, which says what answered, where nobody can be asked.
    """
    for check in {id(part): part.check for judge in judges for part in _parts(judge)}.values():
        check()


def check_answers(reasons: Sequence[str | None], what: str, said: str = "", cure: str = "") -> None:
    """Raises UnscoredError where the first NUM_FIRST answers all say nothing: the rest would be asked for nothing.

    reasons: why each says nothing, None = it says something; fewer than NUM_FIRST are all there is, and whoever asked looks at them.
    what: names the rows. said: the words of one. cure: a last clause.
    """
    if len(reasons) < NUM_FIRST or None in reasons:
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())
    words = f", the first answer is {' '.join(said.split())[:MAX_WORDS]!r}" if said.strip() else ""
    raise UnscoredError(
        f"none of the first {len(reasons)} {what} got a readable answer ({counts}{words}); nothing else was asked: "
        f"is this the model, and the prompt, of this judge?{cure and ' '}{cure}"
    )


def _parts(judge: Any) -> Iterator[Any]:
    if callable(getattr(judge, "check", None)):
        yield judge
    elif type(judge).__module__.startswith("editr1."):  # a judge of one's own may name anything `model`
        for name in _INSIDE:
            yield from _parts(getattr(judge, name, None))
