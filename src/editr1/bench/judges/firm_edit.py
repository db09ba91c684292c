"""FIRM-Edit (Trust Your Critic, arXiv 2603.12247): two questions, execution and consistency, one whole number of 1 to 5 each.

Its prompts are read from a copy of github.com/VisionXLab/FIRM-Reward: `editing/reward_server/prompt_template.py`. Overall: with both
numbers on 0 to 1, execution * (.6 + .4 * consistency), the reward of its editor training; where its server gives 0, the edit is unscored
here. Greedy, 256 tokens, as that server asks. It sends pictures as JPEG; here they are PNG.

Weights: VisionXLab/FIRM-Edit-8B on the hub (Qwen3-VL-8B; licence "other").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from editr1.bench.base import OVERALL
from editr1.bench.judges._asking import AskingJudge, Question
from editr1.bench.judges._aspects import stated_scores
from editr1.bench.judges._published import Project, digest_of
from editr1.bench.judges._scale import Scale
from editr1.config import made
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from editr1.schema import MAX_SCORE, FailureCode
from editr1.vlm.base import VLM, Sampling

PROJECT = Project(
    "firm_edit",
    ("editing/reward_server/prompt_template.py",),
    'Download github.com/VisionXLab/FIRM-Reward and give the folder as prompts=FOLDER; weights: VisionXLab/FIRM-Edit-8B (licence "other")',
)
SCALE = Scale(1, 5)
WEIGHTS = (0.6, 0.4)  # of execution alone, and of its product with consistency
QUESTIONS = ("SCORE_EXECUTION", "SCORE_CONSISTENCY")


def build(
    vlm: VLM, prompts: str | None = None, num_passes: int = 1, temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 256
) -> AskingJudge:
    """The judge. Raises ConfigError that says what to download. prompts: a copy of the repository, or the file itself."""
    (texts,) = PROJECT.open(prompts)
    templates = {name: texts.text(name) for name in QUESTIONS}
    try:
        [template.format(prompt="") for template in templates.values()]
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"judge firm_edit: {texts.path} does not take an instruction as {{prompt}} alone: {error!r}") from error

    def ask(item: RewardItem) -> list[Question]:
        return [
            Question(name, (item.only_source, item.edited, template.format(prompt=item.instruction)))
            for name, template in templates.items()
        ]

    return AskingJudge(made("vlm", vlm), Sampling(temperature, top_p, max_tokens), ask, read, num_passes, digest_of([texts]))


def read(texts: Sequence[str]) -> dict[str, float] | FailureCode:
    """Both numbers of a pass and its reward on 0 to 10, or why its replies state none.

    >>> read(['{"reasoning": "", "score": [5]}', '{"reasoning": "", "score": [3]}'])
    {'prompt_following': 10.0, 'consistency': 5.0, 'overall': 8.0}
    """
    numbers: list[float] = []
    for text in texts:
        found = stated_scores(text, SCALE.high, may_be_one=True)
        if isinstance(found, str):
            return found
        if len(found) != 1:
            return "AMBIGUOUS"
        numbers.append(math.trunc(found[0]))  # as its server: 4.5 is a 4
    converted = SCALE.convert(numbers)
    if isinstance(converted, str):
        return converted
    execution, consistency = converted
    alone, together = WEIGHTS
    return {
        "prompt_following": execution,
        "consistency": consistency,
        OVERALL: execution * (alone + together * consistency / MAX_SCORE),
    }
