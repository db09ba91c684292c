"""Judges behind RewardModel's interface: what they ask, what they read, and that nothing unread becomes a number."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from editr1.bench.base import PartedReward
from editr1.bench.judges._aspects import read_scores
from editr1.bench.judges.pairwise import expected_digit
from editr1.config import Component, available, create
from editr1.errors import BackendError, ConfigError
from editr1.judge.item import RewardItem
from editr1.vlm.base import ChatReply, ChatRequest, TokenAlternatives, request_images
from published_judges import published


class Scripted:
    """Stands for the network: replies by a function of the request."""

    name = "scripted"

    def __init__(self, answer: Callable[[ChatRequest], ChatReply]) -> None:
        self.answer = answer
        self.requests: list[ChatRequest] = []

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        self.requests += requests
        return [self.answer(request) for request in requests]


def says(semantic: str, quality: str) -> Callable[[ChatRequest], ChatReply]:
    """Answers the question about two pictures with `semantic`, the one about a single picture with `quality`."""
    return lambda request: ChatReply(semantic if len(request_images(request)) == 2 else quality, "scripted", num_tokens=5)


def item(name: str = "i") -> RewardItem:
    source, edited = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    return RewardItem(source, edited, 'Say "hi"', id=name)


def test_every_judge_is_found_by_its_file() -> None:
    assert {"rrm", "viescore", "editscore", "mllm_logit"} <= set(available("judges"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return published("editscore", tmp_path_factory.mktemp("published"))


def test_editscore_reproduces_a_users_log(prompts: str) -> None:
    """PF 9.6, C 8.8, PQ 9.2 -> O 8.99777: scores of 25 are 24, 22 and 23."""
    vlm = Scripted(says('{"reasoning": "r", "score": [24, 22]}', '{"reasoning": "r", "score": [23, 25]}'))
    reward = create("judges", Component("editscore", {"prompts": prompts, "vlm": vlm, "num_passes": 1})).score([item()])[0]
    assert isinstance(reward, PartedReward)
    assert reward.value == pytest.approx(8.997777503361593)
    assert (reward.parts["prompt_following"], reward.parts["consistency"], reward.parts["perceptual_quality"]) == (9.6, 8.8, 9.2)


def test_only_the_semantic_question_shows_the_source_and_the_instruction_is_quoted() -> None:
    vlm = Scripted(says('{"score": [7, 8]}', '{"score": [9, 6]}'))
    judge = create("judges", Component("viescore", {"vlm": vlm}))
    assert judge.score([item()])[0].value == pytest.approx(math.sqrt(7 * 6))
    semantic, quality = vlm.requests
    assert sum(isinstance(part, Image.Image) for part in semantic.parts) == 2
    assert sum(isinstance(part, Image.Image) for part in quality.parts) == 1
    assert '"Say \\"hi\\""' in semantic.parts[-1]
    assert semantic.sampling.temperature == 0.0


def test_a_pass_counts_only_when_both_questions_were_answered(prompts: str) -> None:
    replies = iter(["[24, 24]", "nonsense", "[20, 20]", "[20, 20]"])
    vlm = Scripted(lambda request: ChatReply('{"score": ' + next(replies) + "}", "scripted"))
    reward = create("judges", Component("editscore", {"prompts": prompts, "vlm": vlm, "num_passes": 2})).score([item()])[0]
    assert (reward.value, reward.num_valid, reward.num_traces) == (8.0, 1, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "NO_SCORE"),
        ("I cannot help with that.", "NO_SCORE"),
        ('{"score": [7]}', "AMBIGUOUS"),
        ('{"score": [7, 11]}', "OUT_OF_RANGE"),
        ('{"score": "7, 8"}', "AMBIGUOUS"),
        ('{"score": [7, 8', "NO_SCORE"),
    ],
)
def test_an_unread_answer_is_unscored_and_says_why(text: str, reason: str) -> None:
    vlm = Scripted(says(text, '{"score": [5, 5]}'))
    reward = create("judges", Component("viescore", {"vlm": vlm})).score([item()])[0]
    assert (reward.value, reward.reason, reward.num_valid) == (None, reason, 0)
    assert reward.parts == {}


@pytest.mark.parametrize("judge", ["viescore", "mllm_logit"])
def test_a_refusal_is_no_score_and_no_outage(judge: str) -> None:
    vlm = Scripted(lambda request: ChatReply("(refused)", "scripted", refused=True))
    reward = create("judges", Component(judge, {"vlm": vlm})).score([item()])[0]
    assert (reward.value, reward.reason, reward.num_valid) == (None, "REFUSED", 0)


def test_seeds_follow_the_item_and_not_its_place(prompts: str) -> None:
    first, second = Scripted(says("", "")), Scripted(says("", ""))
    create("judges", Component("editscore", {"prompts": prompts, "vlm": first})).score([item("a"), item("b")], seed=3)
    create("judges", Component("editscore", {"prompts": prompts, "vlm": second})).score([item("b")], seed=3)
    assert [r.seed for r in first.requests[8:]] == [r.seed for r in second.requests]
    assert len({r.seed for r in first.requests}) == 16


@settings(deadline=None)
@given(st.text(max_size=80) | st.lists(st.floats() | st.integers(), max_size=4).map(lambda score: json.dumps({"score": score})))
def test_scores_are_never_invented(text: str) -> None:
    found = read_scores(text, 10)
    if found is not None:
        assert len(found) == 2
        assert all(0 <= score <= 10 for score in found)
        stated = json.loads(text)
        assert list(found) == [float(score) for score in (stated["score"] if isinstance(stated, dict) else stated)]


def digits(**weights: float) -> ChatReply:
    position = TokenAlternatives("5", tuple((token.strip("_"), math.log(weight)) for token, weight in weights.items()))
    return ChatReply("5", "scripted", logprobs=(position,))


def test_the_expected_digit() -> None:
    judge = create("judges", Component("mllm_logit", {"vlm": Scripted(lambda request: digits(_5=0.6, _4=0.2, x=0.2))}))
    assert judge.score([item()])[0].value == pytest.approx(2 * (5 * 0.6 + 4 * 0.2) / 0.8)
    lost = create("judges", Component("mllm_logit", {"vlm": Scripted(lambda request: digits(Sure=0.99, _5=0.01))}))
    assert lost.score([item()])[0].value is None
    silent = create("judges", Component("mllm_logit", {"vlm": Scripted(lambda request: ChatReply("5", "scripted"))}))
    with pytest.raises(BackendError, match="no token log-probabilities"):
        silent.score([item()])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*"0123456789", " 3", "²", "5.", "Sure"]) | st.text(max_size=2), st.floats() | st.floats(-9, 0))))
def test_the_expected_digit_lies_between_digits_that_the_model_offered(alternatives: list[tuple[str, float]]) -> None:
    value = expected_digit(TokenAlternatives("x", tuple(alternatives)))
    offered = [2 * int(token) for token, logprob in alternatives if token.strip() in set("012345") and logprob <= 0.01]
    if value is not None:
        assert min(offered) - 1e-9 <= value <= max(offered) + 1e-9


def test_a_judge_without_a_model_and_a_misspelt_option_are_refused(prompts: str) -> None:
    with pytest.raises(ConfigError, match="option 'vlm' is required"):
        create("judges", Component("viescore"))
    with pytest.raises(ConfigError, match="did you mean 'num_passes'"):
        create("judges", Component("editscore", {"prompts": prompts, "vlm": Scripted(says("", "")), "num_pases": 2}))
    with pytest.raises(ConfigError, match="num_passes is 0"):
        create("judges", Component("editscore", {"prompts": prompts, "vlm": Scripted(says("", "")), "num_passes": 0}))
