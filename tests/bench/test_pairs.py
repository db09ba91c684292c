"""`editr1 bench pairs`: a judge about a run's own pairs, with their principles; and ids that cannot be judged say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench_files import png
from bench_judges import ByName
from editr1.bench.base import JudgedEdit
from editr1.bench.own import open_pairs
from editr1.cli import main
from editr1.store import Run
from tiny_run import PRINCIPLES, build_tiny_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    ByName.folder, ByName.seen = build_tiny_run(tmp_path / "run", num_tasks=4), []
    return ByName.folder


def test_a_judge_is_asked_once_an_edit_with_the_pairs_principles(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "pairs", "--run", str(run_dir), "--set", "split=train", "--judge", "bench_judges:ByName", "--json"]
    assert main(command) == 0
    found = {row["protocol"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (found["pairs/train/strict"]["value"], found["pairs/train/strict"]["n"]) == (1.0, 4)
    assert len({item.id for item in ByName.seen}) == len(ByName.seen) == 8
    assert all(item.principles == PRINCIPLES for item in ByName.seen)
    outcomes = (run_dir / "bench_pairs_ByName.outcomes.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in outcomes] == [1.0] * 4
    moved = run_dir.rename(run_dir.with_name("moved"))
    command[3] = str(moved)
    ByName.folder = moved
    assert main(command) == 0  # a moved run is continued, and nothing is asked again
    assert len(ByName.seen) == 8


def test_a_coin_an_oracle_a_constant_and_silence(run_dir: Path) -> None:
    benchmark = open_pairs(run_dir, "all")
    better = {pair.winner.id for pair in benchmark.pairs}
    keys = [edit.key for edit in benchmark.edits()]

    def strict(judged: dict[str, JudgedEdit]) -> tuple[float | None, int, float | None]:
        metric = next(m for m in benchmark.metrics(judged) if m.protocol == "pairs/all/strict")
        return metric.value, metric.num_unscored, metric.tie_rate

    assert strict({key: JudgedEdit(key, 9.0 if key in better else 1.0) for key in keys}) == (1.0, 0, 0.0)
    assert strict({key: JudgedEdit(key, 5.0) for key in keys}) == (0.0, 0, 1.0)
    assert strict({})[:2] == (0.0, 4)


def test_judges_of_pairs_see_both_edits(run_dir: Path) -> None:
    benchmark = open_pairs(run_dir, "all", limit=2)
    items = list(benchmark.comparisons())
    assert [item.label for item in items] == ["a", "a"]
    assert len(items[0].load()) == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bench", "pairs"], "option 'run' is required"),
        (["bench", "pairs", "--run", "RUN"], "no decisive pair of split held_out"),
        (["bench", "pairs", "--run", "RUN", "--set", "split=test"], "expected one of held_out, train, all"),
        (["bench", "pairs", "--run", "RUN", "--set", "limit=0"], "at least 1"),
        (["bench", "pairs", "--run", "nowhere"], "there is no run at nowhere"),
        (["bench", "viescore_pairs", "--root", "X", "--run", "RUN"], "stored outputs, without pictures to judge: editr1 aggregate"),
    ],
)
def test_bad_input_is_one_line(run_dir: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    code = main([str(run_dir) if word == "RUN" else word for word in argv])
    err = capsys.readouterr().err
    assert (code, message in err, len(err.strip().splitlines())) == (2, True, 1), err


def test_a_broken_picture_is_unscored(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.open(run_dir, create=False)
    run.images.path(next(iter(run.read("07_pairs"))).a.image).write_bytes(png(3, 64)[:-30])
    assert main(["bench", "pairs", "--run", str(run_dir), "--set", "split=all", "--judge", "bench_judges:ByName", "--json"]) == 0
    found = {row["protocol"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (found["pairs/all/strict"]["num_unscored"], found["pairs/all/strict"]["value"]) == (1, 0.75)
