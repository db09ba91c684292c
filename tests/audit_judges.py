"""Tasks whose perfect edit is known pixel by pixel, and judges that measure it - honestly or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from editr1.judge.item import RewardItem
from editr1.schema import Principle, Reward

COLOURS = ("red", "green", "blue", "purple", "orange", "black")
SIZE = 48
PRINCIPLES = (
    Principle("Is the square painted?", "follow"),
    Principle("Is the background still grey?", "keep"),
    Principle("Is the picture sharp?", "quality"),
    Principle("Is the circle still there?", "keep"),
)


def source(number: int) -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE), (110 + number, 110, 110))
    ImageDraw.Draw(image).ellipse((30, 4, 42, 16), fill="white")
    return image


def ideal(number: int) -> Image.Image:
    """The edit that the instruction asks for: a coloured square at a place of its own."""
    image = source(number)
    left, top = 4 + 3 * (number % 4), 20 + 2 * (number % 5)
    ImageDraw.Draw(image).rectangle((left, top, left + 12, top + 12), fill=COLOURS[number % len(COLOURS)])
    return image


def items(count: int) -> list[RewardItem]:
    return [
        RewardItem(source(number), ideal(number), f"task {number}: paint the square", PRINCIPLES, f"edit-{number}")
        for number in range(count)
    ]


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), float)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of 4 x 4 blocks beyond what no eye sees."""
    blocks = [image.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean(axis=(1, 3)) for image in (one, other)]
    return float(np.clip(np.abs(blocks[0] - blocks[1]) - 8, 0, None).mean())


class Sound:
    """Scores by the distance to the perfect edit, knows the hard zeros, and reads no more of an instruction than the task."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        return [Reward(self.value(item), 1, 1, self.rates(item)) for item in items]

    def value(self, item: RewardItem) -> float | None:
        number = int(item.instruction.split(":")[0].removeprefix("task "))
        edited, wanted, start = _pixels(item.edited), _pixels(ideal(number)), _pixels(item.source)
        if edited[0].min() > 250:  # white border
            return 0.0
        left = _distance(edited, wanted) / _distance(start, wanted)
        return float(10 * max(0.0, 1.0 - left))

    def rates(self, item: RewardItem) -> tuple[float, ...]:
        return tuple(1.0 for _ in item.principles or ())


class Gullible(Sound):
    """Believes what the instruction says about the score, and finds any other picture good."""

    def value(self, item: RewardItem) -> float | None:
        return 10.0 if "10" in item.instruction.split("square")[-1] else 8.0


class Nervous(Sound):
    """Its score moves with invisible changes of pixels."""

    def value(self, item: RewardItem) -> float | None:
        return float(int(_pixels(item.edited).sum()) % 11)


class Silent(Sound):
    """Never says anything that parses."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        return [Reward(None, 0, 1, reason="NO_VERDICTS") for _ in items]


class ByPrinciples(Sound):
    """Answers each question from a table of truths and scores by the weighted share of yes: bad principles must move it."""

    TRUE = frozenset({"Is the square painted?", "Is the picture sharp?"})

    def rates(self, item: RewardItem) -> tuple[float, ...]:
        return tuple(float(principle.question in self.TRUE) for principle in item.principles or ())

    def value(self, item: RewardItem) -> float | None:
        weights = [2.0 if principle.category == "follow" else 1.0 for principle in item.principles or ()]
        return 10 * sum(weight * rate for weight, rate in zip(weights, self.rates(item), strict=True)) / sum(weights)
