"""Both orders of a judge of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.bench.base import ComparisonItem, JudgedPair
from editr1.measure.metrics import pairwise_metrics
from editr1.schema import Label, Metric

answers = st.sampled_from(["a", "b", "same", None])
rows = st.lists(st.tuples(st.sampled_from(["a", "b"]), answers, answers), min_size=1, max_size=30)


def report(rows: Sequence[tuple[Label, Label | None, Label | None]]) -> dict[str, Metric]:
    """The figures of (label, forward, reverse); a and b name the edits, forward showed a first."""
    items = [ComparisonItem(str(i), "", lambda: None, label, str(i)) for i, (label, _, _) in enumerate(rows)]  # type: ignore[arg-type, return-value]
    judged = {str(i): JudgedPair(str(i), forward, reverse) for i, (_, forward, reverse) in enumerate(rows)}
    return {metric.protocol.rpartition("/")[2]: metric for metric in pairwise_metrics("x", items, judged)}


def test_known_answers() -> None:
    right = report([("a", "a", "a"), ("b", "b", "b")])
    assert [metric.value for metric in right.values()] == [1.0, 1.0, 1.0, 1.0, None]
    first = report([("a", "a", "b"), ("b", "a", "b")])  # always the first
    assert [first[name].value for name in ("mean-of-orders", "consistency", "first-share")] == [0.5, 0.0, 1.0]
    mixed = report([("a", "a", "b"), ("a", "same", None), ("same", "a", "a")])
    assert (mixed["half"].n, mixed["half"].num_unscored, mixed["half"].tie_rate) == (2, 1, pytest.approx(1 / 3))
    assert [mixed[name].value for name in ("mean-of-orders", "both-right", "half")] == [0.25, 0.0, 0.5]
    assert report([])["consistency"].value is None


@settings(deadline=None)
@given(rows)
def test_exchanging_names_and_orders_changes_nothing_but_the_bias(values: list[tuple]) -> None:
    swap = {"a": "b", "b": "a", "same": "same", None: None}
    found = report(values)
    assert report([(swap[label], swap[r], swap[f]) for label, f, r in values]) == found
    strict, mean, half = (found[name].value for name in ("both-right", "mean-of-orders", "half"))
    assert strict <= mean <= half
