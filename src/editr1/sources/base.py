"""The protocol of a task source: an iterable of rows that is the same every time it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

Picture = Image.Image | bytes
"""A picture, or encoded bytes that have not been looked at."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One (x_ref, q) as its source gives it; whether the image is good is for the stage to find out."""

    load: Callable[[], Picture | tuple[Picture, ...]]
    """Gives a picture, or several where an edit has several sources; called for rows that were chosen only. Raises DataError."""
    instruction: str
    kind: str = ""
    """Edit category; empty when unknown."""
    origin: str = ""
    """Where the row came from (file and line), for messages about it."""
    difficulty: Literal["random", "hard"] = "random"
    """For sources that know it."""
    stamp: Callable[[], str] | None = None
    """Gives what changes when the picture's file does, such as its size and time, without opening it; None = compare the contents."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be a task; kept so that it is counted."""

    reason: str
    """`code: detail`."""
    origin: str = ""


class TaskSource(Protocol):
    """Iterates over its rows lazily, in an order that never changes. Objects with `image`, `instruction` and perhaps more of
    the fields of `SourceRow` will do."""

    def __iter__(self) -> Iterator[SourceRow | BadRow]: ...
