"""Pairs by how clearly the start tells them apart: scored once, drawn in the shares that were asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from editr1.errors import DataError
from editr1.store import Run
from editr1.training import pair_gaps as pair_gaps_module
from editr1.training.options import HeldOut, Strata
from editr1.training.pair_gaps import HeldOutAccuracy, not_right, pair_gaps, stratified, stratum
from editr1.training.rows import pair_rows, read_pairs
from editr1.vlm.base import ChatReply, ChatRequest, Sampling
from tiny_run import build_tiny_run


class Scripted:
    """Replies in turn; counts what it was asked."""

    name = "scripted"

    def __init__(self, scores: Sequence[float | None]) -> None:
        self.scores = scores
        self.num_asked = 0

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        found = [self.scores[(self.num_asked + i) % len(self.scores)] for i in range(len(requests))]
        self.num_asked += len(requests)
        return [ChatReply("nothing" if score is None else f"<score>{score}</score>", self.name) for score in found]


def test_the_gap_is_that_of_the_means_over_read_traces_and_is_asked_once(tmp_path: Path) -> None:
    run = Run.open(build_tiny_run(tmp_path / "run"))
    rows = pair_rows(run, read_pairs(run, limit=2), "compact_direct", 2, 0)
    judge = Scripted([8, None, 5, 3, None, None, 4, 4])  # pair 0: 8 against 4; pair 1: never read against 4
    path = tmp_path / "out" / "gaps.json"
    assert pair_gaps(rows, path, lambda: judge, Sampling(1.0), 2) == [4.0, None]
    assert judge.num_asked == 8

    def nobody() -> Scripted:
        raise AssertionError("what is known is not asked again")

    assert pair_gaps(rows, path, nobody, Sampling(1.0), 2) == [4.0, None]
    assert json.loads(path.read_text()) == {rows.pairs[0].id: 4.0, rows.pairs[1].id: None}
    assert not list(path.parent.glob("*.partial"))
    assert not_right(rows, [4.0, None]).order == [1]
    with pytest.raises(DataError, match="gets every watched pair right"):
        not_right(rows, [4.0, 0.1])


def test_every_beginning_has_the_shares() -> None:
    gaps = [None, -1.0, 0.0, 0.5, 0.7, 3.0, 4.0, 5.0]  # hard 0-2, medium 3-4, easy 5-7
    order = stratified(gaps, 40, Strata(shares=(0.5, 0.25, 0.25)), seed=0)
    kinds = [stratum(gaps[index], (0.0, 1.0)) for index in order]
    for length in range(1, 41):
        count = Counter(kinds[:length])
        assert all(abs(count[number] - share * length) < 1 for number, share in enumerate((0.5, 0.25, 0.25)))
    assert set(order) == set(range(8))
    assert order == stratified(gaps, 40, Strata(shares=(0.5, 0.25, 0.25)), seed=0)
    assert order != stratified(gaps, 40, Strata(shares=(0.5, 0.25, 0.25)), seed=1)
    assert set(stratified(gaps, 9, Strata(shares=(1.0, 0.0, 0.0)), 0)) == {0, 1, 2}


def test_a_stratum_that_is_wanted_and_empty_is_named() -> None:
    with pytest.raises(DataError, match=r"wants 0.5 easy pairs and there is none"):
        stratified([-1.0, 0.5], 4, Strata(shares=(0.25, 0.25, 0.5)), 0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shares": (0.5, 0.5)}, "expected three"),
        ({"shares": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"edges": (1.0, 0.0)}, "rising order"),
        ({"num_traces": 0}, "at least 1"),
    ],
)
def test_strata_without_a_meaning_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Strata(**options)  # type: ignore[arg-type]


def test_each_output_has_a_curve_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(build_tiny_run(tmp_path / "run"))
    monkeypatch.setattr(pair_gaps_module, "save", lambda trainer, processor, folder, merge: folder.mkdir(parents=True))
    state = SimpleNamespace(global_step=2, is_world_process_zero=True)
    for stage, accuracy in (("gcpo", 0.5), ("gcpo/other", 0.75)):
        look = HeldOutAccuracy(run, None, None, None, Sampling(), 8, HeldOut(every=2), run.dir / stage, stage)  # type: ignore[arg-type]
        monkeypatch.setattr(look, "measure", lambda accuracy=accuracy: {"pair_accuracy": accuracy})
        look.on_step_end(None, state, None)
    assert [run.curves(f"{stage}/held_out")[0]["pair_accuracy"] for stage in ("gcpo", "gcpo/other")] == [0.5, 0.75]
