"""Point-wise judges whose weights and prompts are public: what each asks, how it is read, and how its numbers become 0 to 10.

The texts are read at run time from a copy of each project's repository (`prompts=FOLDER`, see `_published`), sampling is that of its own
scripts. Where a project clamps, puts zeros or averages what it finds, an edit is unscored here, with a code. Pictures are sent as PNG.

- `trm_edit` (Think Before You Score, arXiv 2609.37372): a checklist of its own making, then one score of 0 to 10, in one reply of JSON.
  Thinking of the chat template stays off, as in its scripts: --vlm-set thinking=false.
- `unifiedreward_edit` (arXiv 2503.05236): two questions, two numbers of 0 to 25 each. It publishes no overall score: ours is the mean of
  the two axes, each the mean of its two numbers, as Pref-GRPO of the same authors weighs them. Its client sends JPEG of quality 95.
  Weights: CodeGoat24/UnifiedReward-Edit-*: qwen-3b, -7b, -32b, -72b (Qwen2.5-VL), qwen3vl-2b, -4b, -8b, -32b, qwen35-4b, -9b (no thinking).
- `firm_edit` (Trust Your Critic, arXiv 2603.12247): execution and consistency, one whole number of 1 to 5 each; overall, with both on 0
  to 1, execution * (.6 + .4 * consistency), the reward of its editor training. It sends JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editr1.bench.base import OVERALL
from editr1.bench.judges._aspects import stated_scores
from editr1.bench.judges.base import AskingJudge, Project, Question, Read, Scale, Texts, digest_of
from editr1.config import made
from editr1.errors import ConfigError
from editr1.judge.answers import Contradiction, normalised, read_json_object, read_number
from editr1.judge.claims import is_taken_back
from editr1.judge.item import RewardItem
from editr1.judge.parse import answer_of
from editr1.schema import MAX_SCORE, FailureCode
from editr1.vlm.base import VLM, Sampling

Ask = Callable[[RewardItem], Sequence[Question]]


@dataclass(frozen=True, slots=True)
class Preset:
    """A judge of one project."""

    project: Project
    asks: Callable[[Sequence[Texts]], Ask]
    """The questions in the words of the project's files; raises ConfigError for files of another project, before anything is judged."""
    read: Read
    max_tokens: int

    def build(
        self, vlm: VLM, prompts: str | None = None, num_passes: int = 1, temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 0
    ) -> AskingJudge:
        """The judge, greedy unless told otherwise. Raises ConfigError that says what to download.

        prompts: a copy of the repository, or its files alone, in place of the installed package. max_tokens: 0 = as its scripts ask.
        """
        texts = self.project.open(prompts)
        sampling = Sampling(temperature, top_p, max_tokens or self.max_tokens)
        return AskingJudge(made("vlm", vlm), sampling, self.asks(texts), self.read, num_passes, digest_of(texts))


# --- TRM-Edit ---------------------------------------------------------------------------------------

TRM_SCALE = Scale(0, 10)
MAX_CHARS = 64_000  # ours: fourteen points and their reasons are about 6,000; what is longer is no checklist


def _trm_asks(files: Sequence[Texts]) -> Ask:
    (texts,) = files
    system = texts.text("EDIT_SYSTEM_PROMPT")
    texts.text("build_edit_user_text", instruction="")

    def ask(item: RewardItem) -> list[Question]:
        asked = texts.text("build_edit_user_text", instruction=item.instruction)
        return [Question("edit", (item.only_source, item.edited, asked), system)]

    return ask


def read_trm(texts: Sequence[str]) -> dict[str, float] | FailureCode:
    """The score of a reply, or why it states none.

    >>> read_trm(['{"eval_points": [], "final_score": 8.3}']), read_trm(['{"final_score": 11}']), read_trm(["8"])
    ({'overall': 8.3}, 'OUT_OF_RANGE', 'NO_SCORE')
    """
    answer = answer_of(normalised(texts[0])) or ""
    start, end = answer.find("{"), answer.rfind("}") + 1
    stated = read_json_object(answer[start:end], MAX_CHARS) if 0 <= start < end else None
    if stated is None:
        return "TRUNCATED" if answer.count("{") > answer.count("}") else "NO_SCORE"
    value = stated.get("final_score")
    if isinstance(value, Contradiction):
        return "CONTRADICTORY"
    if is_taken_back(answer[end:]):
        return "WITHDRAWN"
    if value is None:
        return "NO_SCORE"
    number = None if isinstance(value, bool) else read_number(str(value), TRM_SCALE.high)
    if number is None:
        return "AMBIGUOUS"
    numbers = TRM_SCALE.convert((number,))
    return numbers if isinstance(numbers, str) else {OVERALL: numbers[0]}


trm_edit = Preset(
    Project(
        "trm_edit",
        ("src/trm/prompts.py",),
        "Download github.com/bxhsort/Thinking_Reward_Model (MIT) and give the folder as prompts=FOLDER; "
        "weights: asdjghh/TRM-Image_Editing (Qwen3.5-9B; its card names no licence)",
        package="trm",
    ),
    _trm_asks,
    read_trm,
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


UNIFIED_SCALE = Scale(0, 25)


def _unified_asks(files: Sequence[Texts]) -> Ask:
    following, quality = files
    asked_quality = quality.text("problem")
    following.text("problem", instruction="")

    def ask(item: RewardItem) -> list[Question]:
        asked = following.text("problem", instruction=item.instruction)
        return [Question("following", (item.only_source, item.edited, asked)), Question("quality", (item.edited, asked_quality))]

    return ask


def read_unified(texts: Sequence[str]) -> dict[str, float] | FailureCode:
    """All numbers of one pass on 0 to 10, or why its replies state none.

    >>> read_unified(['{"reasoning": "", "score": [20, 10]}', '{"reasoning": "", "score": [25, 20]}'])["overall"]
    7.5
    """
    numbers = _numbers(texts, UNIFIED_SCALE, False)
    if isinstance(numbers, str):
        return numbers
    success, restraint, naturalness, cleanness = numbers
    quality = (naturalness + cleanness) / 2
    return {
        "prompt_following": success,
        "consistency": restraint,
        "perceptual_quality": quality,
        OVERALL: ((success + restraint) / 2 + quality) / 2,
    }


unifiedreward_edit = Preset(
    Project(
        "unifiedreward_edit",
        ("UnifiedReward-Edit/edit_pointwise_instruction_following.py", "UnifiedReward-Edit/edit_pointwise_quality.py"),
        "Download github.com/CodeGoat24/UnifiedReward (MIT) and give the folder as prompts=FOLDER; "
        "weights: CodeGoat24/UnifiedReward-Edit-qwen3vl-8b and its siblings (MIT)",
    ),
    _unified_asks,
    read_unified,
    4096,
)

# --- FIRM-Edit --------------------------------------------------------------------------------------

FIRM_SCALE = Scale(1, 5)
WEIGHTS = (0.6, 0.4)  # of execution alone, and of its product with consistency


def _firm_asks(files: Sequence[Texts]) -> Ask:
    (texts,) = files
    templates = {name: texts.text(name) for name in ("SCORE_EXECUTION", "SCORE_CONSISTENCY")}
    try:
        [template.format(prompt="") for template in templates.values()]
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"judge firm_edit: {texts.path} does not take an instruction as {{prompt}} alone: {error!r}") from error

    def ask(item: RewardItem) -> list[Question]:
        return [
            Question(name, (item.only_source, item.edited, template.format(prompt=item.instruction)))
            for name, template in templates.items()
        ]

    return ask


def read_firm(texts: Sequence[str]) -> dict[str, float] | FailureCode:
    """Both numbers of a pass and its reward on 0 to 10, or why its replies state none.

    >>> read_firm(['{"reasoning": "", "score": [5]}', '{"reasoning": "", "score": [3]}'])
    {'prompt_following': 10.0, 'consistency': 5.0, 'overall': 8.0}
    """
    numbers = _numbers(texts, FIRM_SCALE, True)
    if isinstance(numbers, str):
        return numbers
    execution, consistency = numbers
    alone, together = WEIGHTS
    return {
        "prompt_following": execution,
        "consistency": consistency,
        OVERALL: execution * (alone + together * consistency / MAX_SCORE),
    }


firm_edit = Preset(
    Project(
        "firm_edit",
        ("editing/reward_server/prompt_template.py",),
        "Download github.com/VisionXLab/FIRM-Reward and give the folder as prompts=FOLDER; "
        'weights: VisionXLab/FIRM-Edit-8B (Qwen3-VL-8B; licence "other")',
    ),
    _firm_asks,
    read_firm,
    256,
)
