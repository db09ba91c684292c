"""UnifiedReward-Edit (arXiv 2503.05236), point-wise: two questions, instruction following and quality, two numbers of 0 to 25 each.

Its prompts are read from a copy of github.com/CodeGoat24/UnifiedReward (MIT): `UnifiedReward-Edit/edit_pointwise_instruction_following.py`
and `edit_pointwise_quality.py`. It publishes no overall score: ours is the mean of the two axes, each the mean of its two numbers, as
Pref-GRPO of the same authors weighs them; where that code puts zeros, the edit is unscored here. Greedy, 4,096 tokens.

Weights: CodeGoat24/UnifiedReward-Edit-* on the hub (MIT): qwen-3b, -7b, -32b, -72b (Qwen2.5-VL), qwen3vl-2b, -4b, -8b, -32b, qwen35-4b, -9b
(thinking off: --vlm-set thinking=false). Its client sends pictures as JPEG of quality 95; here they are PNG.
"""

from __future__ import annotations

from collections.abc import Sequence

from editr1.bench.base import OVERALL
from editr1.bench.judges._asking import AskingJudge, Question
from editr1.bench.judges._aspects import stated_scores
from editr1.bench.judges._published import Project, digest_of
from editr1.bench.judges._scale import Scale
from editr1.config import made
from editr1.judge.item import RewardItem
from editr1.schema import FailureCode
from editr1.vlm.base import VLM, Sampling

PROJECT = Project(
    "unifiedreward_edit",
    ("UnifiedReward-Edit/edit_pointwise_instruction_following.py", "UnifiedReward-Edit/edit_pointwise_quality.py"),
    "Download github.com/CodeGoat24/UnifiedReward (MIT) and give the folder as prompts=FOLDER; "
    "weights: CodeGoat24/UnifiedReward-Edit-qwen3vl-8b and its siblings (MIT)",
)
SCALE = Scale(0, 25)


def build(
    vlm: VLM, prompts: str | None = None, num_passes: int = 1, temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 4096
) -> AskingJudge:
    """The judge. Raises ConfigError that says what to download. prompts: a copy of the repository, or a folder of the two files."""
    following, quality = PROJECT.open(prompts)
    asked_quality = quality.text("problem")
    following.text("problem", instruction="")  # a file of another project is refused before anything is judged

    def ask(item: RewardItem) -> list[Question]:
        asked = following.text("problem", instruction=item.instruction)
        return [Question("following", (item.only_source, item.edited, asked)), Question("quality", (item.edited, asked_quality))]

    digest = digest_of([following, quality])
    return AskingJudge(made("vlm", vlm), Sampling(temperature, top_p, max_tokens), ask, read, num_passes, digest)


def read(texts: Sequence[str]) -> dict[str, float] | FailureCode:
    """All numbers of one pass on 0 to 10, or why its replies state none.

    >>> read(['{"reasoning": "", "score": [20, 10]}', '{"reasoning": "", "score": [25, 20]}'])["overall"]
    7.5
    """
    numbers: list[float] = []
    for text in texts:
        found = stated_scores(text, SCALE.high)
        if isinstance(found, str):
            return found
        numbers += found
    converted = SCALE.convert(numbers)
    if isinstance(converted, str):
        return converted
    success, restraint, naturalness, cleanness = converted
    quality = (naturalness + cleanness) / 2
    return {
        "prompt_following": success,
        "consistency": restraint,
        "perceptual_quality": quality,
        OVERALL: ((success + restraint) / 2 + quality) / 2,
    }
