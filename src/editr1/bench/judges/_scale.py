"""The scale of a judge, and the one place where its numbers become ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editr1.errors import ConfigError
from editr1.schema import MAX_SCORE, FailureCode


@dataclass(frozen=True, slots=True)
class Scale:
    """Both ends of the numbers that a judge gives; higher is better."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a scale from {self.low:g} to {self.high:g} is none; expected the lower end first")

    def convert(self, values: Sequence[float]) -> tuple[float, ...] | FailureCode:
        """The values on 0 to 10; OUT_OF_RANGE when one lies outside: it is not clamped, for it was no answer to the question.

        >>> Scale(0, 25).convert((24, 22)), Scale(1, 4).convert((2.5,)), Scale(0, 25).convert((26, 20))
        ((9.6, 8.8), (5.0,), 'OUT_OF_RANGE')
        """
        if not all(self.low <= value <= self.high for value in values):
            return "OUT_OF_RANGE"
        return tuple((value - self.low) * MAX_SCORE / (self.high - self.low) for value in values)
