"""Laws and known answers of the intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from editr1.stats import clustered_standard_error, mean_estimate, paired_difference, share_estimate, share_of_sums
from editr1.stats.clusters import clustered
from editr1.stats.intervals import score_bounds


def wilson(right: int, n: int) -> Any:
    return binomtest(right, n).proportion_ci(0.95, method="wilson")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_wilson_known_answers() -> None:
    # Newcombe 1998, table I: 81 of 263 -> .2553 to .3662; 0 of 20 -> 0 to .1611; 1 of 29 -> .0061 to .1718
    for right, n, low, high in [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:
        estimate = share_estimate([1.0] * right + [0.0] * (n - right))
        assert estimate.low == pytest.approx(low, abs=5e-5)
        assert estimate.high == pytest.approx(high, abs=5e-5)


def test_our_wilson_bounds_are_scipys_where_both_exist() -> None:
    z = 1.959963984540054
    for right, n in [(0, 1), (1, 1), (7, 9), (81, 263), (399, 400), (20, 20)]:
        exact = wilson(right, n)
        assert score_bounds(right / n, n, z) == pytest.approx((exact.low, exact.high), abs=1e-15)
        answers = [1.0] * right + [0.0] * (n - right)
        assert share_estimate(answers).low == pytest.approx(exact.low, abs=1e-12)
        assert share_estimate(answers).high == pytest.approx(exact.high, abs=1e-12)


def test_independent_items_agree_with_the_normal_interval() -> None:
    values = rng(1).normal(3.0, 2.0, size=400)
    estimate = mean_estimate(values, rng=rng())
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)


def test_a_few_differences_of_one_sign_leave_room_on_both_sides_of_zero() -> None:
    """Sign flips alone would end at 0 exactly, whatever the seven zeros."""
    estimate = mean_estimate([-1.0] + [0.0] * 7, rng=rng())
    assert estimate.low < -0.3
    assert estimate.high > 0.15


def test_the_interval_of_a_mean_holds_what_sign_flips_or_students_t_keep() -> None:
    """8 clusters: hypotheses just inside have p > .05 and just outside p <= .05, by an enumeration of 256 patterns and by scipy's t."""
    values, clusters = rng(5).normal(1.0, 1.0, size=20), [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 6, 6, 7, 7]
    sizes = np.bincount(clusters)
    estimate = mean_estimate(values, clusters, rng=rng())

    def p_of(hypothesis: float) -> float:
        sums = np.bincount(clusters, weights=values) - hypothesis * sizes
        signs = 1 - 2 * (np.arange(256)[:, None] >> np.arange(8) & 1)
        flips = float(np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12))
        freedom = min(7.0, 1 / float(((sizes / 20) ** 2).sum()))
        return max(flips, float(2 * student.sf(abs(estimate.value - hypothesis) / estimate.standard_error, freedom)))

    for bound, outward in ((estimate.low, -1e-6), (estimate.high, 1e-6)):
        assert p_of(bound + outward) <= 0.05 < p_of(bound - outward)


def test_copies_in_a_cluster_say_nothing_new() -> None:
    values = rng(2).integers(0, 2, size=100).astype(float)
    copies, sources = np.repeat(values, 10), np.repeat(np.arange(100), 10).tolist()
    once, copied, naive = mean_estimate(values, rng=rng()), mean_estimate(copies, sources, rng=rng()), mean_estimate(copies, rng=rng())
    assert copied.standard_error == pytest.approx(once.standard_error)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert naive.standard_error == pytest.approx(once.standard_error / math.sqrt(10), rel=0.01)
    assert (copied.n, copied.num_clusters) == (1000, 100)
    share = share_estimate(copies, sources)
    assert (share.low, share.high) == pytest.approx((share_estimate(values).low, share_estimate(values).high), abs=0.005)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_all_or_nothing_has_wilsons_interval_on_its_clusters(value: float) -> None:
    """Each source counts as one answer, and the interval is a little wider than Wilson's: how alike its answers are is not known."""
    estimate = share_estimate([value] * 200, [i % 20 for i in range(200)])
    exact = wilson(20 * int(value), 20)
    assert abs(estimate.high - estimate.low - (exact.high - exact.low)) < 0.02
    assert (estimate.value, estimate.n, estimate.num_clusters) == (value, 200, 20)
    few = [i < 3 for i in range(200)]  # three decided pairs are three, however many were asked
    assert share_estimate([value] * 200, counts=few).high == pytest.approx(wilson(3 * int(value), 3).high)


def test_equal_values_claim_no_certainty() -> None:
    estimate = mean_estimate([7.0] * 200, [i % 20 for i in range(200)], rng=rng())
    assert (estimate.value, estimate.low, estimate.high) == (7.0, None, None)


def test_the_standard_error_is_nearly_that_of_leaving_each_cluster_out() -> None:
    clusters = rng(3).integers(0, 60, size=500).tolist()
    values = np.array([0.1 * (cluster % 7) + x for cluster, x in zip(clusters, rng(4).normal(size=500), strict=True)])
    without = [values[[c != left for c in clusters]].mean() for left in range(60)]
    jackknife = math.sqrt(59 / 60 * sum((mean - values.mean()) ** 2 for mean in without))
    assert clustered_standard_error(values, clusters) == pytest.approx(jackknife, rel=0.01)
    # own clusters: the textbook standard deviation / sqrt(n)
    assert clustered_standard_error(values) == pytest.approx(np.std(values, ddof=1) / math.sqrt(500))
    assert clustered_standard_error([1.0, 2.0], ["x", "x"]) is None


def test_macro_mean_weighs_tasks_equally() -> None:
    # task x: 10 items of mean .2, task y: 1000 items of mean .8 -> macro .5; the error comes almost wholly from x: .5*sqrt(.16/9) = .067
    values = [1.0] * 2 + [0.0] * 8 + [1.0] * 800 + [0.0] * 200
    strata = ["x"] * 10 + ["y"] * 1000
    for estimate in (mean_estimate(values, strata=strata, rng=rng()), share_estimate(values, strata=strata)):
        assert estimate.value == pytest.approx(0.5)
        assert estimate.standard_error == pytest.approx(0.067, abs=0.001)
        assert 0.2 < estimate.high - estimate.low < 0.28


def test_a_task_of_one_source_leaves_the_macro_mean_without_an_interval() -> None:
    estimate = mean_estimate([1.0, 2.0, 3.0], strata=["x", "x", "y"], rng=rng())
    assert (estimate.value, estimate.low) == (2.25, None)


@pytest.mark.parametrize(("low", "high", "num_sources"), [(5.5, 6.5, 8), (0.93, 0.97, 12)])
def test_coverage_from_eight_sources_on(low: float, high: float, num_sources: int) -> None:
    """400 data sets of unequal sources: the 95 % interval covers the truth in 92 to 98.5 %; `benchmarks/coverage.py` is exact."""
    generator, hits = rng(7), 0
    for _ in range(400):
        truth, sizes = generator.uniform(low, high), generator.integers(1, 9, size=num_sources)
        sources = np.repeat(np.arange(num_sources), sizes)
        if truth > 1:
            values = truth + generator.normal(size=num_sources)[sources] + generator.normal(size=len(sources))
            estimate = mean_estimate(values, sources.tolist(), rng=generator)
        else:
            values = generator.random(len(sources)) < generator.beta(9 * truth, 9 * (1 - truth), size=num_sources)[sources]
            estimate = share_estimate(values, sources.tolist())
        hits += not estimate.excludes(truth)
    assert 0.92 <= hits / 400 <= 0.985


def test_below_six_sources_there_is_an_interval_and_no_p() -> None:
    found = paired_difference([0.0] * 5, [1.0, 2.0, 1.0, 2.0, 1.0], rng=rng())
    assert found.p_value is None
    assert found.excludes(0.0)
    assert paired_difference([0.0] * 6, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], rng=rng()).p_value == 2 / 64


def test_sums_by_cluster_give_what_the_items_give() -> None:
    values, clusters = rng(8).integers(0, 2, size=60).astype(float), np.arange(60) % 7
    tops, bottoms = np.bincount(clusters, weights=values), np.bincount(clusters)
    found, expected = share_of_sums(tops, bottoms), share_estimate(values, clusters.tolist())
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_same_seed_same_bounds() -> None:
    values = rng(8).random(50)
    assert mean_estimate(values, rng=rng(9)) == mean_estimate(values, rng=rng(9))


def test_one_cluster_has_a_value_and_no_interval() -> None:
    estimate = mean_estimate([1.0, 0.0, 1.0, 1.0], ["s"] * 4, rng=rng())
    assert (estimate.value, estimate.low, estimate.high) == (0.75, None, None)
    assert not estimate.excludes(0.0)


def test_items_that_do_not_count_leave_the_denominator() -> None:
    estimate = mean_estimate([1.0, math.nan, 0.0], counts=[True, False, True], rng=rng())
    assert (estimate.value, estimate.n) == (0.5, 2)


@pytest.mark.parametrize(("values", "clusters"), [([], None), ([1.0], ["a", "b"]), ([math.nan], None)])
def test_bad_input_is_refused(values: list[float], clusters: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"no items|clusters|not finite"):
        clustered(values, clusters)
