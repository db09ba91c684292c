"""Rationales of human pairs: written with the answer, kept where it can be told from them, learnt without it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from editr1.config import Component
from editr1.errors import DataError
from editr1.schema import Judgement, Outcome, ParseFailure, Trace
from editr1.stages import rationales, sft
from editr1.store import Drop, Engine, Run, Work
from editr1.training.rows import RATIONALES, Rationale, SelectedTraces, read_pairs, read_rationales
from editr1.vlm.base import ChatRequest
from scripted_vlm import ScriptedVLM
from tiny_run import build_tiny_run

asked: list[ScriptedVLM] = []


def writer() -> ScriptedVLM:
    """Knows what people prefer when it is told, and judges at random otherwise."""

    def answer(request: ChatRequest) -> str:
        hint = request.parts[-1] if isinstance(request.parts[-1], str) else ""
        score = 8 if "preferred this one" in hint else 3 if "preferred the other" in hint else random.Random(request.seed).randint(0, 10)
        return f"F1 -> yes\nK1 -> yes\nQ1 -> no\n<score>{score}</score>"

    asked.append(ScriptedVLM(answer))
    return asked[-1]


def config(**changes: object) -> rationales.Config:
    base = {"writer": Component(f"{__name__}:writer"), "prompt_id": "compact", "num_traces": 3, "engine": Engine(progress=False)}
    return rationales.Config(**{**base, **changes})  # type: ignore[arg-type]


def trace(outcome: Outcome, seed: int = 0) -> Trace:
    return Trace("x", "text", outcome, "m", "compact", 1.0, seed)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.open(build_tiny_run(tmp_path / "run", num_tasks=6))


def test_only_traces_from_which_the_answer_can_be_told_are_kept(run: Run) -> None:
    pair = read_pairs(run)[0]
    won = [trace(Judgement((), score), seed) for seed, score in enumerate((3.0, 5.0))]
    lost = [trace(Judgement((), score), 10 + seed) for seed, score in enumerate((4.0, 5.0, 9.0))]
    kept = {rationales.choose(pair, won, lost, seed) for seed in range(20)}
    assert kept == {Rationale(pair.id, won[1], lost[0])}  # the only two in the right order; a tie tells nothing
    dropped = rationales.choose(pair, won[:1], lost, 0)
    assert isinstance(dropped, Drop)
    assert dropped.reason.startswith("not_predictable")
    unparsed = rationales.choose(pair, [trace(ParseFailure("NO_SCORE"))], lost, 0)
    assert isinstance(unparsed, Drop)
    assert unparsed.reason.startswith("unparsed")


def test_a_writer_that_is_told_explains_every_pair(run: Run) -> None:
    counts = rationales.run(config(), run.dir)
    assert (counts.num_in, counts.num_out) == (6, 6)
    hints = [request.parts[-1] for request in asked[-1].requests]
    assert len(hints) == 6 * 2 * 3
    assert set(hints) == set(rationales.HINTS.values())
    again = rationales.run(config(), run.dir)
    assert again.num_out == 6


def test_a_pair_that_one_person_answered_twice_is_explained_once(run: Run) -> None:
    pairs = list(run.read("07_pairs"))
    shutil.rmtree(run.dir / "07_pairs")
    items = ((str(number), pair) for number, pair in enumerate([*pairs, pairs[0]]))
    run.process("07_pairs", items, Work(lambda: list), settings={"held_out_share": 0.0})
    counts = rationales.run(config(), run.dir)
    assert (counts.num_in, counts.num_out, counts.reasons) == (7, 6, {"duplicate": 1})


def test_without_telling_the_answer_rejects(run: Run) -> None:
    counts = rationales.run(config(tell=False, num_traces=1), run.dir)
    assert 0 < counts.num_out < counts.num_in
    assert counts.reasons == {"not_predictable": counts.num_dropped}
    assert not any(isinstance(request.parts[-1], str) for request in asked[-1].requests)
    assert all(row.winner.outcome.score > row.loser.outcome.score for row in run.read(RATIONALES, Rationale))


def test_the_student_never_sees_the_answer(run: Run) -> None:
    rationales.run(config(), run.dir)
    rows = read_rationales(run)
    pairs = read_pairs(run)
    assert [row.candidate for row in rows] == [edit for pair in pairs for edit in (pair.winner, pair.loser)]
    lesson = SelectedTraces(run, rows, "compact")[0]
    assert not any(isinstance(part, str) and "people" in part for part in lesson.request.parts)
    assert lesson.completion.endswith("<score>8</score>")


def test_the_same_pairs_as_gcpo(run: Run) -> None:
    rationales.run(config(max_pairs=4), run.dir)
    assert len(read_rationales(run, max_pairs=2)) == 4
    assert [p.id for p in read_pairs(run, limit=2)] == [row.pair_id for row in run.read(RATIONALES, Rationale)][:2]
    with pytest.raises(ValueError, match="for lessons=rationales"):
        sft.Config("m", max_pairs=2)


def test_nothing_kept_is_an_error(run: Run) -> None:
    run.process(RATIONALES, [], rationales.Work(lambda: list), settings={}, record=rationales.Rationale)
    with pytest.raises(DataError, match="no rationale"):
        read_rationales(run)
    assert json.loads((run.dir / RATIONALES / "counts.json").read_text())["num_out"] == 0
