"""TRM-Edit (Think Before You Score, arXiv 2609.37372): a checklist of its own making, then one score of 0 to 10, in one reply of JSON.

Its prompts are read from a copy of github.com/bxhsort/Thinking_Reward_Model (MIT): `src/trm/prompts.py`, or the installed package `trm`.
Its parser clamps `final_score` to 0 to 10; here a score outside is unscored. Greedy, one pass and 1,536 tokens, as its scripts ask.

Weights: asdjghh/TRM-Image_Editing on the hub (Qwen3.5-9B; its card names no licence). The chat template's thinking stays off, as in its
scripts: --vlm-set thinking=false.
"""

from __future__ import annotations

from collections.abc import Sequence

from editr1.bench.base import OVERALL
from editr1.bench.judges._asking import AskingJudge, Question
from editr1.bench.judges._published import Project, digest_of
from editr1.bench.judges._scale import Scale
from editr1.config import made
from editr1.judge.answers import Contradiction, normalised, read_json_object, read_number
from editr1.judge.claims import is_taken_back
from editr1.judge.item import RewardItem
from editr1.judge.parse import answer_of
from editr1.schema import FailureCode
from editr1.vlm.base import VLM, Sampling

PROJECT = Project(
    "trm_edit",
    ("src/trm/prompts.py",),
    "Download github.com/bxhsort/Thinking_Reward_Model (MIT) and give the folder as prompts=FOLDER; "
    "weights: asdjghh/TRM-Image_Editing (its card names no licence)",
    package="trm",
)
SCALE = Scale(0, 10)
MAX_CHARS = 64_000  # ours: fourteen points and their reasons are about 6,000; what is longer is no checklist


def build(
    vlm: VLM, prompts: str | None = None, num_passes: int = 1, temperature: float = 0.0, top_p: float = 1.0, max_tokens: int = 1536
) -> AskingJudge:
    """The judge. Raises ConfigError that says what to download.

    prompts: a copy of the repository, or its `prompts.py`, in place of the installed package `trm`.
    """
    (texts,) = PROJECT.open(prompts)
    system = texts.text("EDIT_SYSTEM_PROMPT")
    texts.text("build_edit_user_text", instruction="")  # a file of another project is refused before anything is judged

    def ask(item: RewardItem) -> list[Question]:
        asked = texts.text("build_edit_user_text", instruction=item.instruction)
        return [Question("edit", (item.only_source, item.edited, asked), system)]

    return AskingJudge(made("vlm", vlm), Sampling(temperature, top_p, max_tokens), ask, read, num_passes, digest_of([texts]))


def read(texts: Sequence[str]) -> dict[str, float] | FailureCode:
    """The score of a reply, or why it states none.

    >>> read(['{"eval_points": [{"question": "q", "score": 1}], "final_score": 8.3}']), read(['{"final_score": 11}']), read(["8"])
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
    number = None if isinstance(value, bool) else read_number(str(value), SCALE.high)
    if number is None:
        return "AMBIGUOUS"
    numbers = SCALE.convert((number,))
    return numbers if isinstance(numbers, str) else {OVERALL: numbers[0]}
