"""The table of a study on hand-made answers: known accuracies, exact tests, and claims that hold, fail or wait."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from PIL import Image

from editr1.bench.base import JudgedEdit
from editr1.bench.own import OwnPairs
from editr1.commands.experiments import as_json, as_markdown, last_line
from editr1.schema import Candidate, EditTask, PreferencePair
from editr1.stats import holm, mcnemar
from editr1.store import Run
from editr1.study.cells import Scored
from editr1.study.config import Cell, Claim, Config
from editr1.study.table import build

HEADER = {"commit": "0123456789abcdef", "packages": {"torch": "2"}}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> OwnPairs:
    """Twenty pairs of twenty tasks; `a` is preferred."""
    run = Run.open(tmp_path_factory.mktemp("pairs") / "run", {})
    ref = run.images.put(Image.new("RGB", (8, 8)))
    made = []
    for number in range(20):
        task = EditTask.make(ref, f"task {number}")
        a, b = (Candidate.make(task.id, ref, "hand", seed) for seed in (0, 1))
        made.append(PreferencePair(task, (), a, b, "a"))
    return OwnPairs(run, tuple(made), "held_out")


def answers(
    pairs: OwnPairs, num_right: int, num_tied: int = 0, num_unscored: int = 0, level: float = 5.0, rows: int = 1000, wobble: float = 0.0
) -> Scored:
    """The first pairs are right, the next tied, the next unscored, the rest wrong; a scored pair's mean score is `level` (+ `wobble`)."""
    judged = {}
    for place, pair in enumerate(pairs.pairs):
        level += wobble if place % 2 else -wobble if place else 0.0
        gap = 1.0 if place < num_right else 0.0 if place < num_right + num_tied else -1.0
        silent = num_right + num_tied <= place < num_right + num_tied + num_unscored
        judged[pair.a.id] = JudgedEdit(pair.a.id, None if silent else level + gap)
        judged[pair.b.id] = JudgedEdit(pair.b.id, level - gap)
    return Scored(pairs, judged, rows, 10)


def config(*claims: Claim) -> Config:
    return Config({name: Cell("sft", "compact", about=name) for name in ("a", "b", "c")}, claims, seeds=(0, 1))


def test_ties_and_silence_count_half_or_wrong(pairs: OwnPairs) -> None:
    row = build(config(), {"a": {0: answers(pairs, 10, num_tied=4, num_unscored=2)}}).rows[0]
    assert row.half.value == (10 + 0.5 * 6) / 20
    assert row.strict.value == 10 / 20
    assert row.tie_rate == pytest.approx(4 / 18)  # of the scored pairs
    assert (row.num_unscored, row.half.n, row.num_rows) == (2, 20, 1000)


def test_seeds_are_pooled_and_their_tasks_stay_apart(pairs: OwnPairs) -> None:
    row = build(config(), {"a": {0: answers(pairs, 20), 1: answers(pairs, 10)}}).rows[0]
    assert row.half.value == 0.75
    assert row.half.num_clusters == 40
    assert row.by_seed == {0: 1.0, 1: 0.5}


def test_the_tests_are_mcnemar_by_holm_over_all_comparisons(pairs: OwnPairs) -> None:
    claim = Claim("E", "b over a", (("a", "b"), ("b", "c")))
    scored = {"a": {0: answers(pairs, 5)}, "b": {0: answers(pairs, 15)}, "c": {0: answers(pairs, 17)}}
    first, second = build(config(claim), scored).tests
    right = [[place < n for place in range(20)] for n in (5, 15, 17)]
    raw = [mcnemar(right[0], right[1]).p_value, mcnemar(right[1], right[2]).p_value]
    assert (first.only_a, first.only_b, second.only_b) == (0, 10, 2)
    assert [first.p, second.p] == raw
    assert [first.p_holm, second.p_holm] == holm(raw)
    assert first.gain.value == pytest.approx(0.5)


def traces_of(pairs: OwnPairs, *num_right: int) -> Scored:
    """As many traces as numbers: by the first one that many pairs are right, and so on; the value is their mean."""
    judged = {}
    for place, pair in enumerate(pairs.pairs):
        gaps = [1.0 if place < n else -1.0 for n in num_right]
        for edit, side in ((pair.a, 1), (pair.b, -1)):
            scores = tuple(5.0 + side * gap for gap in gaps)
            judged[edit.id] = JudgedEdit(edit.id, sum(scores) / len(scores), scores=scores)
    return Scored(pairs, judged, 1000, 10)


def test_one_trace_is_the_mean_accuracy_of_the_traces_and_not_that_of_their_mean(pairs: OwnPairs) -> None:
    scored = {"a": {0: traces_of(pairs, 4, 8, 8)}, "b": {0: traces_of(pairs, 10, 12, 14)}}
    claim = Claim("E", "b over a", (("a", "b"),), min_gain=0.2, p_below=0.05)
    alone = dataclasses.replace(claim, id="E, one trace", one_trace=True)
    table = build(config(claim, alone), scored)
    assert [row.half.value for row in table.rows] == [8 / 20, 12 / 20]  # the mean follows two of three traces
    assert [row.one_trace and row.one_trace.value for row in table.rows] == [pytest.approx(1 / 3), pytest.approx(12 / 20)]
    test = table.tests[0]
    assert test.one_trace is not None
    assert test.one_trace.value == pytest.approx(12 / 20 - 1 / 3)
    assert [verdict.value for verdict in table.verdicts] == [pytest.approx(0.2), pytest.approx(12 / 20 - 1 / 3)]
    assert [verdict.goal.rpartition(", ")[2] for verdict in table.verdicts] == ["each McNemar p < 0.05", "each sign-flip p < 0.05"]
    assert table.verdicts[1].holds is None  # more than .2 was claimed: .27, from .11 to .43, does not tell


def test_an_unreadable_trace_sits_at_chance_and_unknown_traces_hold_no_claim(pairs: OwnPairs) -> None:
    found = traces_of(pairs, 20, 20)
    first = pairs.pairs[0].a.id
    judged = {**found.judged, first: dataclasses.replace(found.judged[first], scores=(6.0, None))}
    row = build(config(), {"a": {0: dataclasses.replace(found, judged=judged)}}).rows[0]
    assert row.one_trace is not None
    assert row.one_trace.value == pytest.approx((20 + 19.5) / 2 / 20)
    claim = Claim("E", "b over a", (("a", "b"),), one_trace=True)
    verdict = build(config(claim), {"a": {0: answers(pairs, 5)}, "b": {0: answers(pairs, 15)}}).verdicts[0]
    assert (verdict.holds, verdict.value, verdict.why) == (False, None, "b over a: the scores of single traces are not known")


def test_a_claim_holds_only_when_every_condition_does(pairs: OwnPairs) -> None:
    scored = {"a": {0: answers(pairs, 5, rows=1000)}, "b": {0: answers(pairs, 15, level=4.0, wobble=0.1, rows=50)}}
    strict = {"p_below": 0.05, "min_gain": 0.04, "stricter": True}
    step = (("a", "b"),)
    good, hungry, too_much, too_lenient = build(
        config(
            Claim("1", "m", step, max_data_share=0.05, **strict),
            Claim("2", "m", step, max_data_share=0.04, **strict),
            Claim("3", "m", step, min_gain=0.6),
            Claim("4", "m", (("b", "a"),)),
        ),
        scored,
    ).verdicts
    assert [good.holds, hungry.holds, too_much.holds, too_lenient.holds] == [True, False, None, False]  # 3: its interval holds .6
    assert good.value == pytest.approx(0.5)
    assert "5.0% of the rows" in good.why


def test_what_else_is_compared_changes_no_claim(pairs: OwnPairs) -> None:
    claim = Claim("1", "m", (("a", "b"),), p_below=0.05)
    scored = {"a": {0: answers(pairs, 5)}, "b": {0: answers(pairs, 11)}, "c": {0: answers(pairs, 5)}}
    alone = build(config(claim), scored)
    beside = build(dataclasses.replace(config(claim), also_compare=(("a", "c"),)), scored)
    assert beside.tests[0].p == alone.tests[0].p < 0.05 < beside.tests[0].p_holm
    assert [table.verdicts[0].holds for table in (alone, beside)] == [True, True]


def test_equal_accuracy_is_no_gain(pairs: OwnPairs) -> None:
    same = build(config(Claim("1", "m", (("a", "b"),))), {name: {0: answers(pairs, 12)} for name in "ab"})
    assert same.verdicts[0].holds is None
    assert same.tests[0].p == 1.0


def test_what_is_not_measured_neither_holds_nor_fails(pairs: OwnPairs) -> None:
    table = build(config(Claim("1", "m", (("a", "b"), ("b", "c")))), {"a": {0: answers(pairs, 5)}, "b": {0: answers(pairs, 15)}, "c": {}})
    assert table.verdicts[0].holds is None
    assert "c over b" in table.verdicts[0].why
    assert last_line("m", table.verdicts)["holds"] is None


def test_cells_of_different_seeds_are_compared_on_the_common_ones(pairs: OwnPairs) -> None:
    scored = {"a": {0: answers(pairs, 5), 1: answers(pairs, 20)}, "b": {0: answers(pairs, 15)}}
    assert build(config(Claim("1", "m", (("a", "b"),))), scored).tests[0].gain.n == 20


def test_the_page_and_the_file_carry_the_same_figures(pairs: OwnPairs) -> None:
    claim = Claim("E1", "b beats a", (("a", "b"),), p_below=0.05)
    made = config(claim)
    table = build(made, {"a": {0: answers(pairs, 5)}, "b": {0: answers(pairs, 15, num_unscored=1)}})
    page = as_markdown("evidence", made, table, HEADER, [0])
    data = json.loads(json.dumps(as_json(made, table, HEADER, [0])))
    assert data["claims"] == [table.verdicts[0].line()]
    assert not any(isinstance(value, float) and math.isnan(value) for cell in data["cells"] for value in cell.values())
    assert "b over a | +52.5" in page  # 15 right and one unscored at half against 5: 10.5 of 20
    assert "`0123456789`" in page
    assert last_line("evidence", table.verdicts) | {"holds": None} == {
        "measure": "evidence: share of claims that hold",
        "value": 1.0,
        "n": 1,
        "goal": "every claim holds",
        "holds": None,
    }
