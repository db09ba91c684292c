"""Laws and known answers of the intervals."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from editr1.stats import bootstrap_mean, bootstrap_share, bootstrap_statistic, clustered_standard_error, wilson
from editr1.stats.intervals import clustered


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_wilson_known_answers() -> None:
    # Newcombe 1998, table I: 81 of 263 -> .2553 to .3662; 0 of 20 -> 0 to .1611; 1 of 29 -> .0061 to .1718
    for right, n, low, high in [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:
        estimate = wilson(right, n)
        assert estimate.low == pytest.approx(low, abs=5e-5)
        assert estimate.high == pytest.approx(high, abs=5e-5)


def test_wilson_is_symmetric_and_refuses_nonsense() -> None:
    assert wilson(3, 10).low == pytest.approx(1 - wilson(7, 10).high)
    for right, n in [(1, 0), (-1, 5), (6, 5)]:
        with pytest.raises(ValueError, match="num_right"):
            wilson(right, n)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_of_independent_items_agrees_with_the_normal_interval(method: str) -> None:
    values = rng(1).normal(3.0, 2.0, size=400)
    estimate = bootstrap_mean(values, rng=rng(), method=method)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.02)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.02)


def test_whole_clusters_are_drawn() -> None:
    """Ten copies of an item carry the information of one: the clustered error ignores the copies, the naive one shrinks by sqrt(10)."""
    values = rng(2).integers(0, 2, size=100).astype(float)
    once = bootstrap_mean(values, rng=rng())
    copied = bootstrap_mean(np.repeat(values, 10), np.repeat(np.arange(100), 10).tolist(), rng=rng())
    naive = bootstrap_mean(np.repeat(values, 10), rng=rng())
    assert copied.standard_error == pytest.approx(once.standard_error, rel=0.05)
    assert naive.standard_error == pytest.approx(once.standard_error / math.sqrt(10), rel=0.05)
    assert (copied.n, copied.num_clusters) == (1000, 100)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_all_or_nothing_has_wilsons_interval_on_its_clusters(value: float) -> None:
    sources = [i % 20 for i in range(200)]
    assert bootstrap_mean([value] * 200, sources, rng=rng()).low == bootstrap_mean([value] * 200, sources, rng=rng()).high == value
    estimate = bootstrap_share([value] * 200, sources, rng=rng())
    assert (estimate.low, estimate.high) == (wilson(20 * int(value), 20).low, wilson(20 * int(value), 20).high)
    assert (estimate.value, estimate.n, estimate.method) == (value, 200, "wilson")
    few = [i < 3 for i in range(200)]  # three decided pairs are three, however many were asked
    assert bootstrap_share([value] * 200, sources, rng=rng(), counts=few).high == wilson(3 * int(value), 3).high
    other = [1.0 - value, *[value] * 199]
    assert bootstrap_share(other, sources, rng=rng()) == bootstrap_mean(other, sources, rng=rng())


def test_the_sandwich_is_what_endless_resampling_gives() -> None:
    clusters = rng(3).integers(0, 60, size=500).tolist()
    values = [0.1 * (cluster % 7) + x for cluster, x in zip(clusters, rng(4).normal(size=500), strict=True)]
    exact = clustered_standard_error(values, clusters)
    drawn = bootstrap_mean(values, clusters, rng=rng(), num_resamples=40_000).standard_error
    assert exact == pytest.approx(drawn, rel=0.02)
    # own clusters: the textbook standard deviation / sqrt(n)
    assert clustered_standard_error(values) == pytest.approx(np.std(values, ddof=1) / math.sqrt(500))
    assert clustered_standard_error([1.0, 2.0], ["x", "x"]) is None


def test_macro_mean_weighs_tasks_equally_and_resamples_inside_each() -> None:
    # task x: 10 items of mean .2, task y: 1000 items of mean .8 -> macro .5; the error comes almost wholly from x: .5*sqrt(.16/10) = .063
    values = [1.0] * 2 + [0.0] * 8 + [1.0] * 800 + [0.0] * 200
    strata = ["x"] * 10 + ["y"] * 1000
    estimate = bootstrap_mean(values, strata=strata, rng=rng())
    assert estimate.value == pytest.approx(0.5)
    assert estimate.standard_error == pytest.approx(0.063, abs=0.003)


def test_bca_follows_skew_and_percentile_does_not() -> None:
    values = rng(3).exponential(size=60)
    plain, corrected = (bootstrap_mean(values, rng=rng(), method=method) for method in ("percentile", "bca"))
    assert corrected.low > plain.low
    assert corrected.high > plain.high


def test_bca_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    values = rng(4).exponential(size=80)
    theirs = bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", rng=rng(5)).confidence_interval
    ours = bootstrap_mean(values, rng=rng(6), method="bca", num_resamples=40_000)
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_coverage_of_clustered_shares_is_near_nominal() -> None:
    """60 clusters of 5 items whose chance of being right is the cluster's own: the 95 % interval covers .6 in 90 to 99 % of 200 draws."""
    generator = rng(7)
    hits = 0
    for _ in range(200):
        chance = generator.beta(1.2, 0.8, size=60)
        values = (generator.random((60, 5)) < chance[:, None]).astype(float).ravel()
        estimate = bootstrap_mean(values, np.repeat(np.arange(60), 5).tolist(), rng=generator, num_resamples=1000)
        hits += not estimate.excludes(0.6)
    assert 180 <= hits <= 198


def test_same_seed_same_bounds() -> None:
    values = rng(8).random(50)
    assert bootstrap_mean(values, rng=rng(9)) == bootstrap_mean(values, rng=rng(9))


def test_one_cluster_has_a_value_and_no_interval() -> None:
    estimate = bootstrap_mean([1.0, 0.0, 1.0, 1.0], ["s"] * 4, rng=rng())
    assert (estimate.value, estimate.low, estimate.high) == (0.75, None, None)
    assert not estimate.excludes(0.0)


def test_items_that_do_not_count_leave_the_denominator() -> None:
    estimate = bootstrap_mean([1.0, math.nan, 0.0], counts=[True, False, True], rng=rng())
    assert (estimate.value, estimate.n) == (0.5, 2)


@pytest.mark.parametrize(("values", "clusters"), [([], None), ([1.0], ["a", "b"]), ([math.nan], None)])
def test_bad_input_is_refused(values: list[float], clusters: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"no items|clusters|not finite"):
        clustered(values, clusters)


def test_ten_thousand_resamples_of_five_thousand_pairs_take_under_two_seconds() -> None:
    values = rng(10).random(5000)
    start = time.process_time()
    bootstrap_mean(values, rng=rng(), num_resamples=10_000)
    assert time.process_time() - start < 2.0


def test_any_statistic_can_be_bootstrapped() -> None:
    values = rng(11).normal(size=200)
    estimate = bootstrap_statistic(lambda index: float(np.median(values[index])), 200, rng=rng(), num_resamples=500)
    assert estimate.low < estimate.value < estimate.high
