"""Correlations, agreement, calibration, ties and K-way: known answers and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.bench.editreward_tiger import argsort_right, chance, group_tau
from editr1.stats import binomial_p
from editr1.stats.agreement import (
    VerdictAgreement,
    cohen_kappa,
    correlation_gain,
    kendall_tau_b,
    krippendorff_alpha,
    mean_correlation,
    merge_ties,
    pooled_correlation,
    spearman,
)
from editr1.stats.calibration import best_epsilon, calibrate, calibration_of, fit_slope, folds, three_class, three_class_credit

small = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=25)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_last_bit_does_not_rank_unless_a_notebook_wants_it() -> None:
    means = [sum(votes) / 3 for votes in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.3, 0.1])]
    assert len(set(means)) > 1
    assert len(set(merge_ties([*means, 0.0]).tolist())) == 2
    assert spearman(means, [1, 2, 3]) is kendall_tau_b(means, [1, 2, 3]) is None
    assert spearman(means, [1, 2, 3], exact=True) is not None
    assert merge_ties([]).tolist() == []


@settings(deadline=None)
@given(small)
def test_a_missing_value_is_no_value(points: list[tuple[int, int]]) -> None:
    x, y = [float(p[0]) for p in points], [float(p[1]) for p in points]
    holes = ([*x, math.nan, 1.0], [*y, 1.0, math.nan])
    assert spearman(*holes) == spearman(x, y)
    assert kendall_tau_b(*holes) == kendall_tau_b(x, y)
    assert spearman([math.nan] * 3, [1, 2, 3]) is None
    units = [[*point, math.nan] for point in points]
    assert krippendorff_alpha(units, "interval") == krippendorff_alpha([list(point) for point in points], "interval")
    assert cohen_kappa([*x, math.nan, 1.0], [*y, 1.0, None]) == cohen_kappa(x, y)
    assert mean_correlation([0.5, math.nan, None]).num_dropped == 2
    assert group_tau([math.nan, 8.0], [1, 2]) is None
    assert not argsort_right([math.nan, 1.0], [1, 2])


def test_fisher_mean_lies_beyond_the_plain_one_and_tanh_of_the_mean_does_not() -> None:
    found = mean_correlation([0.1, 0.5, 0.8, None])
    assert found.plain == pytest.approx(1.4 / 3)
    assert found.fisher == pytest.approx(math.tanh((math.atanh(0.1) + math.atanh(0.5) + math.atanh(0.8)) / 3))
    assert found.tanh_of_mean == pytest.approx(math.tanh(1.4 / 3))
    assert found.tanh_of_mean < found.plain < found.fisher
    assert (found.num_groups, found.num_dropped) == (3, 1)
    assert mean_correlation([1.0, 0.5]).fisher is None
    assert mean_correlation([None]).plain is None


def test_kappa_known_answers() -> None:
    # Wikipedia's table 20 / 5 / 10 / 15: observed .7, expected .5 -> .4
    first = "y" * 25 + "n" * 25
    second = "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert VerdictAgreement(20, 5, 10, 15).kappa == pytest.approx(0.4)
    assert cohen_kappa("yy", "yy") is None
    with pytest.raises(ValueError, match="two ratings"):
        cohen_kappa("y", "yy")


def test_alpha_on_krippendorffs_own_example() -> None:
    none = None
    raters = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, none, none, none],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, none, 3],
        [none, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, none],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, none],
    ]
    units = [list(unit) for unit in zip(*raters, strict=True)]
    for scale, expected in [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]:
        assert krippendorff_alpha(units, scale) == pytest.approx(expected, abs=5e-4)
    assert krippendorff_alpha([[1, none], [2]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None


def test_verdict_agreement_known_answers() -> None:
    found = VerdictAgreement(1, 1, 1, 1)
    assert (found.accuracy, found.violated_recall, found.kappa) == (0.5, 0.5, 0.0)
    assert VerdictAgreement(3, 0, 0, 0).violated_recall is None


def test_calibration_known_answers() -> None:
    coin = calibration_of([0.5] * 4, [1, 0, 1, 0])
    assert coin.log_loss == pytest.approx(math.log(2))
    assert coin.ece == 0.0
    # always "1" and right 3 of 4 times: ECE .25, Brier .25
    sure = calibration_of([1.0] * 4, [1, 1, 1, 0], num_bins=1)
    assert sure.ece == 0.25
    assert math.isfinite(sure.log_loss)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration_of([1.5], [1])


def test_the_fitted_slope_recovers_the_true_one_and_leaves_little_error() -> None:
    gap = np.abs(rng(1).normal(0, 2, size=4000))
    margins = np.where(rng(2).random(4000) < 1 / (1 + np.exp(-0.8 * gap)), gap, -gap)
    found = calibrate(margins, rng=rng())
    assert found.slope == pytest.approx(0.8, abs=0.08)
    assert found.temperature == pytest.approx(1 / found.slope)
    assert found.ece < 0.04
    assert found.log_loss < math.log(2)


def test_slope_of_useless_wrong_and_perfect_judges_is_bounded() -> None:
    assert fit_slope([-1.0, -2.0]) == pytest.approx(0.0, abs=1e-9)
    assert fit_slope([0.0, 0.0]) == pytest.approx(0.0, abs=1e-9)
    assert fit_slope([10.0, 20.0]) <= 100.0


def test_calibration_counts_unscored_and_scores_ties_half() -> None:
    found = calibrate([1.0, None, 0.0, 2.0, math.nan], rng=rng())
    assert (found.n, found.num_unscored) == (3, 2)


def test_folds_hold_whole_clusters_and_need_two() -> None:
    keys = [f"s{i // 4}" for i in range(40)]
    found = folds(keys, 5, rng())
    assert all(len(set(found[4 * c : 4 * c + 4])) == 1 for c in range(10))
    assert np.bincount(found).tolist() == [8] * 5
    with pytest.raises(ValueError, match="at least two"):
        folds(["s"] * 3, 5, rng())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, math.nan]), st.sampled_from([-1, 0, 1])), min_size=1, max_size=20))
def test_best_epsilon_is_the_best_of_all_and_at_least_the_floor(rows: list[tuple[float, int]]) -> None:
    gaps, labels = np.array([r[0] for r in rows]), [r[1] for r in rows]
    chosen = three_class_credit(gaps, labels, best_epsilon(gaps, labels)).mean()
    assert chosen == max(three_class_credit(gaps, labels, epsilon).mean() for epsilon in (0.0, 0.5, 1.0, 2.0))
    scored_ties = np.mean([label == 0 and not math.isnan(gap) for gap, label in rows])
    assert chosen >= scored_ties


def test_in_sample_epsilon_lifts_a_coin_to_the_floor() -> None:
    labels = rng(1).choice([0, 0, 0, 1, -1], size=2000).tolist()
    found = three_class(rng(2).normal(size=2000), labels, rng=rng())
    assert found.in_sample >= found.always_tie
    assert found.in_sample >= found.credit.mean()


def test_an_oracle_of_three_classes_is_right_everywhere() -> None:
    labels = [1, -1, 0] * 30
    found = three_class([3.0 * label for label in labels], labels, rng=rng())
    assert found.credit.mean() == found.in_sample == 1.0
    assert three_class([None] * 90, labels, rng=rng()).in_sample == 0.0
    last_bit = (0.1 + 0.2 + 0.3) / 3 - (0.3 + 0.2 + 0.1) / 3
    assert three_class([last_bit, 3.0, -3.0, 2.0, 4.0, -2.0], [0, 1, -1, 1, 1, -1], rng=rng()).credit.tolist() == [1.0] * 6


def test_chance_levels_and_their_simulation() -> None:
    assert chance(2, "argsort") == chance(2, "pairs") == 0.5
    assert chance(4, "argsort") == pytest.approx(1 / 24)
    assert chance(4, "pairs-with-ties") == pytest.approx(3**-6)
    hits = sum(argsort_right(rng(seed).random(3).tolist(), [1, 2, 3]) for seed in range(600))
    assert binomial_p(hits, 600 - hits) < 1  # far from a half
    assert hits / 600 == pytest.approx(1 / 6, abs=0.05)
    with pytest.raises(ValueError, match="no ranking"):
        chance(1, "pairs")


def test_kway_treats_missing_and_tied_as_wrong() -> None:
    assert not argsort_right([None, 1.0], [1, 2])
    assert not argsort_right([1.0, 1.0], [1, 2])
    assert argsort_right([2.0, 1.0, 5.0], [2, 2, 1])  # two images share the second place
    assert group_tau([9.0, 8.0, 7.0], [1, 2, 3]) == 1.0
    assert group_tau([None, 8.0], [1, 2]) is None


def test_the_gain_of_a_judge_inside_groups_is_paired_by_group() -> None:
    """Two judges whose noise is the same part: the interval of their difference is narrower than either's, and that of a bootstrap."""
    rng = np.random.default_rng(3)
    groups = []
    for _ in range(120):
        truth, common, own = rng.normal(size=(3, 4))
        groups.append([part - part.mean() for part in (truth, truth + 2 * common + 0.8 * own, truth + 2 * common)])
    first, second = ([(group[judge], group[0]) for group in groups] for judge in (1, 2))
    alone = [pooled_correlation(judge, np.random.default_rng(0)) for judge in (first, second)]
    gain = correlation_gain(first, second, np.random.default_rng(0))
    assert gain is not None
    assert all(alone)
    assert gain.value == pytest.approx(alone[1].value - alone[0].value)
    assert gain.high - gain.low < 0.6 * (alone[0].high - alone[0].low)
    draws = []
    for _ in range(2000):
        drawn = rng.integers(len(groups), size=len(groups))
        joint = [np.concatenate([groups[i][judge] for i in drawn]) for judge in (0, 1, 2)]
        draws.append(np.corrcoef(joint[0], joint[2])[0, 1] - np.corrcoef(joint[0], joint[1])[0, 1])
    assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.01)
    assert correlation_gain(first, [(0 * scores, truth) for scores, truth in second], rng) is None
