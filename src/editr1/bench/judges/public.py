"""Point-wise judges whose weights and prompts are public: what each asks, how it is read, and how its numbers become 0 to 10.

The texts are read at run time from a copy of each project's repository (`prompts=FOLDER`, see `base.Project`), sampling is that of its own
scripts. Where a project clamps, puts zeros or averages what it finds, an edit is unscored here, with a code. Pictures are sent as PNG.

- `trm_edit` (Think Before You Score, arXiv 2609.37372): a checklist of its own making, then one score of 0 to 10, in one reply of JSON.
  Thinking of the chat template stays off, as in its scripts: --vlm-set thinking=false.
- `unifiedreward_edit` (arXiv 2503.05236): two questions, two numbers of 0 to 25 each. It publishes no overall score: ours is the mean of
  the two axes, each the mean of its two numbers, as Pref-GRPO of the same authors weighs them. Its client sends JPEG of quality 95.
  Weights: CodeGoat24/UnifiedReward-Edit-*: qwen-3b, -7b, -32b, -72b (Qwen2.5-VL), qwen3vl-2b, -4b, -8b, -32b, qwen35-4b, -9b (no thinking).
- `firm_edit` (Trust Your Critic, arXiv 2603.12247): execution and consistency, one whole number of 1 to 5 each; overall, with both on 0
  to 1, execution * (.6 + .4 * consistency), the reward of its editor training. It sends JPEG.
- `rationalrewards` (arXiv 2604.11626): a rationale and a score of 1 to 4 for each of four aspects, in one reply. Overall: the mean of those
  that apply, as `parse_i2i_scores` of its README has it; text rendering is N/A where no text was asked for. Its RL scripts leave image
  faithfulness out of that mean: aspects=[text, physical, rendering] does too. A reply that leaves an aspect out is unscored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from editr1.bench.base import OVERALL, Part
from editr1.bench.judges._aspects import stated_scores
from editr1.bench.judges.base import AskingJudge, Project, Question, Scale, Texts, digest_of
from editr1.config import made
from editr1.errors import ConfigError
from editr1.judge.answers import Contradiction, normalised, read_json_object, read_number
from editr1.judge.claims import is_taken_back
from editr1.judge.item import RewardItem
from editr1.judge.parse import answer_of, without_asides
from editr1.schema import MAX_SCORE, FailureCode
from editr1.vlm.base import VLM, Sampling

Ask = Callable[[RewardItem], Sequence[Question]]


@dataclass(frozen=True, slots=True)
class Preset:
    """A judge of one project."""

    project: Project
    asks: Callable[..., Ask]
    """The questions in the words of the project's files, one argument each; raises ConfigError for those of another project."""
    numbers: Callable[[Sequence[str]], Sequence[float | None] | FailureCode]
    """The numbers on 0 to 10 that the replies to all questions of a pass state, or why they state none."""
    parts: Callable[..., Mapping[str, float]]
    """The sub-scores that follow from the numbers, `overall` among them."""
    max_tokens: int

    def read(self, texts: Sequence[str]) -> Mapping[str, float] | FailureCode:
        numbers = self.numbers(texts)
        return numbers if isinstance(numbers, str) else self.parts(*numbers)

    def build(
        self, vlm: VLM, prompts: str | None = None, num_passes: int = 1, temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 0
    ) -> AskingJudge:
        """The judge, greedy unless told otherwise; max_tokens: 0 = as its scripts ask. Raises ConfigError as `Project.open` does."""
        texts, sampling = self.project.open(prompts), Sampling(temperature, top_p, max_tokens or self.max_tokens)
        return AskingJudge(made("vlm", vlm), sampling, self.asks(*texts), self.read, num_passes, digest_of(texts))


# --- TRM-Edit ---------------------------------------------------------------------------------------

TRM_SCALE = Scale(0, 10)
MAX_CHARS = 64_000  # ours: fourteen points and their reasons are about 6,000; what is longer is no checklist


def _trm_asks(texts: Texts) -> Ask:
    system = texts.text("EDIT_SYSTEM_PROMPT")
    texts.text("build_edit_user_text", instruction="")

    def ask(item: RewardItem) -> list[Question]:
        asked = texts.text("build_edit_user_text", instruction=item.instruction)
        return [Question("edit", (item.only_source, item.edited, asked), system)]

    return ask


def _trm_number(texts: Sequence[str]) -> tuple[float, ...] | FailureCode:
    """The score of a reply, or why it states none.

    >>> _trm_number(['{"eval_points": [], "final_score": 8.3}']), _trm_number(['{"final_score": 11}']), _trm_number(["8"])
    ((8.3,), 'OUT_OF_RANGE', 'NO_SCORE')
    """
    answer = answer_of(normalised(texts[0])) or ""
    shown = without_asides(answer)
    start, end = shown.find("{"), shown.rfind("}") + 1
    stated = read_json_object(shown[start:end], MAX_CHARS) if 0 <= start < end else None
    if stated is None:
        return "TRUNCATED" if shown.count("{") > shown.count("}") else "NO_SCORE"
    value = stated.get("final_score")
    if isinstance(value, Contradiction):
        return "CONTRADICTORY"
    if is_taken_back(answer, end):
        return "WITHDRAWN"
    if value is None:
        return "NO_SCORE"
    number = None if isinstance(value, bool) else read_number(str(value), TRM_SCALE.high)
    if number is None:
        return "AMBIGUOUS"
    return TRM_SCALE.convert((number,))


trm_edit = Preset(
    Project(
        "trm_edit",
        ("src/trm/prompts.py",),
        "Download github.com/bxhsort/Thinking_Reward_Model (MIT) and give the folder as prompts=FOLDER; "
        "weights: asdjghh/TRM-Image_Editing (Qwen3.5-9B; its card names no licence)",
        package="trm",
    ),
    _trm_asks,
    _trm_number,
    lambda score: {OVERALL: score},
    1536,
)

# --- UnifiedReward-Edit -----------------------------------------------------------------------------


def _numbers(texts: Sequence[str], scale: Scale, one_each: bool) -> tuple[float, ...] | FailureCode:
    """The numbers of all replies on 0 to 10: two of each, or one whole number."""
    numbers: list[float] = []
    for text in texts:
        found = stated_scores(text, scale.high, one_each)
        if isinstance(found, str):
            return found
        if one_each and len(found) != 1:
            return "AMBIGUOUS"
        numbers += map(math.trunc, found) if one_each else found  # as FIRM-Edit's server: 4.5 is a 4
    return scale.convert(numbers)


def _unified_asks(following: Texts, quality: Texts) -> Ask:
    asked_quality = quality.text("problem")
    following.text("problem", instruction="")

    def ask(item: RewardItem) -> list[Question]:
        asked = following.text("problem", instruction=item.instruction)
        return [Question("following", (item.only_source, item.edited, asked)), Question("quality", (item.edited, asked_quality))]

    return ask


def _unified_parts(success: float, restraint: float, naturalness: float, cleanness: float) -> dict[str, float]:
    quality = (naturalness + cleanness) / 2
    overall = ((success + restraint) / 2 + quality) / 2
    return {"prompt_following": success, "consistency": restraint, "perceptual_quality": quality, OVERALL: overall}


unifiedreward_edit = Preset(
    Project(
        "unifiedreward_edit",
        ("UnifiedReward-Edit/edit_pointwise_instruction_following.py", "UnifiedReward-Edit/edit_pointwise_quality.py"),
        "Download github.com/CodeGoat24/UnifiedReward (MIT) and give the folder as prompts=FOLDER; "
        "weights: CodeGoat24/UnifiedReward-Edit-qwen3vl-8b and its siblings (MIT)",
    ),
    _unified_asks,
    partial(_numbers, scale=Scale(0, 25), one_each=False),
    _unified_parts,
    4096,
)

# --- FIRM-Edit --------------------------------------------------------------------------------------

WEIGHTS = (0.6, 0.4)  # of execution alone, and of its product with consistency: 10 and 5 give 8


def _firm_asks(texts: Texts) -> Ask:
    templates = {name: texts.text(name) for name in ("SCORE_EXECUTION", "SCORE_CONSISTENCY")}
    try:
        [template.format(prompt="") for template in templates.values()]
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"judge firm_edit: {texts.path} does not take an instruction as {{prompt}} alone: {error!r}") from error

    def ask(item: RewardItem) -> list[Question]:
        return [Question(name, (item.only_source, item.edited, text.format(prompt=item.instruction))) for name, text in templates.items()]

    return ask


def _firm_parts(execution: float, consistency: float) -> dict[str, float]:
    alone, together = WEIGHTS
    overall = execution * (alone + together * consistency / MAX_SCORE)
    return {"prompt_following": execution, "consistency": consistency, OVERALL: overall}


firm_edit = Preset(
    Project(
        "firm_edit",
        ("editing/reward_server/prompt_template.py",),
        "Download github.com/VisionXLab/FIRM-Reward and give the folder as prompts=FOLDER; "
        'weights: VisionXLab/FIRM-Edit-8B (Qwen3-VL-8B; licence "other")',
    ),
    _firm_asks,
    partial(_numbers, scale=Scale(1, 5), one_each=True),
    _firm_parts,
    256,
)

# --- RationalRewards --------------------------------------------------------------------------------

ASPECTS = {
    "text": ("Text Faithfulness", "prompt_following"),
    "image": ("Image Faithfulness", "consistency"),
    "physical": ("Physical and Visual Quality", "perceptual_quality"),
    "rendering": ("Text Rendering", "text_rendering"),
}
"""Their headings, and the sub-scores here."""
RATIONAL_SCALE = Scale(1, 4)
_HEADING = re.compile(rf"^[\s#*]*(?:[1-4]\.)?[\s*]*({'|'.join(heading for heading, _ in ASPECTS.values())})[\s*]*:", re.MULTILINE)
_SCORE = re.compile(r"^[\s*]*##[\s*]*Score[\s*]*:[\s*]*([^\n]*)$", re.MULTILINE)
_REMARK = re.compile(r"\s*(?:[;:]|\((?!(?:out )?of\b)|\s[-\u2013\u2014]\s(?!\d)|\s(?!(?:out|of|or|to)\b)[^\W\d]).*", re.IGNORECASE)


def _rational_asks(texts: Texts) -> Ask:
    system, task, guideline = map(texts.text, ("SYSTEM_PROMPT", "TASK_RELATED_TEMPLATE", "COMMON_TASK_GUIDELINE"))
    pieces = (template := f"{task}\n\n{guideline}").split("<image>")
    if len(pieces) != 3 or "{request}" not in template:
        found = f"{texts.path} has {len(pieces) - 1} places for pictures, expected 2, and {{request}}"
        raise ConfigError(f"judge rationalrewards: {found}. {RATIONAL.get}")

    def ask(item: RewardItem) -> list[Question]:
        first, second, third = (piece.replace("{request}", item.instruction) for piece in pieces)
        return [Question("edit", (first, item.only_source, second, item.edited, third), system)]

    return ask


def _rational_numbers(texts: Sequence[str], aspects: Sequence[str]) -> tuple[float | None, ...] | FailureCode:
    """The scores of all aspects, None for one that does not apply, or why the reply states none of those that count."""
    answer = answer_of(normalised(texts[0])) or ""
    body = without_asides(answer).rsplit("# Summary:", 1)[0]
    marks = list(_HEADING.finditer(body))
    found: dict[str, list[str]] = {mark.group(1): [] for mark in marks}
    if len(found) < len(ASPECTS):
        return "NO_SCORE"
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(answer)], strict=True):
        scores = list(_SCORE.finditer(body, mark.end(), end))
        found[mark.group(1)] += [score.group(1) for score in scores]
        if scores and is_taken_back(answer[:end], scores[-1].end()):
            return "WITHDRAWN"
    stated: dict[str, float] = {}
    for aspect, (heading, _) in ASPECTS.items():
        values = {_value(raw) for raw in found[heading]}
        if len(values) != 1:
            return "CONTRADICTORY" if values else "NO_SCORE"
        value = values.pop()
        if isinstance(value, float):
            stated[aspect] = value
        elif value != "N/A":
            return "AMBIGUOUS"
    numbers = RATIONAL_SCALE.convert(list(stated.values()))
    if isinstance(numbers, str) or not stated.keys() & set(aspects):
        return numbers if isinstance(numbers, str) else "NO_SCORE"
    return tuple(dict(zip(stated, numbers, strict=True)).get(aspect) for aspect in ASPECTS)


def _value(raw: str) -> float | str:
    """The number of a line, which a remark may follow; `N/A`, or the line itself."""
    stated = raw.strip(" *[]`")
    if re.match(r"(?:n/?a|not applicable)\b", stated, re.IGNORECASE):
        return "N/A"
    return stated if (number := read_number(_REMARK.sub("", stated), RATIONAL_SCALE.high)) is None else number


RATIONAL = Project(
    "rationalrewards",
    ("diffusion_rl_training/train_qwen_edit_rationalrewards.py",),  # Apache-2.0 by its header
    "Download github.com/TIGER-AI-Lab/RationalRewards (Apache-2.0) and give the folder as prompts=FOLDER; "
    "weights: TIGER-Lab/RationalRewards-8B-Edit (Qwen3-VL-8B; the card of its sibling -T2I says Apache-2.0)",
)


def rational_preset(aspects: Sequence[str] = tuple(ASPECTS), max_tokens: int = 2048) -> Preset:
    """The judge whose overall score is the mean of those aspects."""

    def parts(*numbers: float | None) -> dict[str, float]:
        stated = {aspect: number for aspect, number in zip(ASPECTS, numbers, strict=True) if number is not None}
        counted = [stated[aspect] for aspect in aspects if aspect in stated]
        return {ASPECTS[aspect][1]: number for aspect, number in stated.items()} | {OVERALL: math.fsum(counted) / len(counted)}

    return Preset(RATIONAL, _rational_asks, partial(_rational_numbers, aspects=aspects), parts, max_tokens)


def _build_rational(
    vlm: VLM, prompts: str | None = None, aspects: Sequence[str] = tuple(ASPECTS), num_passes: int = 1, temperature: float = 0.1,
    top_p: float = 1.0, max_tokens: int = 2048,
) -> AskingJudge:  # fmt: skip
    """The judge with the sampling of its README. Raises ConfigError as a preset does."""
    if not aspects or set(aspects) - ASPECTS.keys():
        raise ConfigError(f"rationalrewards: aspects is {list(aspects)}; expected some of {', '.join(ASPECTS)}")
    return rational_preset(aspects, max_tokens).build(vlm, prompts, num_passes, temperature, top_p)


rationalrewards = Part(_build_rational)
