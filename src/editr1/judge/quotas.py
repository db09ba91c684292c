"""How many principles of each category a decomposition has (paper, section 3.1: about 10 a task)."""

from __future__ import annotations

from dataclasses import dataclass

from editr1.schema import Category

Bounds = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Quotas:
    """Smallest and largest number of principles, a category. Defaults: paper, section 3.1."""

    follow: Bounds = (3, 4)
    keep: Bounds = (3, 4)
    quality: Bounds = (2, 3)

    def of(self, category: Category) -> Bounds:
        """The bounds of one category."""
        return {"follow": self.follow, "keep": self.keep, "quality": self.quality}[category]


DEFAULT_QUOTAS = Quotas()
