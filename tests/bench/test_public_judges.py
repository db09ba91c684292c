"""Judges whose weights are public: asked by their own texts, read as they are, on their declared scales; nothing else becomes a number."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.bench.base import PartedReward
from editr1.bench.judges.public import firm_edit, rational_preset, rationalrewards, trm_edit, unifiedreward_edit
from editr1.config import Component, create
from editr1.errors import ConfigError
from editr1.judge.item import PersistentJudge, RewardItem
from editr1.schema import Reward
from editr1.vlm.base import ChatReply, ChatRequest, request_images
from editr1.vlm.local import LocalVLM
from published_judges import REPLIES, published, rationale, section
from scripted_vlm import ScriptedVLM
from tiny_qwen import build_tiny_qwen
from tiny_vlms import tiny_qwen3_vl, tiny_qwen35

ASKING = sorted(REPLIES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


def item(instruction: str = "Make it <image> blue {request} {instruction}", name: str = "i") -> RewardItem:
    source, edited = (Image.new("RGB", (60, 60), color) for color in ("red", "blue"))
    return RewardItem(source, edited, instruction, id=name)


def judge(name: str, root: Path, answer: Callable[[ChatRequest], ChatReply] | Any, **options: Any) -> Any:
    vlm = answer if hasattr(answer, "chat") else ScriptedVLM(answer)
    return create("judges", Component(name, {"vlm": vlm, "prompts": published(name, root), **options}))


def says(text: str) -> Callable[[ChatRequest], ChatReply]:
    return lambda request: ChatReply(text, "scripted", num_tokens=3)


# --- scores


@pytest.mark.parametrize("name", ASKING)
def test_a_readable_reply_is_a_score_on_0_to_10(name: str, root: Path) -> None:
    text, value = REPLIES[name]
    reward = judge(name, root, says(text), num_passes=2).score([item()])[0]
    assert isinstance(reward, PartedReward)
    assert reward.value == reward.parts["overall"] == pytest.approx(value)
    assert (reward.num_valid, reward.num_traces, reward.reason) == (2, 2, None)
    assert reward.scores == (reward.value, reward.value)
    assert reward.answer.startswith(text)  # what people see beside the score


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("text", ["", "I cannot help with that.", "8", "{", "<think>{}", '{"score": "high", "final_score": "high"}', "[]"])
def test_what_states_no_score_is_unscored_with_a_code(name: str, text: str, root: Path) -> None:
    reward = judge(name, root, says(text.replace("{}", REPLIES[name][0])), num_passes=1).score([item()])[0]
    assert (reward.value, reward.parts, reward.num_valid) == (None, {}, 0)
    assert reward.reason in ("NO_SCORE", "AMBIGUOUS", "TRUNCATED")


@pytest.mark.parametrize("name", ASKING)
def test_a_refusal_is_a_refusal_even_with_a_score_in_it(name: str, root: Path) -> None:
    vlm = ScriptedVLM(lambda request: ChatReply(REPLIES[name][0], "scripted", refused=True))
    assert judge(name, root, vlm).score([item()])[0].reason == "REFUSED"


@pytest.mark.parametrize("name", ASKING)
def test_a_draft_is_no_answer(name: str, root: Path) -> None:
    other = {"rationalrewards": rationale("1", "1", "1")}.get(name, '{"score": [0, 0], "final_score": 0}')
    text, value = REPLIES[name][:2]
    for reply in (f"<think>{other}</think>\n{text}", f"<rationale>{other}</rationale>\n{text}", f"{text}\n<notes>{other}</notes>"):
        assert judge(name, root, says(reply), num_passes=1).score([item()])[0].value == pytest.approx(value), reply
    assert judge(name, root, says(f"<plan>{text}</plan> Well."), num_passes=1).score([item()])[0].reason == "NO_SCORE"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"final_score": 10.5}', "OUT_OF_RANGE"),
        ('{"final_score": -1}', "OUT_OF_RANGE"),
        ('{"final_score": NaN}', "AMBIGUOUS"),
        ('{"final_score": true}', "AMBIGUOUS"),
        ('{"final_score": 3, "final_score": 7}', "CONTRADICTORY"),
        ('{"eval_points": [{"question": "q", "score": 1}], "final_sc', "TRUNCATED"),
        ('{"eval_points": []}', "NO_SCORE"),
        ('{"final_score": 3}\n{"final_score": 7}', "NO_SCORE"),
    ],
)
def test_trm_says_why_it_has_no_score(text: str, code: str) -> None:
    assert trm_edit.read([text]) == code


@pytest.mark.parametrize(
    "text",
    ['```json\n{"final_score": 6.25}\n```', 'Result: {"final_score": "6.25"} done', '{"a": [{"b": {"c": 1}}], "final_score": 6.25}'],
)
def test_trm_reads_what_its_own_parser_reads(text: str) -> None:
    assert trm_edit.read([text]) == {"overall": 6.25}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (rationale(text="5"), "OUT_OF_RANGE"),
        (rationale(image="0.5"), "OUT_OF_RANGE"),
        (rationale(physical="3-4"), "AMBIGUOUS"),
        (rationale(physical="good"), "AMBIGUOUS"),
        (rationale(physical="3/10"), "AMBIGUOUS"),
        (rationale(physical="30%"), "AMBIGUOUS"),
        (rationale() + rationale(text="1"), "CONTRADICTORY"),
        (rationale("N/A", "N/A", "N/A", "N/A"), "NO_SCORE"),
        (rationale().replace("3. Physical", "3. Visual"), "NO_SCORE"),
        (rationale().replace("# Summary", section("Text Faithfulness", "1") + "# Summary"), "CONTRADICTORY"),
        (rationale() + "\nI take that back.", "WITHDRAWN"),
        (rationale().replace("2. Image", "I take that back.\n2. Image"), "WITHDRAWN"),
    ],
)
def test_rationalrewards_says_why_it_has_no_score(text: str, code: str) -> None:
    assert rational_preset().read([text]) == code


def test_rationalrewards_counts_the_aspects_that_apply() -> None:
    found = rational_preset().read([rationale(rendering="**1.0** (garbled)")])
    assert isinstance(found, dict)
    assert found["text_rendering"] == 0.0
    assert found["overall"] == pytest.approx((10 + 5 + 8 + 0) / 4)
    loose = rationale("4.0 / 4", "2.5 (sky)", "**3.4**").replace("## Score", "**## Score**")
    assert rational_preset().read([loose]) == rational_preset().read([rationale()])
    spelled = rationale("4/4 (red hat)", "2,5", "3,4", "Not applicable")
    assert rational_preset().read([spelled]) == rational_preset().read([rationale("4", "2.5", "3.4", "N/A")])
    no_image = rational_preset(("text", "physical", "rendering")).read([rationale()])
    assert isinstance(no_image, dict)
    assert no_image["overall"] == pytest.approx((10 + 8) / 2)
    with pytest.raises(ConfigError, match="text, image, physical, rendering"):
        rationalrewards.build(ScriptedVLM(says("")), aspects=["sound"])


def test_unifiedreward_wants_two_numbers_on_each_axis() -> None:
    good = '{"score": [5, 25]}'
    assert unifiedreward_edit.read([good, '{"score": 18}']) == "AMBIGUOUS"
    assert unifiedreward_edit.read([good, '{"score": [25.5, 2]}']) == "OUT_OF_RANGE"


def test_firm_wants_one_number_of_1_to_5_to_each_question() -> None:
    good = '{"score": [5]}'
    assert firm_edit.read([good, '{"score": [5, 5]}']) == "AMBIGUOUS"
    assert firm_edit.read([good, '{"score": [0]}']) == firm_edit.read([good, '{"score": 6}']) == "OUT_OF_RANGE"
    assert firm_edit.read([good, '{"score": 1}']) == {"prompt_following": 10.0, "consistency": 0.0, "overall": 6.0}


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=120) | st.builds(lambda a, b: a + REPLIES["trm_edit"][0][b:], st.text(max_size=9), st.integers(0, 90)))
def test_no_reader_raises_or_leaves_the_scale(text: str) -> None:
    for found in (
        trm_edit.read([text]),
        rational_preset().read([text]),
        unifiedreward_edit.read([text, text]),
        firm_edit.read([text, text]),
    ):
        assert isinstance(found, str) or all(0 <= value <= 10 for value in found.values())


# --- what is asked


def test_each_judge_asks_with_its_own_texts_and_pictures_in_place(root: Path) -> None:
    asked: dict[str, list[ChatRequest]] = {}
    for name in ASKING:
        vlm = ScriptedVLM(says(REPLIES[name][0]))
        judge(name, root, vlm, num_passes=1).score([item("Turn blue")])
        asked[name] = vlm.requests
    shapes = {
        name: [(r.system, tuple(part if isinstance(part, str) else "#" for part in r.parts)) for r in requests]
        for name, requests in asked.items()
    }
    assert shapes["trm_edit"] == [
        (
            "Write a checklist, then final_score from 0 to 10, as JSON.",
            ("#", "#", "Source, then edit.\nEditing instruction: Turn blue\n\nAnswer with JSON."),
        )
    ]
    assert shapes["rationalrewards"] == [
        (
            "You rate edits. Then you refine the request.",
            (
                "User Instruction: Turn blue\n1. Source Image ",
                "#",
                "\n2. Edited Image ",
                "#",
                "\nJudge them.\n\nFour aspects, each with ## Score: from 1 to 4.",
            ),
        )
    ]
    assert shapes["unifiedreward_edit"] == [
        ("", ("#", "#", "From 0 to 25, success and restraint.\nEditing instruction:Turn blue\n")),
        ("", ("#", "From 0 to 25, naturalness and artifacts.")),
    ]
    rest = '\n{\n"score" : [1/2/3/4/5]\n}\n'
    assert shapes["firm_edit"] == [
        ("", ("#", "#", f"\nWas it done? Turn blue{rest}")),
        ("", ("#", "#", f"\nWas the rest kept? Turn blue{rest}")),
    ]
    context = 'You rate pictures. Answer so: {"reasoning" : "...", "score" : [...]}'
    semantic = f"{context}\nTwo pictures follow.\nFrom 0 to 25, success and restraint.\nEditing instruction: Turn blue\n"
    quality = f"{context}\nFrom 0 to 25, naturalness and artifacts."
    assert shapes["editscore"] == [
        ("You are a helpful assistant.", ("<img1>: ", "#", "<img2>: ", "#", semantic)),
        ("You are a helpful assistant.", ("<img1>: ", "#", quality)),
    ]
    for requests in asked.values():
        pictures = request_images(requests[0])
        assert [picture.getpixel((0, 0)) for picture in pictures] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"reasoning": "good", "score": [19, 2', "TRUNCATED"),
        ('{"reasoning": "good", "score": [19, 26]}', "OUT_OF_RANGE"),
        ('{"reasoning": "good", "score": [19]}', "AMBIGUOUS"),
        ('{"reasoning": "good", "score": [19, 20, 21]}', "AMBIGUOUS"),
        ('{"reasoning": "good", "score": []}', "AMBIGUOUS"),
        ('{"reasoning": "good"}', "NO_SCORE"),
        ('{"score": [19, 20], "reasoning": "its score: [ok"}', None),
        ('{"reasoning": "good", "score": [19, 20]}\nI take that back.', "WITHDRAWN"),
    ],
)
def test_editscore_says_why_it_has_no_score(text: str, reason: str | None, root: Path) -> None:
    assert judge("editscore", root, says(text), num_passes=1).score([item()])[0].reason == reason


def test_editscore_asks_each_backbone_as_its_package_does(root: Path) -> None:
    for backbone, order in (("qwen3vl", ["#", "#", "text"]), ("openai", ["text", "#", "#"])):
        vlm = ScriptedVLM(says(REPLIES["editscore"][0]))
        judge("editscore", root, vlm, backbone=backbone, num_passes=1).score([item()])
        assert [("text" if isinstance(part, str) else "#") for part in vlm.requests[0].parts] == order
        assert vlm.requests[0].system == ""
    with pytest.raises(ConfigError, match="known: openai, qwen25vl, qwen3vl"):
        judge("editscore", root, says(""), backbone="gpt")


@pytest.mark.parametrize("name", ASKING)
def test_an_instruction_is_data_wherever_it_stands(name: str, root: Path) -> None:
    vlm = ScriptedVLM(says(REPLIES[name][0]))
    judge(name, root, vlm, num_passes=1).score([item("Say <image> {request} <instruction> {x}")])
    asked = "".join(part for part in vlm.requests[0].parts if isinstance(part, str))
    assert asked.count("Say <image> {request} <instruction> {x}") == 1
    assert len(request_images(vlm.requests[0])) == 2


# --- asked again


def test_an_unscored_edit_is_asked_again_with_more_freedom(root: Path) -> None:
    vlm = ScriptedVLM(lambda request: ChatReply(REPLIES["trm_edit"][0] if request.sampling.temperature else "no idea", "scripted"))
    asked = judge("trm_edit", root, vlm)
    assert asked.score([item()])[0].value is None
    assert PersistentJudge(asked).score([item()])[0].value == 8.3
    assert asked.sampling.temperature == 0.0


def test_a_judge_that_does_not_sample_is_asked_once() -> None:
    class Silent:
        calls = 0

        def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
            Silent.calls += 1
            return [Reward(None, 0, 1, reason="NOT_FINITE") for _ in items]

    assert PersistentJudge(Silent()).score([item()])[0].reason == "NOT_FINITE"
    assert Silent.calls == 1


# --- the real package


def test_editscore_equals_its_package_on_raw_answers(public_data: Path) -> None:
    package = pytest.importorskip("editscore", reason="the package editscore is not installed")
    from editscore import vie_prompts

    path = public_data.parent / "cases" / "engines" / "raw_answers.json"
    rows = json.loads(path.read_text()) if path.is_file() else pytest.skip(f"no raw answers at {path}")
    compared = 0
    for row in rows:
        theirs = [_by_the_package(package, vie_prompts, row, seed) for seed in (0, 1)]
        vlm = ScriptedVLM(lambda request, row=row: ChatReply(row["sc" if len(request_images(request)) == 2 else "pq"], "raw"))
        ours = create("judges", Component("editscore", {"vlm": vlm, "num_passes": 1})).score([item("x")])[0]
        known = theirs[0] is not None and theirs[0] == theirs[1] and max(theirs[0].values()) <= 10
        compared += known
        if known:
            assert {name: ours.parts[name] for name in theirs[0]} == pytest.approx(theirs[0]), row["name"]
        elif row["name"] not in ("score as strings", "fractions 20/25"):  # on which it raises though two numbers stand there
            assert ours.value is None, row["name"]
    assert compared == 16


def _by_the_package(package: Any, texts: Any, row: dict[str, str], seed: int) -> dict[str, float] | None:
    """What EditScore.evaluate makes of two replies; None where it raises. Random where it guesses."""

    class Model:
        def prepare_input(self, images: Any, prompt: str) -> str:
            return "sc" if isinstance(images, list) else "pq"

        def inference(self, prompt: str, seed: int) -> str:
            return row[prompt]

    score = package.EditScore.__new__(package.EditScore)
    score.backbone, score.score_range, score.reduction, score.seed, score.num_pass = "fake", 25, "average_last", 42, 1
    score.SC_prompt, score.PQ_prompt, score.model = texts._prompts_0shot_tie_rule_SC, texts._prompts_0shot_rule_PQ, Model()
    random.seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            found = score.evaluate([1, 2], "x")
        except (TypeError, KeyError, IndexError, ValueError):
            return None
    return {name: float(found[name]) for name in ("prompt_following", "consistency", "perceptual_quality", "overall")}


# --- on a tiny random checkpoint of its class


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model of every class that public judges are trained from."""
    from transformers import AutoTokenizer

    qwen25 = build_tiny_qwen(tmp_path_factory.mktemp("qwen25"))
    models = {"qwen25vl": create("vlm", Component("local", {"path": str(qwen25), "device": "cpu"}))}
    for name, make in (("qwen3vl", tiny_qwen3_vl), ("qwen35", tiny_qwen35)):
        model, processor = make(AutoTokenizer.from_pretrained(qwen25))
        models[name] = LocalVLM(model, processor, name, batch_size=4)
    return models


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("editscore", "qwen25vl"),
        ("editscore", "qwen3vl"),
        ("trm_edit", "qwen35"),
        ("rationalrewards", "qwen3vl"),
        ("firm_edit", "qwen3vl"),
        ("unifiedreward_edit", "qwen25vl"),
        ("unifiedreward_edit", "qwen3vl"),
        ("unifiedreward_edit", "qwen35"),
    ],
)
def test_a_random_model_of_its_class_answers_and_its_nonsense_is_unscored(
    name: str, kind: str, checkpoints: dict[str, Any], root: Path
) -> None:
    options = {"backbone": kind} if name == "editscore" else {}
    asked = judge(name, root, checkpoints[kind], max_tokens=6, num_passes=1, **options)
    rewards = asked.score([item(name="a"), item(name="b")], seed=1)
    assert [reward.value for reward in rewards] == [None, None]
    assert all(reward.num_tokens > 0 and reward.reason for reward in rewards)
    assert [r.reason for r in asked.score([item(name="b")], seed=1)] == [rewards[1].reason]
