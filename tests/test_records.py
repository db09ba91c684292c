"""Records as JSON: what was written comes back equal, and nothing else comes back at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.schema import (
    CATEGORIES,
    FAILURE_CODES,
    SCHEMA_VERSION,
    EditTask,
    ImageRef,
    Inspection,
    Judgement,
    Metric,
    ParseFailure,
    Principle,
    TaskPrinciples,
    Trace,
    from_json,
    to_json,
)

TRACE = Trace("q" * 16, "It is.\u2028Yes.", Judgement((True, False), 6.5), "m", "tv", 0.7, 5, 400, 2000)
UNREAD = replace(TRACE, outcome=ParseFailure("NO_SCORE", "..."))
PRINCIPLES = TaskPrinciples(EditTask.make(ImageRef("a" * 64), "x"), (Principle("Is it?", "follow"), Principle("Was it?", "keep")))

finite = st.floats(allow_nan=False, allow_infinity=False)
outcomes = st.builds(Judgement, st.lists(st.booleans()).map(tuple), st.floats(0, 10)) | st.builds(
    ParseFailure, st.sampled_from(FAILURE_CODES), st.text()
)
traces = st.builds(Trace, st.text(), st.text(), outcomes, st.text(), st.text(), finite, st.integers(0, 2**31 - 1))
principles = st.builds(Principle, st.text(), st.sampled_from(CATEGORIES))


@given(traces | st.builds(TaskPrinciples, st.just(PRINCIPLES.task), st.lists(principles).map(tuple)))
def test_what_was_written_comes_back(record: Any) -> None:
    line = to_json(record)
    assert "\n" not in line
    assert from_json(type(record), line) == record == from_json(type(record), line.encode())


@pytest.mark.parametrize(
    "record",
    [
        UNREAD,
        Inspection("q", (True,), ("because",), None, None, "refused"),
        Inspection("q", (), (), 3, 0.5),
        Metric("m", None, by_category={"a": 1.0}, holds=False),
        Metric("m", 1.0),
    ],
)
def test_records_of_every_shape_come_back(record: Any) -> None:
    assert from_json(type(record), to_json(record)) == record


def changed(**values: Any) -> str:
    return json.dumps(json.loads(to_json(TRACE)) | values)


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(to_json(TRACE)).items() if key != name})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (changed(schema=99), f"schema version 99, this program reads version {SCHEMA_VERSION}"),
        (changed(schema=99, other=1), "schema version 99"),
        (without("schema"), "schema version None"),
        (without("text"), "missing required field `text`"),
        (changed(modell="m"), "unknown field `modell`"),
        (changed(seed="5"), r"Expected `int`, got `str` - at `\$.seed`"),
        (changed(seed=True), "Expected `int`, got `bool`"),
        (changed(temperature=10**400), "larger than any float"),
        (changed(outcome={"verdicts": [True], "score": 11}), "outside"),
        (changed(outcome={"verdicts": [1], "score": 1}), "Expected `bool`"),
        (changed(outcome={"score": 5.0}), "expected Judgement or ParseFailure, found the fields score"),
        (changed(outcome={"verdicts": [], "score": 5.0, "code": "NO_SCORE"}), "expected Judgement or ParseFailure"),
        (changed(outcome={"code": "NO_SUCH"}), "NO_SUCH"),
        (changed(outcome=None), "got `null`"),
        ("[1]", "Expected `object`, got `array`"),
        ("{", "truncated"),
        (changed(temperature=float("nan")), "malformed"),
        ("", "truncated"),
    ],
)
def test_anything_else_is_a_value_error_that_names_it(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Trace, line)


def test_half_a_surrogate_pair_is_replaced_and_not_a_number_is_refused() -> None:
    assert from_json(Trace, to_json(replace(TRACE, text="nice \ud83d"))).text == "nice \ufffd"
    assert from_json(Trace, to_json(replace(TRACE, text="nice \U0001f600"))).text == "nice \U0001f600"
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            to_json(replace(TRACE, temperature=bad))


@dataclass(frozen=True)
class Nested:
    traces: tuple[Trace, ...]
    best: Trace | None = None
    notes: dict[str, str] = field(default_factory=dict)
    tokens: tuple[tuple[str, float], ...] = ()


def test_records_in_records_come_back() -> None:
    for record in (Nested((TRACE, UNREAD), UNREAD, {"a": "b"}, (("a", -0.1),)), Nested(())):
        assert from_json(Nested, to_json(record)) == record
    with pytest.raises(ValueError, match=r"unknown field `texts` - at `\$.traces\[0\]`"):
        from_json(Nested, to_json(Nested((TRACE,))).replace('"text"', '"texts":1,"text"'))
