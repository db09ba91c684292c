"""`editr1 best-of-n` from a run's pairs and from judged files of editors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench_judges import ByName
from editr1.bench.base import Outcome
from editr1.cli import main
from editr1.schema import to_json
from tiny_run import build_tiny_run


def values(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, float]:
    assert main(["best-of-n", *map(str, argv), "--json"]) == 0
    return {row["protocol"]: row["value"] for row in map(json.loads, capsys.readouterr().out.splitlines())}


def outcomes(path: Path, scores: list[float | None], unit: str = "score") -> Path:
    rows = [Outcome(f"t{i}", f"t{i}", "add", score, unit) for i, score in enumerate(scores)]
    path.write_text("".join(to_json(row) + "\n" for row in rows))
    return path


def test_people_are_the_referee_of_a_runs_own_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ByName.folder = build_tiny_run(tmp_path / "run", num_tasks=4)
    run = str(ByName.folder)
    assert main(["bench", "pairs", "--run", run, "--set", "split=all", "--judge", "bench_judges:ByName"]) == 0
    capsys.readouterr()
    found = values(capsys, "--run", run, "--judged", "bench_pairs_ByName", "--split", "all", "--picks", tmp_path / "picks.jsonl")
    assert (found["best-of-n/judge"], found["best-of-n/random"], found["best-of-n/oracle"], found["best-of-n/gain"]) == (1.0, 0.5, 1.0, 0.5)
    picks = [json.loads(line) for line in (tmp_path / "picks.jsonl").read_text().splitlines()]
    assert all(len(row["picked"]) == 1 and row["score"] == 9.0 for row in picks)
    assert len(picks) == 4


def test_editors_on_one_benchmark_with_another_judge_as_referee(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = []
    judge = {"x": [9.0, 1.0, 5.0, 5.0, None], "y": [1.0, 9.0, 5.0, None, None]}
    referee = {"x": [8.0, 2.0, 6.0, 7.0, 3.0], "y": [4.0, 6.0, 2.0, 9.0, None]}
    for editor in "xy":
        words += ["--edits", editor, outcomes(tmp_path / f"j{editor}", judge[editor]), outcomes(tmp_path / f"r{editor}", referee[editor])]
    picks = tmp_path / "picks.jsonl"
    found = values(capsys, *words, "--picks", picks)
    # four tasks: the fifth has an edit without a referee. Picks: x 8, y 6, a tie (6 + 2) / 2, and x 7 since y has no score.
    assert found["best-of-n/judge"] == pytest.approx((8 + 6 + 4 + 7) / 4)
    assert found["best-of-n/random"] == pytest.approx((6 + 4 + 4 + 8) / 4)
    assert found["best-of-n/best-editor"] == pytest.approx((8 + 2 + 6 + 7) / 4)
    assert found["best-of-n/oracle"] == pytest.approx((8 + 6 + 6 + 9) / 4)
    assert [json.loads(line)["picked"] for line in picks.read_text().splitlines()] == [["x"], ["y"], ["x", "y"], ["x"]]
    assert main(["best-of-n", *map(str, words)]) == 0
    assert "left out: 1 tasks with an edit that the referee did not score, 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--judged", "bench_pairs_rrm"], "give --run DIR"),
        (["--edits", "x", "good", "good"], "at least twice"),
        (["--edits", "x", "good", "good", "--edits", "x", "good", "good"], "names an editor twice"),
        (["--edits", "x", "good", "good", "--edits", "y", "pairs", "pairs"], "credits of pairs"),
        (["--edits", "x", "good", "good", "--edits", "y", "none", "none"], "no outcome rows"),
        (["--edits", "x", "good", "silent", "--edits", "y", "good", "silent"], "no task is left: 2 tasks"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes(Path("good"), [1.0, 2.0])
    outcomes(Path("silent"), [None, None])
    outcomes(Path("pairs"), [1.0, 0.0], "credit")
    code = main(["best-of-n", *argv])
    err = capsys.readouterr().err
    assert (code, message in err, len(err.strip().splitlines())) == (2, True, 1), err
