"""RationalRewards (arXiv 2604.11626): a rationale and a score of 1 to 4 for each of four aspects, in one reply.

Its prompts are read from a copy of github.com/TIGER-AI-Lab/RationalRewards: `diffusion_rl_training/train_qwen_edit_rationalrewards.py`
(Apache-2.0 by its header). Overall: the mean of the aspects that apply, as `parse_i2i_scores` of its README has it; text rendering is N/A
where no text was asked for. Its RL scripts leave image faithfulness out of that mean: aspects=[text, physical, rendering] does too.
Where its parser averages what it finds and gives 0 where it finds nothing, a reply that leaves an aspect out is unscored here.

Weights: TIGER-Lab/RationalRewards-8B-Edit on the hub (Qwen3-VL-8B; the card of its T2I sibling says Apache-2.0).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from editr1.bench.base import OVERALL
from editr1.bench.judges.base import AskingJudge, Project, Question, Scale, digest_of
from editr1.config import made
from editr1.errors import ConfigError
from editr1.judge.answers import normalised
from editr1.judge.item import RewardItem
from editr1.judge.parse import answer_of
from editr1.schema import FailureCode
from editr1.vlm.base import VLM, Sampling

PROJECT = Project(
    "rationalrewards",
    ("diffusion_rl_training/train_qwen_edit_rationalrewards.py",),
    "Download github.com/TIGER-AI-Lab/RationalRewards (Apache-2.0) and give the folder as prompts=FOLDER; "
    "weights: TIGER-Lab/RationalRewards-8B-Edit (the card of its sibling -T2I says Apache-2.0)",
)
SCALE = Scale(1, 4)
PLACE = "<image>"
HEADINGS = {
    "text": "Text Faithfulness",
    "image": "Image Faithfulness",
    "physical": "Physical and Visual Quality",
    "rendering": "Text Rendering",
}
PARTS = {"text": "prompt_following", "image": "consistency", "physical": "perceptual_quality", "rendering": "text_rendering"}
_HEADING = re.compile(rf"^[\s#*]*(?:[1-4]\.)?[\s*]*({'|'.join(HEADINGS.values())})[\s*]*:", re.MULTILINE)
_SCORE = re.compile(r"^[\s*]*##[\s*]*Score[\s*]*:[\s*]*([^\n]*)$", re.MULTILINE)
_LEADING = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?!\s*(?:[-\u2013]|or\b|to\b)\s*[0-9]|[0-9.])")


def build(
    vlm: VLM,
    prompts: str | None = None,
    aspects: Sequence[str] = tuple(HEADINGS),
    num_passes: int = 1,
    temperature: float = 0.1,
    top_p: float = 1.0,
    max_tokens: int = 2048,
) -> AskingJudge:
    """The judge with the sampling of its README. Raises ConfigError that says what to download.

    prompts: a copy of the repository, or the file itself. aspects: those whose mean is the overall score.
    """
    if not aspects or set(aspects) - HEADINGS.keys():
        raise ConfigError(f"rationalrewards: aspects is {list(aspects)}; expected some of {', '.join(HEADINGS)}")
    (texts,) = PROJECT.open(prompts)
    system, task, guideline = map(texts.text, ("SYSTEM_PROMPT", "TASK_RELATED_TEMPLATE", "COMMON_TASK_GUIDELINE"))
    before, between, after = _pieces(f"{task}\n\n{guideline}", str(texts.path))

    def ask(item: RewardItem) -> list[Question]:
        first, second, third = (piece.replace("{request}", item.instruction) for piece in (before, between, after))
        return [Question("edit", (first, item.only_source, second, item.edited, third), system)]

    sampling = Sampling(temperature, top_p, max_tokens)
    return AskingJudge(made("vlm", vlm), sampling, ask, lambda replies: read(replies[0], aspects), num_passes, digest_of([texts]))


def _pieces(template: str, path: str) -> list[str]:
    pieces = template.split(PLACE)
    if len(pieces) != 3 or "{request}" not in template:
        raise ConfigError(
            f"judge rationalrewards: {path} has {len(pieces) - 1} places for pictures, expected 2, and {{request}}. {PROJECT.get}"
        )
    return pieces


def read(text: str, aspects: Sequence[str] = tuple(HEADINGS)) -> dict[str, float] | FailureCode:
    r"""The aspects of a reply on 0 to 10, or why it states none.

    >>> reply = "\n".join(f"{n}. {name}:\n## Score: {s}" for n, (name, s) in enumerate(zip(HEADINGS.values(), ("4", "2.5", "4", "N/A")), 1))
    >>> read(reply)
    {'prompt_following': 10.0, 'consistency': 5.0, 'perceptual_quality': 10.0, 'overall': 8.333333333333334}
    """
    body = (answer_of(normalised(text)) or "").split("# Summary:")[0]
    marks = list(_HEADING.finditer(body))
    found: dict[str, list[str]] = {mark.group(1): [] for mark in marks}
    if len(found) < len(HEADINGS):
        return "NO_SCORE"
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(body)], strict=True):
        found[mark.group(1)] += [score.group(1) for score in _SCORE.finditer(body, mark.end(), end)]
    stated: dict[str, float] = {}
    for aspect, heading in HEADINGS.items():
        values = {_value(raw) for raw in found[heading]}
        if len(values) != 1:
            return "CONTRADICTORY" if values else "NO_SCORE"
        value = values.pop()
        if value == "N/A":
            continue
        if isinstance(value, str):
            return "AMBIGUOUS"
        stated[aspect] = value
    numbers = SCALE.convert(list(stated.values()))
    if isinstance(numbers, str):
        return numbers
    parts = dict(zip(stated, numbers, strict=True))
    counted = [parts[aspect] for aspect in aspects if aspect in parts]
    if not counted:
        return "NO_SCORE"
    return {PARTS[aspect]: value for aspect, value in parts.items()} | {OVERALL: math.fsum(counted) / len(counted)}


def _value(raw: str) -> float | str:
    """The number that a line begins with, `N/A`, or the line itself."""
    stated = raw.strip(" *[]`")
    if stated.upper().startswith("N/A"):
        return "N/A"
    number = _LEADING.match(stated)
    return float(number.group(1)) if number else stated
