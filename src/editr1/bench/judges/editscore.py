"""EditScore (arXiv 2509.23909): its own prompts and its own reading of replies, taken at run time from the package `editscore`.

Two requests a pass, reasoning before two numbers of 0 to 25 each; SC = min, PQ = min, O = sqrt(SC * PQ), the mean of K passes, as
`EditScore.evaluate` computes it. Where that function asks again and then draws a random number, where it raises, and where a number lies
outside 0 to 25, the edit is unscored. Its top_k of 20 is not applied: requests here are cut by temperature and top_p only.

Weights: LoRA adapters on the hub, to be merged into their bases: EditScore/EditScore-7B, -32B, -72B (Apache-2.0; Qwen2.5-VL-Instruct of
that size, backbone=qwen25vl) and EditScore/EditScore-Qwen3-VL-4B-Instruct, -8B-Instruct (Apache-2.0; backbone=qwen3vl).
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from PIL import Image

from editr1.bench.judges._aspects import as_numbers, read_aspects, stated_scores
from editr1.bench.judges.base import AskingJudge, Project, Question, Scale, digest_of
from editr1.config import made
from editr1.errors import ConfigError
from editr1.judge.answers import normalised
from editr1.judge.item import RewardItem
from editr1.judge.parse import answer_of, without_asides
from editr1.schema import FailureCode
from editr1.vlm.base import VLM, Sampling

PROJECT = Project(
    "editscore",
    ("editscore/vie_prompts.py", "editscore/utils.py"),
    "Install the package (pip install editscore, Apache-2.0), or give a copy of github.com/VectorSpaceLab/EditScore as prompts=FOLDER; "
    "weights: EditScore/EditScore-7B and its siblings (Apache-2.0)",
    package="editscore",
)
Backbone = Literal["qwen25vl", "qwen3vl", "openai"]
_OPEN_LIST = re.compile(r"""["'\u201c\u201d]?score["'\u201c\u201d]?\s*:\s*\[[\s0-9.,/"'-]*$""", re.IGNORECASE)


def build(
    vlm: VLM,
    prompts: str | None = None,
    backbone: Backbone = "qwen25vl",
    num_passes: int = 4,
    temperature: float = 0.7,
    top_p: float = 0.9,
    max_tokens: int = 512,
    top: int = 25,
) -> AskingJudge:
    """The judge with EditScore's sampling. Raises ConfigError that says what to install.

    prompts: a copy of the repository or of the package's folder, in place of the installed package; **its `utils.py` is run**.
    backbone: how pictures and text stand in a request, as the package has it for this kind of model. num_passes: the K of its Avg@K.
    top: its score_range.
    """
    if backbone not in get_args(Backbone):
        raise ConfigError(f"editscore: backbone is {backbone!r}; expected one of {', '.join(get_args(Backbone))}")
    texts, parser = PROJECT.open(prompts)
    names = ("_prompts_0shot_two_image_edit_rule", "_prompts_0shot_tie_rule_SC", "_prompts_0shot_rule_PQ")
    context, (rule, semantic, quality) = texts.text("_context_no_delimit_reasoning_first"), map(texts.text, names)
    asked_SC = "\n".join([context, rule, semantic.replace("10", str(top))])
    asked_PQ = "\n".join([context, quality.replace("10", str(top))])
    scale, stated = Scale(0, top), _reader(parser.path)

    def ask(item: RewardItem) -> list[Question]:
        semantic = _question("SC", (item.only_source, item.edited), asked_SC.replace("<instruction>", item.instruction), backbone)
        return [semantic, _question("PQ", (item.edited,), asked_PQ, backbone)]

    sampling = Sampling(temperature, top_p, max_tokens)
    digest = digest_of([texts, parser])
    return AskingJudge(made("vlm", vlm), sampling, ask, lambda replies: read_aspects(replies, scale, stated), num_passes, digest)


def _question(name: str, pictures: Sequence[Image.Image], text: str, backbone: Backbone) -> Question:
    if backbone == "openai":
        return Question(name, (text, *pictures))
    if backbone == "qwen3vl":
        return Question(name, (*pictures, text))
    numbered = [part for number, picture in enumerate(pictures, 1) for part in (f"<img{number}>: ", picture)]
    return Question(name, (*numbered, text), system="You are a helpful assistant.")


def _reader(path: Path) -> Callable[[str, float, bool], tuple[float, ...] | FailureCode]:
    """Reads one reply by the package's `mllm_output_to_dict`, which is never told to give up: it would then draw a number."""
    parse = _load(path).mllm_output_to_dict

    def stated(text: str, top: float, may_be_one: bool) -> tuple[float, ...] | FailureCode:
        answer = answer_of(normalised(text))
        shown = without_asides(answer or "")
        if not shown.strip():
            return "NO_SCORE"
        if _OPEN_LIST.search(shown):
            return "TRUNCATED"  # a repaired list may end in half a number
        raw: Any = None
        with contextlib.suppress(Exception):  # whatever it raises on a text of a model, the text says nothing to it
            raw = parse(shown, False)["score"]
        if raw is not None and stated_scores(text, top, may_be_one) == "WITHDRAWN":
            return "WITHDRAWN"
        return "NO_SCORE" if raw is None else as_numbers(raw, top, may_be_one)

    return stated


def _load(path: Path) -> ModuleType:
    """The package's `utils.py` alone, under a name of our own: the package itself would load more, and print."""
    spec = importlib.util.spec_from_file_location("editr1_editscore_utils", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"judge editscore: {path} cannot be loaded. {PROJECT.get}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"judge editscore: {path} does not load: {error}. {PROJECT.get}") from error
    if not callable(getattr(module, "mllm_output_to_dict", None)):
        raise ConfigError(f"judge editscore: {path} has no function mllm_output_to_dict. {PROJECT.get}")
    vars(module)["print"] = lambda *_, **__: None  # it prints every reply that it mends
    vars(module)["fallback_repair_json"] = _refuse  # it fills missing scores with zeros
    return module


def _refuse(_: str) -> str:
    raise ValueError("no scores")
