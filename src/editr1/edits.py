"""What is edited, and what came out: the first half of `schema`, by which everything else imports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from editr1.records import stable_id

if TYPE_CHECKING:
    from PIL import Image

Category = Literal["follow", "keep", "quality"]
CATEGORIES: tuple[Category, ...] = ("follow", "keep", "quality")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image, named by the SHA-256 of its encoded bytes."""

    digest: str
    """64 hex digits."""
    suffix: str = "png"
    """File ending without the dot: png, jpg, webp."""
    width: int = 0
    """Pixels; 0 when not known."""
    height: int = 0
    """Pixels; 0 when not known."""


@dataclass(frozen=True, slots=True)
class Principle:
    """One yes/no question about an edit.

    >>> Principle("Is the sky purple?", "follow").category
    'follow'
    """

    question: str
    category: Category

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise ValueError(f"unknown principle category {self.category!r}, expected one of {', '.join(CATEGORIES)}")


Source: TypeAlias = "Image.Image | tuple[Image.Image, ...]"
"""The source picture of an edit in memory, or several for editors that read several: the first gives the edit its shape."""


P = TypeVar("P")


def pictures_of(source: P | tuple[P, ...]) -> tuple[P, ...]:
    """All source pictures of an edit, in their order."""
    return source if isinstance(source, tuple) else (source,)


def source_of(pictures: Sequence[P]) -> P | tuple[P, ...]:
    """The inverse of `pictures_of`: a picture alone, or several as a tuple."""
    return tuple(pictures) if len(pictures) > 1 else pictures[0]


@dataclass(frozen=True, slots=True)
class EditTask:
    """The conditioning context c = (x_ref, q)."""

    id: str
    """Content hash of sources and instruction, 16 hex digits."""
    source: ImageRef
    instruction: str
    kind: str = ""
    """Edit category, such as GEdit's `background_change`; empty when unknown."""
    difficulty: Literal["random", "hard"] = "random"
    further: tuple[ImageRef, ...] = ()
    """Source pictures beside `source`, which is the first, in the order in which an instruction counts them."""

    @property
    def sources(self) -> tuple[ImageRef, ...]:
        """All source pictures."""
        return (self.source, *self.further)

    @staticmethod
    def make(
        source: ImageRef,
        instruction: str,
        kind: str = "",
        difficulty: Literal["random", "hard"] = "random",
        further: tuple[ImageRef, ...] = (),
    ) -> EditTask:
        """A task whose id is derived from its content."""
        digests = (ref.digest for ref in (source, *further))
        return EditTask(stable_id(*digests, instruction), source, instruction, kind, difficulty, further)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An edited image x_edit of one task."""

    id: str
    """Content hash of (task_id, editor, seed), 16 hex digits."""
    task_id: str
    image: ImageRef
    editor: str
    seed: int

    @staticmethod
    def make(task_id: str, image: ImageRef, editor: str, seed: int) -> Candidate:
        """A candidate whose id is derived from who made it, so that a retry is idempotent."""
        return Candidate(stable_id(task_id, editor, str(seed)), task_id, image, editor, seed)


@dataclass(frozen=True, slots=True)
class TaskPrinciples:
    """A task with its decomposition P = {p_k}: one row of `02_principles`."""

    task: EditTask
    principles: tuple[Principle, ...]
    model: str = ""
    num_repairs: int = 0
    """Calls that were needed beyond the first before the answer was valid."""


@dataclass(frozen=True, slots=True)
class Quadruple:
    """What the RRM reads: (x_edit, x_ref, q, P)."""

    task: EditTask
    principles: tuple[Principle, ...]
    candidate: Candidate

    @property
    def id(self) -> str:
        """The candidate's id: a candidate belongs to one task and a task has one decomposition in a run."""
        return self.candidate.id
