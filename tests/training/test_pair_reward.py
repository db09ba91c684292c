"""The reward function by itself: hand-worked pairs, both callers' dialects, ranks, and what it refuses."""

from __future__ import annotations

import math

import pytest

from editr1.config import Component, create
from editr1.errors import DataError
from editr1.training.options import RewardOptions
from editr1.training.pair_reward import JudgedPair, PairReward, ReadTrace, figures, is_flat, play


def say(score: float | None) -> str:
    return "nothing" if score is None else f"<score>{score}</score>"


def columns(sides: str, pair: list[int], same: bool = False) -> dict[str, object]:
    n = len(sides)
    return {
        "pair": pair,
        "side": list(sides),
        "same": [same] * n,
        "labels": [()] * n,
        "needs_verdicts": [False] * n,
        "prompt_text": [""] * n,
    }


def test_completions_become_ratios_and_figures() -> None:
    logged: dict[str, float] = {}
    texts = [say(7), say(5), say(None), say(5), say(6), say(2)]
    reward = PairReward()
    ratios = reward(texts, **columns("wwwlll", [0] * 6), log_metric=logged.__setitem__)
    # winner: 7 beats all three, 5 beats only 2, the unparsed one nothing; loser against the parsed 7 and 5
    assert ratios == pytest.approx([1, 1 / 3, 0, 0.5, 0.5, 1])
    assert logged["parse_rate"] == pytest.approx(5 / 6)
    assert logged["failed/NO_SCORE"] == pytest.approx(1 / 6)
    assert logged["pair_accuracy"] == 1.0  # mean 6 > mean 13/3
    assert logged["win_ratio"] == pytest.approx(4 / 9)
    assert logged["loss_ratio"] == pytest.approx(2 / 3)
    assert logged["no_opponent"] == 0


def test_messages_and_strings_are_the_same_completion() -> None:
    texts = [say(7), say(5)]
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    assert PairReward()(texts, **columns("wl", [0, 0])) == PairReward()(messages, **columns("wl", [0, 0])) == [1.0, 1.0]


def test_traces_of_a_pair_may_lie_on_different_ranks() -> None:
    scores = [8, 3, 5, 4]
    together = PairReward()([say(s) for s in scores], **columns("wwll", [0] * 4))
    world: list[ReadTrace] = []

    def remember(local: list[ReadTrace]) -> tuple[list[ReadTrace], int]:
        world.extend(local)
        others = [ReadTrace(0, "l", False, float(s), "", 1) for s in scores[2:]] if len(world) == 2 else []
        return [*world, *others], len(world) - len(local)

    ranks = PairReward(gather=remember)
    first = ranks([say(s) for s in scores[:2]], **columns("ww", [0] * 2))
    second = ranks([say(s) for s in scores[2:]], **columns("ll", [0] * 2))
    assert first + second == together


def test_half_a_pair_stops_the_run() -> None:
    with pytest.raises(DataError, match="keep them adjacent"):
        PairReward()([say(7), say(5)], **columns("wl", [0, 1]))


def test_a_truncated_trace_is_told_from_a_mute_one() -> None:
    logged: dict[str, float] = {}
    PairReward(max_tokens=2)(["no score", say(5)], **columns("wl", [0, 0]), completion_ids=[[1, 2], [1]], log_metric=logged.__setitem__)
    assert logged["failed/TRUNCATED"] == 0.5
    assert logged["no_opponent"] == 1.0
    assert "win_ratio" in logged


def test_nothing_parsed_invents_no_figure() -> None:
    traces = [ReadTrace(0, side, False, math.nan, "NO_SCORE", 3) for side in "wl"]
    values = figures(play(traces, RewardOptions()))
    assert values["parse_rate"] == 0.0
    assert not {"pair_accuracy", "pair_ties", "trace_ties", "score_mean"} & values.keys()


def test_same_pairs_reward_closeness_where_asked() -> None:
    reward = PairReward(RewardOptions(same_tolerance=0.5))
    assert reward([say(5), say(8), say(5.4), say(5)], **columns("wwll", [0] * 4, same=True)) == [1.0, 0.0, 0.5, 0.5]


def test_skipping_flat_groups_scales_the_others() -> None:
    texts = [say(7), say(3), say(5), say(5)]  # winner's group: 1, 0; loser's group: 1/2, 1/2 (flat)
    assert PairReward(RewardOptions(skip_flat_groups=True))(texts, **columns("wwll", [0] * 4)) == [2.0, 0.0, 1.0, 1.0]


def test_a_pair_is_flat_when_neither_side_teaches() -> None:
    def match(winners: list[float], losers: list[float]) -> bool:
        traces = [ReadTrace(0, side, False, tau, "", 1) for side, scores in (("w", winners), ("l", losers)) for tau in scores]
        return is_flat(play(traces, RewardOptions())[0])

    assert match([7, 8], [2, 3])  # all win
    assert match([1, 2], [5, 6])  # all lose
    assert not match([7, 3], [5, 5])  # the winner's traces differ in what they beat


def test_length_costs_what_the_option_says() -> None:
    reward = PairReward(RewardOptions(length_penalty=1.0))
    ratios = reward([say(7), say(5)], **columns("wl", [0, 0]), completion_ids=[[0] * 100, [0] * 50])
    assert ratios == pytest.approx([0.9, 0.95])


def test_a_read_trace_earns_the_format_reward_and_both_images_are_one_group() -> None:
    method = create("pair_learning", Component("pd_grpo"))
    reward = PairReward(method=method)
    rewards = reward([say(7), say(None), say(5), say(8)], **columns("wwll", [0] * 4))
    # means of the other image: 6.5 and 7; then .1 for each trace that was read
    assert rewards == pytest.approx([1.1, 0.0, 1.1, 0.1])
    mean, deviation = 2.3 / 4, (((1.1 - 0.575) ** 2 * 2 + 0.575**2 + 0.475**2) / 3) ** 0.5
    assert reward.advantages == pytest.approx([(r - mean) / (deviation + 1e-4) for r in rewards], rel=1e-5)


def test_a_pair_whose_images_differ_is_not_flat_where_both_are_one_group() -> None:
    joint = create("pair_learning", Component("pd_grpo", {"format_reward": 0.0}))

    def match(winners: list[float], losers: list[float]) -> JudgedPair:
        traces = [ReadTrace(0, side, False, tau, "", 1) for side, scores in (("w", winners), ("l", losers)) for tau in scores]
        return play(traces, RewardOptions(), joint)[0]

    assert is_flat(match([4.0, 4.0], [5.0, 5.0]))  # all are wrong
    assert is_flat(match([5.0, 5.0], [4.0, 4.0]))  # all are right
    found = match([5.0, 5.0], [1.0, 9.0])  # w: 5 is not above 5; l: 1 is below 5, 9 is not
    assert not is_flat(found)
    assert found.advantages[0].tolist() == pytest.approx([-0.25 / 0.5001] * 2)
    assert found.advantages[1].tolist() == pytest.approx([0.75 / 0.5001, -0.25 / 0.5001])
    assert figures({0: found})["flat_groups"] == 0.0
