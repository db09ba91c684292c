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
    assert (right.mean_of_orders, right.both_right, right.consistency, right.first_share) == (1.0, 1.0, 1.0, None)
    mixed = order_report(["a", "a", "same"], ["a", "same", "a"], ["b", None, "a"])
    assert (mixed.n, mixed.mean_of_orders, mixed.half_credit, mixed.num_unscored) == (2, 0.25, 0.5, 1)
    assert order_report([], [], []).mean_of_orders is None
    with pytest.raises(ValueError, match="expected one each"):
        order_report(["a"], [], [])


@settings(deadline=None)
@given(rows)
def test_exchanging_names_and_orders_changes_nothing_but_the_bias(values: list[tuple]) -> None:
    swap = {"a": "b", "b": "a", "same": "same", None: None}
    report = order_report(*zip(*values, strict=True))
    mirrored = order_report(*zip(*[(swap[label], swap[r], swap[f]) for label, f, r in values], strict=True))
    assert mirrored == report
    assert report.both_right <= report.mean_of_orders <= report.half_credit
