"""Pair accuracy of a run's own pairs: oracle, constant, coin, silence, and blindness to the order of sides."""

from __future__ import annotations

import random

import pytest

from editr1.errors import DataError
from editr1.measure.metrics import pair_metrics, paired_gain
from editr1.schema import Candidate, EditTask, ImageRef, PreferencePair, Principle


def make_pairs(num_tasks: int = 40, per_task: int = 3, seed: int = 0) -> list[PreferencePair]:
    rng = random.Random(seed)
    image = ImageRef("0" * 64)
    principles = (Principle("Is it there?", "follow"),)
    pairs = []
    for t in range(num_tasks):
        task = EditTask.make(image, f"edit {t}", kind=("add", "remove")[t % 2])
        for k in range(per_task):
            a, b = (Candidate.make(task.id, image, editor, k) for editor in ("x", "y"))
            pairs.append(PreferencePair(task, principles, a, b, rng.choice(["a", "b", "a", "b", "same"]), "ann"))
    return pairs


def oracle_scores(pairs: list[PreferencePair]) -> tuple[list[float], list[float]]:
    return [8.0 if p.label == "a" else 2.0 for p in pairs], [8.0 if p.label == "b" else 2.0 for p in pairs]


def by_name(metrics: list) -> dict:
    return {metric.name: metric for metric in metrics}


def test_an_oracle_is_right_on_all_and_keeps_an_honest_lower_bound() -> None:
    pairs = make_pairs()
    found = by_name(pair_metrics("pair_accuracy/oracle", pairs, *oracle_scores(pairs), "pairs/avg4"))
    assert {m.value for m in found.values()} == {1.0}
    half = found["pair_accuracy/oracle"]
    assert half.protocol == "pairs/avg4/half"
    assert half.low < 1.0 == half.high
    assert half.n == sum(p.label != "same" for p in pairs)
    assert half.by_category == {"add": 1.0, "remove": 1.0}


def test_a_constant_judge_is_never_right_and_every_pair_is_a_reported_tie() -> None:
    pairs = make_pairs()
    same = [5.0] * len(pairs)
    found = by_name(pair_metrics("pair_accuracy/constant", pairs, same, same, "pairs/greedy"))
    assert found["pair_accuracy_strict/constant"].value == 0.0
    assert found["pair_accuracy/constant"].value == 0.5
    assert found["pair_accuracy_non_tied/constant"].value is None
    assert found["pair_accuracy/constant"].tie_rate == 1.0


def test_a_coin_lies_inside_its_interval_around_one_half() -> None:
    pairs, rng = make_pairs(200), random.Random(5)
    scores = [[rng.random() for _ in pairs] for _ in range(2)]
    half = pair_metrics("pair_accuracy/coin", pairs, *scores, "pairs/greedy")[0]
    assert half.low < 0.5 < half.high


def test_unscored_pairs_are_wrong_in_strict_half_in_half_credit_and_counted() -> None:
    pairs = [p for p in make_pairs() if p.label != "same"]
    scores_a, scores_b = oracle_scores(pairs)
    silent = [None, *scores_a[1:]]
    found = by_name(pair_metrics("pair_accuracy/x", pairs, silent, scores_b, "pairs/greedy"))
    n = len(pairs)
    assert found["pair_accuracy_strict/x"].value == pytest.approx((n - 1) / n)
    assert found["pair_accuracy/x"].value == pytest.approx((n - 0.5) / n)
    assert found["pair_accuracy_non_tied/x"].value == 1.0
    assert found["pair_accuracy/x"].num_unscored == 1


def test_accuracy_does_not_see_which_side_is_a() -> None:
    pairs, rng = make_pairs(), random.Random(1)
    scores = {p.id + side: rng.choice([None, 1.0, 2.0, 3.0]) for p in pairs for side in "ab"}
    a, b = [scores[p.id + "a"] for p in pairs], [scores[p.id + "b"] for p in pairs]
    forward = pair_metrics("pair_accuracy/x", pairs, a, b, "pairs/greedy")
    assert forward == pair_metrics("pair_accuracy/x", [p.swapped() for p in pairs], b, a, "pairs/greedy")


def test_a_gain_is_paired_and_a_judge_gains_nothing_on_itself() -> None:
    pairs, rng = make_pairs(), random.Random(2)
    coin = ([rng.random() for _ in pairs], [rng.random() for _ in pairs])
    nothing = paired_gain("pair_accuracy_gain", pairs, [coin], [coin], "pairs/avg4")
    assert (nothing.value, nothing.p_value) == (0.0, 1.0)
    gain = paired_gain("pair_accuracy_gain", pairs, [coin], [oracle_scores(pairs)], "pairs/avg4")
    assert gain.low > 0
    assert gain.p_value < 0.001


def test_a_gain_over_several_readings_is_the_mean_of_theirs_and_told_more_sharply() -> None:
    pairs, rng = make_pairs(), random.Random(3)
    truth = oracle_scores(pairs)
    noisy = [tuple([score + rng.gauss(0, 4) for score in side] for side in truth) for _ in range(8)]
    coins = [([rng.random() for _ in pairs], [rng.random() for _ in pairs]) for _ in range(8)]
    alone = [paired_gain("g", pairs, [coin], [reading], "pairs/one_trace") for coin, reading in zip(coins, noisy, strict=True)]
    together = paired_gain("g", pairs, coins, noisy, "pairs/one_trace")
    assert together.n == alone[0].n
    assert together.value == pytest.approx(sum(gain.value for gain in alone) / len(alone))
    assert together.high - together.low < min(gain.high - gain.low for gain in alone)


def test_no_decisive_pair_gives_no_number() -> None:
    pairs = [p for p in make_pairs() if p.label == "same"]
    scores = [1.0] * len(pairs)
    assert all(m.value is None for m in pair_metrics("pair_accuracy/x", pairs, scores, scores, "pairs/greedy"))
    assert paired_gain("g", pairs, [(scores, scores)], [(scores, scores)], "pairs/greedy").value is None


def test_scores_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="expected one score a side"):
        pair_metrics("pair_accuracy/x", make_pairs(), [1.0], [1.0], "pairs/greedy")
