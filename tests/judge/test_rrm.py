"""The reward model: what it averages, what it leaves out, and what it says when there is nothing to average."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from editr1.errors import BackendError, ConfigError
from editr1.judge.decompose import Decomposer, Rules
from editr1.judge.parse import render
from editr1.judge.prompts import exemplars, labels
from editr1.judge.reading import expected_score
from editr1.judge.rrm import RewardItem, RewardModel, build, mean_reward
from editr1.schema import Judgement, Principle
from editr1.vlm.base import ChatReply, Sampling, TokenAlternatives
from scripted_vlm import ScriptedVLM
from tiny_qwen import build_tiny_qwen

SOURCE, EDITED = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
PRINCIPLES = (Principle("Is it blue?", "follow"), Principle("Is it a square?", "keep"))
ITEM = RewardItem(SOURCE, EDITED, "make it blue", PRINCIPLES)


def _says(*judgements: Judgement | None):
    """Answers in turn; None is an answer that does not parse."""
    turn = iter(judgements * 100)

    def answer(request):
        judgement = next(turn)
        return render(judgement, labels(request.context.principles)) if judgement else "I cannot say."

    return ScriptedVLM(answer)


def test_value_is_the_mean_over_parsed_traces_and_rates_are_shares_of_yes():
    vlm = _says(Judgement((True, False), 4.0), None, Judgement((True, True), 8.0))
    reward = RewardModel(vlm, num_traces=3).score([ITEM], seed=1)[0]
    assert (reward.value, reward.num_valid, reward.num_traces) == (6.0, 2, 3)
    assert reward.rates == (1.0, 0.5)
    assert reward.principles == PRINCIPLES
    assert reward.category_means == {"follow": 1.0, "keep": 0.5}
    assert [isinstance(trace.outcome, Judgement) for trace in reward.traces] == [True, False, True]
    assert (reward.num_tokens, reward.seconds, reward.reason) == (30, 1.5, None)
    assert reward.spread == pytest.approx(8**0.5)
    assert mean_reward(()).spread is None


def test_nothing_parsed_is_unscored_with_the_commonest_reason():
    reward = RewardModel(_says(None), num_traces=2).score([ITEM])[0]
    assert (reward.value, reward.scored, reward.reason, reward.rates) == (None, False, "NO_VERDICTS", ())
    assert mean_reward([]).reason == "no trace was made"


def test_seeds_follow_the_item_id_and_not_its_place():
    vlm = _says(Judgement((True, True), 5.0))
    first, second = (RewardItem(SOURCE, EDITED, "x", PRINCIPLES, id=name) for name in "ab")
    RewardModel(vlm, num_traces=2).score([first, second], seed=3)
    RewardModel(vlm, num_traces=2).score([second, first], seed=3)
    seeds = [request.seed for request in vlm.requests]
    assert seeds[:2] == seeds[6:]
    assert seeds[2:4] == seeds[4:6]
    assert len(set(seeds)) == 4


def test_a_judge_without_principles_needs_none():
    vlm = ScriptedVLM(lambda request: "<score>7.5</score>")
    reward = RewardModel(vlm, "direct").score([RewardItem(SOURCE, EDITED, "x")])[0]
    assert (reward.value, reward.rates, reward.principles, reward.category_means) == (7.5, (), (), {})


def test_missing_principles_are_made_once_a_task_and_remembered():
    pool = exemplars()[0].principles

    def answer(request):
        if request.context.role == "decompose":
            return json.dumps([asdict(principle) for principle in pool])
        return render(Judgement((True,) * len(pool), 9.0), labels(pool))

    vlm = ScriptedVLM(answer)
    model = RewardModel(vlm, decomposer=Decomposer(vlm))
    bare = RewardItem(SOURCE, EDITED, "make it blue")
    assert [reward.value for reward in model.score([bare, bare])] == [9.0, 9.0]
    model.score([bare])
    assert [request.context.role for request in vlm.requests].count("decompose") == 1


def test_a_task_that_cannot_be_decomposed_is_unscored_and_says_why():
    vlm = ScriptedVLM(lambda request: "no idea")
    model = RewardModel(vlm, decomposer=Decomposer(vlm, Rules(max_repairs=2)))
    reward = model.score([RewardItem(SOURCE, EDITED, "x")])[0]
    assert reward.value is None
    assert reward.reason == "decomposition failed: there is no JSON array of objects in it"
    assert len(vlm.requests) == 3
    assert "there is no JSON array" in str(vlm.requests[1].parts[-1])
    with pytest.raises(ConfigError, match="no decomposer was given"):
        RewardModel(vlm).score([RewardItem(SOURCE, EDITED, "x")])


def test_async_gives_what_sync_gives():
    vlm = _says(Judgement((True, False), 4.0))
    assert asyncio.run(RewardModel(vlm).score_async([ITEM], seed=2)) == RewardModel(vlm).score([ITEM], seed=2)


def _at(*pairs: tuple[str, float]) -> TokenAlternatives:
    return TokenAlternatives(pairs[0][0], tuple((token, math.log(share)) for token, share in pairs))


@pytest.mark.parametrize(
    ("digits", "value"),
    [
        ([_at(("7", 0.5), ("8", 0.25), ("6", 0.25))], 7.0),
        ([_at(("7", 0.6), ("9", 0.4)), _at((".", 1.0)), _at(("5", 0.5), ("6", 0.5))], 7.8 + 0.55),
        ([_at(("7", 0.75), ("3", 0.25)), _at((".5", 1.0))], 6.5),
        ([_at(("7", 0.5), ("banana", 0.5))], 7.0),  # what is no number has no vote
        ([_at(("1", 0.5), ("8", 0.5)), _at(("0", 1.0))], 9.0),  # one token a digit: the sampled 10 is a 10
        ([_at(("10", 0.5), ("9", 0.5))], 9.5),
        ([_at(("7", 1.0)), _at((".", 1.0)), _at(("2", 0.5), ("4", 0.5)), _at(("5", 1.0))], 7.35),
        ([_at(("7", 1.0)), _at((".25", 0.5), (".75", 0.5))], 7.5),
        # One token a digit: what follows a sampled 1 is known, what follows another 1 is not.
        ([_at(("1", 1.0)), _at(("0", 0.75), ("</", 0.25))], 7.75),
        ([_at(("1", 0.5), ("10", 0.5)), _at(("0", 1.0))], 10.0),
        ([_at(("9", 0.5), ("1", 0.5))], 9.5),
        ([_at(("2", 0.5), ("1", 0.5))], 1.5),
        ([_at(("9", 0.5), ("1", 0.25), ("10", 0.25))], 7.25),
    ],
)
def test_expected_score_by_hand(digits, value):
    positions = [_at(("fine <sc", 1.0)), _at(("ore>", 1.0)), *digits, _at(("</score>", 1.0))]
    sampled = float("".join(position.token for position in digits))
    assert expected_score(positions, sampled) == pytest.approx(value)


def test_a_sampled_one_may_have_been_a_ten():
    positions = [_at(("<score>", 1.0)), _at(("1", 1.0)), _at(("</", 0.75), ("0", 0.25)), _at(("score>", 1.0))]
    assert expected_score(positions, 1.0) == pytest.approx(3.25)


def test_decimals_whose_alternatives_hold_no_number_leave_the_expectation_out():
    positions = [_at(("<score>", 1.0)), _at(("7", 1.0)), _at((".", 1.0)), TokenAlternatives("5", (("</", 0.0),)), _at(("</score>", 1.0))]
    assert expected_score(positions, 7.5) is None  # not 7.0: .5 was said


def test_the_words_of_a_refusal_are_no_judgement():
    text = render(Judgement((True, True), 7.0), ["F1", "K1"])
    reward = RewardModel(ScriptedVLM(lambda request: ChatReply(f"(refused by the endpoint: {text})", "m", refused=True))).score([ITEM])[0]
    assert (reward.value, reward.reason) == (None, "NO_VERDICTS")
    assert text in reward.traces[0].text


def test_expected_mode_replaces_the_sampled_score_and_insists_on_logprobs():
    text = render(Judgement((True, True), 7.0), ["F1", "K1"])
    logprobs = (*(_at((char, 1.0)) for char in text[: text.index("7")]), _at(("7", 0.5), ("9", 0.5)), _at(("</score>", 1.0)))
    vlm = ScriptedVLM(lambda request: ChatReply(text, "m", logprobs=logprobs if request.want_logprobs else ()))
    assert RewardModel(vlm, expected=True).score([ITEM])[0].value == pytest.approx(8.0)
    assert RewardModel(vlm).score([ITEM])[0].value == 7.0
    with pytest.raises(BackendError, match="no token log-probabilities"):
        RewardModel(ScriptedVLM(lambda request: text), expected=True).score([ITEM])
    for others in (logprobs[:5], tuple(_at((f"token:{i}", 1.0)) for i in range(9))):  # only the first positions; vLLM's numbers of tokens
        vlm = ScriptedVLM(lambda request, others=others: ChatReply(text, "m", logprobs=others))
        with pytest.raises(BackendError, match="score 7 they do not spell"):
            RewardModel(vlm, expected=True).score([ITEM])


def test_a_real_tiny_model_says_nonsense_and_stays_unscored(tmp_path):
    folder = build_tiny_qwen(tmp_path)
    model = build({"id": "local", "options": {"path": str(folder)}}, "compact", num_traces=2, max_tokens=8)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    rewards = model.score([ITEM, RewardItem(noise, EDITED, "x", PRINCIPLES)], seed=0)
    assert [reward.value for reward in rewards] == [None, None]
    assert all(reward.reason in ("NO_VERDICTS", "TRUNCATED") for reward in rewards)
    assert all(reward.num_tokens > 0 for reward in rewards)


def test_a_number_of_traces_below_one_and_an_unknown_prompt_are_refused():
    with pytest.raises(ConfigError, match="num_traces is 0"):
        RewardModel(_says(None), num_traces=0)
    with pytest.raises(ConfigError, match="unknown score prompt"):
        RewardModel(_says(None), "tvv", sampling=Sampling())
    with pytest.raises(ConfigError, match="must be an id or"):
        build({"name": "local"})
