"""Five numbers of pair accuracy, paired tests and preference counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.stats import (
    GSB,
    PairwiseReport,
    accuracy,
    as_margins,
    binomial_p,
    half_credit,
    holm,
    mcnemar,
    mean_estimate,
    paired_difference,
    pairwise_report,
    share_estimate,
    strict_credit,
    to_margins,
)
from editr1.stats.calibration import fit_slope

margins = st.lists(st.none() | st.sampled_from([-2.0, -0.5, 0.0, 0.5, 2.0]), min_size=1, max_size=40)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def values_of(margins: Sequence[float | None]) -> list[float | None]:
    """Half credit, strict and non-tied accuracy."""
    found = [accuracy(margins, credit=credit) for credit in ("half", "strict", "non_tied")]
    return [estimate and estimate.value for estimate in found]


@settings(deadline=None)
@given(margins)
def test_the_credits_average_to_the_accuracy_of_all_pairs(values: list[float | None]) -> None:
    assert pairwise_report(values).n == len(values)
    assert values_of(values)[0] == pytest.approx(half_credit(as_margins(values)).mean())
    assert values_of(values)[1] == pytest.approx(strict_credit(as_margins(values)).mean())


@settings(deadline=None)
@given(margins)
def test_swapping_every_pair_mirrors_half_credit_around_one_half(values: list[float | None]) -> None:
    mirrored = values_of([None if value is None else -value for value in values])
    assert mirrored[0] == pytest.approx(1 - values_of(values)[0])


def test_oracle_constant_and_silent_judges() -> None:
    oracle, constant, silent = ([value] * 50 for value in (1.0, 0.0, None))
    assert (values_of(oracle), pairwise_report(oracle).tie_rate) == ([1.0, 1.0, 1.0], 0.0)
    assert (values_of(constant), pairwise_report(constant).tie_rate) == ([0.5, 0.0, None], 1.0)
    assert (values_of(silent), pairwise_report(silent)) == ([0.5, 0.0, None], PairwiseReport(50, 0, 50))
    assert pairwise_report(silent).tie_rate is None


def test_a_coin_lies_inside_its_interval_around_one_half() -> None:
    values = rng(3).choice([-1.0, 1.0], size=1000)
    estimate = mean_estimate(half_credit(values), np.arange(1000).tolist(), rng=rng())
    assert not estimate.excludes(0.5)


def test_means_of_the_same_scores_in_another_order_are_a_tie() -> None:
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert pairwise_report(to_margins([0.1 + 0.2 + 0.3], [0.3 + 0.2 + 0.1])).num_tied == 1


def test_no_pairs_give_no_numbers() -> None:
    assert values_of([]) == [None, None, None]
    assert pairwise_report([]).tie_rate is None


def test_mcnemar_known_answers() -> None:
    # GPT-4o against Gemini on GenAI-Bench editing: 139 / 161 discordant -> p = .225 although 53.54 and 55.93 look apart
    right_a = [True] * 139 + [False] * 161 + [True] * 353
    right_b = [False] * 139 + [True] * 161 + [True] * 353
    test = mcnemar(right_a, right_b)
    assert (test.only_a, test.only_b) == (139, 161)
    assert test.p_value == pytest.approx(0.225, abs=5e-4)
    assert binomial_p(0, 0) == 1.0
    assert binomial_p(0, 6) == pytest.approx(2 / 64)
    assert 0.0 < binomial_p(2000, 3000) < 1e-40  # no overflow at benchmark size


def test_mcnemar_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        mcnemar([True], [True, False])


def test_paired_difference_sees_what_unpaired_intervals_hide() -> None:
    base = rng(1).normal(5.0, 3.0, size=200)
    result = paired_difference(base, base + 0.2 + rng(2).normal(0, 0.3, size=200), rng=rng())
    assert result.value == pytest.approx(0.2, abs=0.06)
    assert result.excludes(0.0)
    assert result.p_value < 0.01


@pytest.mark.parametrize("seed", range(8))
def test_interval_and_p_never_contradict_each_other(seed: int) -> None:
    a, b = rng(seed).random(30), rng(seed + 100).random(30) + 0.12
    result = paired_difference(a, b, rng=rng())
    assert result.excludes(0.0) == (result.p_value < 0.05)


def test_paired_difference_is_antisymmetric() -> None:
    a, b = rng(1).random(50), rng(2).random(50)
    forward, backward = paired_difference(a, b, rng=rng()), paired_difference(b, a, rng=rng())
    assert forward.value == pytest.approx(-backward.value)
    assert forward.p_value == pytest.approx(backward.p_value)


@pytest.mark.parametrize("seed", range(10))
def test_on_single_right_and_wrong_answers_the_p_is_exact_mcnemars(seed: int) -> None:
    a, b = rng(seed).random(12) < 0.4, rng(seed + 50).random(12) < 0.8
    assert paired_difference(a, b, rng=rng()).p_value == pytest.approx(mcnemar(a, b).p_value)


def test_clusters_flip_together() -> None:
    assert paired_difference([0.0] * 12, [1.0] * 12, [i % 6 for i in range(12)], rng=rng()).p_value == 2 / 64
    assert paired_difference([0.0] * 10, [1.0] * 10, ["s"] * 10, rng=rng()).p_value is None


def test_holm_known_answers() -> None:
    assert holm([]) == []
    assert holm([0.5, 0.001]) == [0.5, 0.002]
    assert holm([0.8, 0.9]) == [1.0, 1.0]


def test_gsb_interval_matches_the_stated_precision() -> None:
    # 30 % "same": half-width about .16 at n=100, .09 at 300, .05 at 1,000
    for n, half in [(100, 0.16), (300, 0.09), (1000, 0.05)]:
        good, same = int(0.45 * n), int(0.3 * n)
        study = GSB(good, same, n - good - same)
        low, high = study.interval()
        assert (high - low) / 2 == pytest.approx(half, abs=0.006)


def test_gsb_is_the_mean_of_signed_votes() -> None:
    study = GSB(7, 2, 1)
    votes = np.array([1.0] * 7 + [0.0] * 2 + [-1.0])
    assert study.value == pytest.approx(votes.mean())
    assert study.variance == pytest.approx(votes.var() / 10)
    assert study.p_value == pytest.approx(binomial_p(7, 1))
    assert GSB(0, 3, 0).win_rate is None
    with pytest.raises(ValueError, match="at least one vote"):
        GSB(0, 0, 0)
    assert math.isclose(GSB(0, 0, 5).interval()[0], -1.0)


def test_what_is_missing_is_left_out_and_is_no_answer() -> None:
    nan = math.nan
    assert mcnemar([nan, 1.0, True, 0.0], [0.0, nan, False, 1.0]) == mcnemar([True, False], [False, True])
    assert holm([0.04, nan, 0.01, None]) == [0.04, None, 0.02, None]
    assert fit_slope([1.0, nan, 1.0, 1.0, -1.0]) == fit_slope([1.0, 1.0, 1.0, -1.0])


def test_an_interval_that_ends_at_0_does_not_leave_it_out_by_rounding() -> None:
    found = paired_difference([0.0, 0, 0, 0, 0, 1], [1.0, 1, 1, 1, 1, 1], rng=np.random.default_rng(0))
    assert found.p_value == pytest.approx(0.0625)
    assert not found.excludes(0.0)


def test_a_credit_lies_in_0_to_1() -> None:
    with pytest.raises(ValueError, match=r"values from 0 to 7, expected \[0, 1\]"):
        share_estimate([0.0, 7.0])
