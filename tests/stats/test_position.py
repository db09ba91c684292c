"""Both orders of a judge of pairs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.measure.pairwise import order_report

answers = st.sampled_from(["a", "b", "same", None])
rows = st.lists(st.tuples(st.sampled_from(["a", "b"]), answers, answers), min_size=1, max_size=30)


def test_known_answers() -> None:
    right = order_report(["a", "b"], ["a", "b"], ["a", "b"])
    assert (*map(sum, right.credits.values()), right.consistency, right.first_share) == (2.0, 2.0, 2.0, 1.0, None)
    mixed = order_report(["a", "a", "same"], ["a", "same", "a"], ["b", None, "a"])
    assert (mixed.n, mixed.num_unscored) == (2, 1)
    assert mixed.credits == {"mean-of-orders": [0.5, 0.0], "both-right": [0.0, 0.0], "half": [0.5, 0.5]}
    assert order_report([], [], []).consistency is None
    with pytest.raises(ValueError, match="expected one each"):
        order_report(["a"], [], [])


@settings(deadline=None)
@given(rows)
def test_exchanging_names_and_orders_changes_nothing_but_the_bias(values: list[tuple]) -> None:
    swap = {"a": "b", "b": "a", "same": "same", None: None}
    report = order_report(*zip(*values, strict=True))
    mirrored = order_report(*zip(*[(swap[label], swap[r], swap[f]) for label, f, r in values], strict=True))
    assert mirrored == report
    strict, mean, half = (report.credits[name] for name in ("both-right", "mean-of-orders", "half"))
    assert all(a <= b <= c for a, b, c in zip(strict, mean, half, strict=True))
