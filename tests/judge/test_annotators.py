"""Annotators against gold: a worked example, and the laws that the counts obey."""

from __future__ import annotations

from editr1.judge.inspect import AnnotatorCount
from editr1.schema import Judgement, ParseFailure, Principle, Trace

PRINCIPLES = (Principle("a?", "follow"), Principle("b?", "keep"))


def trace(outcome, model: str = "m") -> Trace:
    return Trace("q", "", outcome, model, "tv", 0.7, 0)


def test_a_worked_example_by_category():
    count = AnnotatorCount()
    # Task 1: follow right (yes), keep passed though violated. Task 2: both right. An unparsed trace counts beside.
    count.add_traces("1", PRINCIPLES, (True, False), [trace(Judgement((True, True), 9.0)), trace(ParseFailure("NO_SCORE", ""))])
    count.add_traces("2", PRINCIPLES, (False, False), [trace(Judgement((False, False), 1.0))])
    (found,) = count.result().annotators
    assert (found.name, found.num_traces, found.num_unparsed, found.n) == ("m · tv · T 0.7", 3, 1, 4)
    assert found.accuracy == 0.75
    assert found.low is not None
    assert found.low <= 0.75 <= found.high
    follow, keep = (row.counts for row in found.categories)
    assert (follow.both_yes, follow.both_no, follow.n) == (1, 1, 2)
    assert (keep.only_judge_yes, keep.both_no, keep.violated_recall) == (1, 1, 0.5)


def test_annotators_are_kept_apart_and_gold_that_is_missing_compares_nothing():
    count = AnnotatorCount()
    for model in ("m", "n"):
        count.add_traces("1", PRINCIPLES, (), [trace(Judgement((True, True), 9.0), model)])
    assert [(row.name[0], row.accuracy, row.n, row.num_unparsed, row.categories) for row in count.result().annotators] == [
        ("m", None, 0, 0, ()),
        ("n", None, 0, 0, ()),
    ]
