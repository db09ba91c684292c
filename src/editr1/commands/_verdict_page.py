"""One verification as one page: both pictures, the verdicts by category, the score, and what the judge wrote folded below."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from editr1.judge.item import RewardItem
from editr1.judge.prompts import labels
from editr1.pictures import to_rgb
from editr1.schema import CATEGORIES, Judgement, Reward, Trace

SIDE = 1024  # ours: pixels of a picture's longer side; two of them stay well below a megabyte
PIXEL_ART = 256  # ours: smaller pictures are kept exactly and drawn enlarged without smoothing

TITLES = {"follow": "Does it follow the instruction?", "keep": "Does it keep the rest?", "quality": "Is the picture sound?"}


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    question: str
    rate: float | None


@dataclass(frozen=True, slots=True)
class _Picture:
    uri: str
    width: int
    height: int
    pixelated: bool


def verdict_page(item: RewardItem, reward: Reward, judge: str, prompt_id: str, problem: str = "") -> str:
    """A self-contained HTML page, at most about a megabyte; nothing is loaded from elsewhere.

    judge, prompt_id: who was asked, and how. problem: why there is no score, in words.
    """
    rates: Sequence[float | None] = reward.rates or [None] * len(reward.principles)
    found = zip(labels(reward.principles), reward.principles, rates, strict=True)
    rows = [(principle.category, _Row(label, principle.question, rate)) for label, principle, rate in found]
    before = item.source if isinstance(item.source, tuple) else (item.source,)
    groups = {category: [row for other, row in rows if other == category] for category in CATEGORIES}
    environment = Environment(
        loader=PackageLoader("editr1.commands", "pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("verdict.html").render(
        instruction=item.instruction,
        pictures=[*(("Before", _picture(image)) for image in before), ("After", _picture(item.edited))],
        reward=reward,
        problem=problem,
        groups=[(TITLES[category], reward.category_means.get(category), found) for category, found in groups.items() if found],
        traces=[(_told(trace), trace.text) for trace in reward.traces],
        judge=judge,
        prompt_id=prompt_id,
    )


def _told(trace: Trace) -> str:
    return f"score {trace.outcome.score:g}" if isinstance(trace.outcome, Judgement) else f"unscored: {trace.outcome.code}"


def _picture(image: Image.Image) -> _Picture:
    small = to_rgb(image).copy()
    small.thumbnail((SIDE, SIDE))
    exact = max(small.size) <= PIXEL_ART
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True) if exact else small.save(buffer, "WEBP", quality=88)
    uri = f"data:image/{'png' if exact else 'webp'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return _Picture(uri, *small.size, pixelated=exact)
