"""Readers of raw scores never invent one: what comes out was written there."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.measure.rows import geometric_mean, in_range, lowest, sub_scores

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3))


@settings(deadline=None)
@given(anything)
def test_nothing_is_invented(raw: object) -> None:
    numbers = sub_scores(raw)
    if numbers is not None:
        assert all(0 <= number <= 10 for number in numbers)
        written = json.loads(raw) if isinstance(raw, str) else raw
        listed = written if isinstance(written, list) else [written]
        assert [float(item) for item in listed] == list(numbers)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_free_text_is_never_a_score(text: str) -> None:
    number = in_range(text)
    assert number is None or float(text) == number


@pytest.mark.parametrize(
    ("raw", "expected"),
    [([0, 10], 0.0), ([7], 7.0), (8, 8.0), (8.5, 8.5), ("9", 9.0), ("[6, 7.5]", 6.0), ([3, 4, 5, 6, 7], 3.0)],
)
def test_forms_that_really_occur(raw: object, expected: float) -> None:
    assert lowest(raw) == expected


@pytest.mark.parametrize(
    "raw", [None, True, [], "", "8/10", "high", [7, None], [7, "x"], [7, 25], [10**400], -1, math.nan, math.inf, {"score": 7}]
)
def test_forms_that_are_no_score(raw: object) -> None:
    assert lowest(raw) is None


def test_a_list_of_one_can_be_refused_since_the_original_script_draws_those_at_random() -> None:
    assert sub_scores([7], num_expected=2) is None


def test_overall_is_missing_when_a_side_is() -> None:
    assert geometric_mean(4.0, 9.0) == 6.0
    assert geometric_mean(None, 9.0) is geometric_mean(4.0, None) is None
