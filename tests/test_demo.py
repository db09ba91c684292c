"""The whole loop, every stage, in miniature: it asserts that the parts meet, never a figure of what they reached."""

from __future__ import annotations

import json

import pytest

from editr1.cli import main
from editr1.store import Run

SMALL = (
    "tasks.source.options.num=60",
    "sft.steps=2",
    "sft.batch_size=8",
    "sft.machine.micro_batch=8",
    "demo.scorer.steps=2",
    "demo.scorer.batch_size=8",
    "gcpo.steps=2",
    "gcpo.pairs_per_step=2",
    "gcpo.num_traces=2",
    "gcpo.machine.micro_batch=8",
    "gcpo.silent_steps=0",  # two steps of SFT teach no score
    "edit_rl.iterations=2",
    "edit_rl.contexts=2",
    "edit_rl.contexts_per_batch=2",
    "edit_rl.group_size=3",
    # Two steps of SFT teach no score; the upper bound of a reward stands in, so that the editor's stage has something to learn from.
    "edit_rl.reward={id: 'editr1.world.oracle:Oracle'}",
    "evaluate.num_pairs=6",
    "evaluate.num_traces=2",
    "evaluate.editor_tasks.options.num=8",
    "evaluate.gallery=4",
)
STAGES = ("tasks", "decompose", "generate", "score", "inspect", "scorer", "sft", "pairs", "gcpo", "edit_rl", "evaluate")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("loop") / "run"
    arguments = ["demo", "--run", str(run_dir), "--threads", "1", *(part for setting in SMALL for part in ("--set", setting))]
    assert main(arguments) == 0
    return run_dir, arguments


def test_every_stage_leaves_its_part_of_the_diagram(finished) -> None:
    run_dir, _ = finished
    for name in ("01_tasks", "02_principles", "03_candidates", "04_traces", "05_inspections", "07_pairs"):
        assert Run.open(run_dir).has(name), name
    for name in ("06_rrm_sft", "06_scorer", "08_rrm_gcpo"):
        assert (run_dir / name / "model.safetensors").exists(), name
    assert (run_dir / "09_editor" / "transformer" / "config.json").exists()
    assert (run_dir / "report.html").exists()
    figures = json.loads((run_dir / "figures.json").read_text())
    assert {figure["name"] for figure in figures["metrics"]} == {metric.name for metric in Run.open(run_dir).metrics()}


def test_every_figure_of_the_table_is_a_metric_line(finished) -> None:
    names = {metric.name for metric in Run.open(finished[0]).metrics()}
    expected = {f"stage_seconds/{stage}" for stage in STAGES}
    expected |= {f"{metric}/{judge}" for metric in ("pair_accuracy", "pair_accuracy_greedy") for judge in ("scorer", "sft", "gcpo")}
    expected |= {f"{metric}/{judge}" for metric in ("verdict_accuracy", "violated_recall") for judge in ("sft", "gcpo")}
    expected |= {f"{metric}/{when}" for metric in ("oracle_score", "oracle_success") for when in ("before", "after")}
    expected |= {"oracle_score_gain", "oracle_success_gain", "pair_accuracy_gain", "pair_accuracy_gain_one_trace"}
    assert expected <= names


def test_a_second_call_has_nothing_left_to_do(finished, capsys) -> None:
    run_dir, arguments = finished
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.safetensors")}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.safetensors")} == before
    told = capsys.readouterr().out
    assert told.count("done before") == len(STAGES)
    first = told.index("verdicts that the inspector confirms")  # long before any judge is trained
    assert told.index("inspect: done before") < first < told.index("scorer: done before")
    assert "lenient" in told[first:]


def test_the_gallery_keeps_the_first_tasks_with_their_images(finished) -> None:
    run = Run.open(finished[0])
    rows = [json.loads(line) for line in (run.dir / "09_editor" / "gallery.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert {"source", "before", "after", "instruction", "score_before", "score_after"} <= rows[0].keys()
