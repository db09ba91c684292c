"""Before and after: from the evaluation's gallery, from editor RL's own galleries, and across runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from editr1.report import names_of, render_comparison, same_tasks
from editr1.report.editor import read_comparisons, read_radar
from editr1.report.reading import Album, Reader
from editr1.schema import Metric
from editr1.store import Run
from small_run import make_run


def gallery(run: Run, name: str, edits: list[tuple[str, str, float | None]]) -> None:
    """Writes a gallery of editor RL: (task, colour of the edit, score)."""
    folder = run.dir / "09_editor" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    source = run.images.put(Image.new("RGB", (8, 8), "white")).digest
    rows = []
    for task, colour, score in edits:
        edited = run.images.put(Image.new("RGB", (8, 8), colour)).digest
        row = {
            "task_id": task,
            "instruction": f"do {task}",
            "source": source,
            "edited": edited,
            "score": score,
            "principles": [],
            "rates": [],
        }
        rows.append(json.dumps(row))
    (folder / name).write_text("\n".join(rows) + "\n")


def test_evaluations_of_editor_rl_are_compared_first_with_last(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    gallery(run, "evaluation_000010_0.jsonl", [("a", "red", 5.0), ("b", "red", 6.0)])
    gallery(run, "evaluation_000010_1.jsonl", [("c", "red", 4.0)])  # another process' part
    gallery(run, "evaluation_000020_0.jsonl", [("a", "blue", 1.0)])
    gallery(run, "evaluation_000030_0.jsonl", [("a", "green", 5.5), ("b", "green", 3.0), ("c", "green", None)])
    (found,) = read_comparisons(Reader(run.dir))
    assert (found.before, found.after) == ("iteration 10", "iteration 30")
    assert [pair[0].task for pair in found.pairs] == ["b", "a", "c"]  # changes of -3 and +.5, then the one without a score
    assert found.summary == "3 tasks: 1 better, 1 worse, 0 as before, 1 without two scores; mean change −1.25 of 10"


def test_the_first_tasks_of_an_evaluation_say_what_all_of_them_did(tmp_path: Path) -> None:
    """A gallery of a few tasks may fall where the mean over all rises: both stand there."""
    run = make_run(tmp_path / "run", num_tasks=3)
    shown = len((run.dir / "09_editor" / "gallery.jsonl").read_text().splitlines())
    run.add_metric(Metric("oracle_score_gain", 0.3, 0.1, 0.5, n=1000))
    summary = read_comparisons(Reader(run.dir))[0].summary
    assert summary.startswith(f"The first {shown} of 1,000 tasks: ")
    assert summary.endswith(", over all 1,000 +0.30")


def test_tasks_of_training_that_came_twice_are_compared(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    gallery(run, "training_000025.jsonl", [("a", "red", 5.0), ("a", "black", 9.0), ("b", "red", 1.0)])
    gallery(run, "training_000050.jsonl", [("c", "blue", 5.0)])
    gallery(run, "training_000075.jsonl", [("a", "blue", 7.0), ("a", "black", 0.0)])
    (found,) = read_comparisons(Reader(run.dir))
    assert [(before.score, after.score) for before, after in found.pairs] == [(5.0, 7.0)]  # the first edit of each group


def test_one_evaluation_alone_is_no_comparison(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    gallery(run, "evaluation_000010_0.jsonl", [("a", "red", 5.0)])
    assert read_comparisons(Reader(run.dir)) == []


def test_the_radar_takes_verdicts_of_the_first_and_last_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=6)
    radar = read_radar(Reader(run.dir), {})
    assert radar is not None
    assert radar.before == pytest.approx((0.4 + 10 / 120,) * 3)  # as small_run writes them
    assert radar.after == pytest.approx((0.9,) * 3)
    assert "iterations 10 and 60" in radar.title
    curves = {f"reward/{name}": dict.fromkeys(range(5), 0.2) | dict.fromkeys(range(5, 10), 0.6) for name in ("follow", "keep", "quality")}
    alone = read_radar(Reader(Run.open(tmp_path / "other").dir), curves)
    assert alone is not None
    assert (alone.before, alone.after) == (pytest.approx((0.2,) * 3), pytest.approx((0.6,) * 3))


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [Run.open(tmp_path / name / "run") for name in ("one", "two")]
    for run, score in zip(runs, (4.0, 8.0), strict=True):
        gallery(run, "evaluation_000001_0.jsonl", [("a", "red", 1.0), ("b", "red", 1.0)])
        gallery(run, "evaluation_000002_0.jsonl", [("a", "blue", score), ("b", "blue", 2.0)])
    readers = [Reader(run.dir) for run in runs]
    assert names_of(readers) == ["one/run", "two/run"]
    assert names_of([readers[0], readers[0]]) == ["run (1)", "run (2)"]
    by_name = dict(zip(names_of(readers), readers, strict=True))
    album = Album()
    rows = same_tasks(by_name, {name: read_comparisons(reader) for name, reader in by_name.items()}, album)
    assert [row["instruction"] for row in rows] == ["do a", "do b"]  # the largest difference first
    assert {name: edit["score"] for name, edit in rows[0]["edits"].items()} == {"one/run": 4.0, "two/run": 8.0}


def test_the_comparison_prints_every_figure_of_every_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=2)
    other = Run.open(tmp_path / "other")
    for metric in run.metrics():
        if metric.name == "pair_accuracy/gcpo":
            other.add_metric(dataclasses.replace(metric, value=0.123, low=0.1, high=0.2))
    page = render_comparison([Reader(run.dir), Reader(other.dir)])
    assert "12.3 %" in page
    assert "78.3 %" in page
    for metric in run.metrics():
        assert metric.name in page or metric.name.startswith("stage_seconds/")
