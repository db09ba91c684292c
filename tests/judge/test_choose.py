"""Laws of the selector."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from editr1.judge.inspect import choose
from editr1.schema import Judgement, ParseFailure

FAILED = ParseFailure("NO_SCORE")


def rank(outcome):
    return outcome.average, outcome.score


outcomes = st.lists(
    st.one_of(
        st.just(FAILED),
        st.builds(Judgement, st.tuples(st.booleans(), st.booleans()), st.integers(0, 4).map(float)),
    ),
    max_size=4,
)


def test_accuracy_then_average_then_score_then_index_decides():
    gold = (True, False, True, False)
    half_yes, half_no = Judgement((True, True, True, True), 5.0), Judgement((False,) * 4, 9.0)
    assert choose([half_no, half_yes], gold, 0.5).index == 1  # same accuracy, higher average
    assert choose([half_no, Judgement((False,) * 4, 9.5)], gold, 0.5).index == 1  # higher score
    assert choose([half_no, half_no], gold, 0.5).index == 0  # full tie
    assert choose([half_yes, Judgement(gold, 0.0)], gold, 0.5) == (1, 1.0, None)


@given(outcomes, st.tuples(st.booleans(), st.booleans()))
def test_order_matters_only_in_a_full_tie_and_an_unparsed_trace_is_never_chosen(found, gold):
    chosen = choose(found, gold, 0.5)
    if chosen.index is not None:
        assert found[chosen.index] is not FAILED
    for shuffled in itertools.permutations(found):
        again = choose(shuffled, gold, 0.5)
        assert (again.accuracy, again.reason) == (chosen.accuracy, chosen.reason)
        if chosen.index is not None and again.index is not None:
            assert rank(shuffled[again.index]) == rank(found[chosen.index])


def test_a_dropped_quadruple_says_why():
    assert choose([FAILED], (True,)).reason == "no trace parsed"
    assert choose([Judgement((True, True), 5.0)], (True,)).reason == "no trace parsed"  # another number of verdicts
    assert choose([Judgement((True, True), 5.0)], (False, True), 0.7) == (None, 0.5, "best accuracy 0.50 is under 0.70")
