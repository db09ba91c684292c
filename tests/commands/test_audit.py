"""`editr1 audit` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit_judges import items
from editr1.audit.probes import cases_from_run
from editr1.cli import main
from editr1.store import Run, is_held_out
from fake_endpoint import completion, serve
from tiny_run import build_tiny_run, build_tiny_verifier


@pytest.fixture
def table(tmp_path) -> str:
    rows = []
    for item in items(12):
        item.source.save(tmp_path / f"{item.id}-source.png")
        item.edited.save(tmp_path / f"{item.id}.png")
        principles = [{"question": principle.question, "category": principle.category} for principle in item.principles or ()]
        rows.append(
            {"source": f"{item.id}-source.png", "edited": f"{item.id}.png", "instruction": item.instruction, "principles": principles}
        )
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _audit(*args: str) -> int:
    return main(["audit", *args])


def test_the_exit_code_says_whether_the_laws_hold(table, capsys):
    assert _audit("--table", table, "--judge", "audit_judges:Sound") == 0
    said = capsys.readouterr().out
    assert said.count("holds") == 10
    assert _audit("--table", table, "--judge", "{id: 'audit_judges:Gullible'}") == 1
    said = capsys.readouterr().out
    assert "BROKEN   unedited" in said
    assert "broken by row-1 (8.0)" in said
    assert _audit("--table", table, "--judge", "audit_judges:Gullible", "--probes", "blends") == 0


def test_a_benchmark_judge_is_probed_with_the_model_that_the_options_name(table, capsys):
    with serve(lambda body: completion('{"score": [8, 9], "reasoning": "fine"}')) as endpoint:
        args = ("--judge", "viescore", "--model", "m", "--base-url", endpoint.url, "--probes", "resized,unedited", "--edits", "3")
        assert _audit("--table", table, *args) == 1  # it likes everything: jitter does not move it, nor does the missing edit
    said = capsys.readouterr().out
    assert "holds    resized" in said
    assert "BROKEN   unedited" in said


def test_json_names_every_broken_edit(table, capsys):
    assert _audit("--table", table, "--judge", "audit_judges:Nervous", "--probes", "resized", "--json", "--edits", "5") == 1
    said = json.loads(capsys.readouterr().out)
    (probe,) = said["probes"]
    assert probe["name"] == "audit/resized"
    assert len(probe["broken"]) == 5 - round(5 * probe["value"])
    assert len(probe["broken"][0]["scores"]) == 2


def test_a_run_keeps_the_figures_and_a_random_checkpoint_is_unscored(tmp_path, capsys):
    run_dir = build_tiny_run(tmp_path / "run")
    checkpoint = build_tiny_verifier(tmp_path / "model")
    judge = ("--checkpoint", str(checkpoint), "--prompt", "compact", "--max-tokens", "12")
    assert _audit("--run", str(run_dir), *judge, "--probes", "unedited,resized") == 1
    said = capsys.readouterr().out
    assert "UNSCORED unedited" in said
    assert "3 unscored" in said
    metrics = {metric.name: metric for metric in Run.open(run_dir).metrics()}
    assert metrics["audit/unedited/model"].value is None
    assert metrics["audit/unedited/model"].num_unscored == 3
    assert json.loads((run_dir / "audit" / "model.json").read_text())["probes"][0]["name"] == "unedited"


def test_perturb_reports_what_moves(tmp_path, capsys):
    run_dir = build_tiny_run(tmp_path / "run", num_tasks=6)
    (run_dir / "07_pairs" / "settings.json").write_text('{"held_out_share": 1.0}')
    assert _audit("--run", str(run_dir), "--perturb", "--judge", "audit_judges:ByPrinciples") == 0
    said = capsys.readouterr().out
    assert "propagation/negate/score_change" in said
    names = {metric.name for metric in Run.open(run_dir).metrics()}
    assert "propagation/drop/verdict_accuracy_change/ByPrinciples" in names
    assert _audit("--run", str(run_dir), "--perturb", "--judge", "audit_judges:ByPrinciples", "--json") == 0
    assert json.loads(capsys.readouterr().out)["amount"] == 1


def test_a_silent_judge_is_said_before_all_edits_are_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = build_tiny_run(tmp_path / "run", num_tasks=10)
    (run_dir / "07_pairs" / "settings.json").write_text('{"held_out_share": 1.0}')
    for how in ([], ["--perturb"]):
        assert _audit("--run", str(run_dir), "--judge", "audit_judges:Silent", *how) == 2
        assert "none of the first 8 edits got a readable answer (NO_VERDICTS 8)" in capsys.readouterr().err
    assert not (run_dir / "audit").exists()


def test_a_page_shows_every_judge_of_the_run_with_its_command_and_intervals(tmp_path):
    run_dir = build_tiny_run(tmp_path / "run", num_tasks=6)
    (run_dir / "07_pairs" / "settings.json").write_text('{"held_out_share": 1.0}')
    path = tmp_path / "results" / "audit.md"
    assert _audit("--run", str(run_dir), "--judge", "audit_judges:Silent", "--page", str(path)) == 1
    assert _audit("--run", str(run_dir), "--judge", "audit_judges:ByPrinciples", "--page", str(path)) == 0
    text = path.read_text()
    assert text.count("editr1 audit --run") == 2
    assert "| probe | law | ByPrinciples | Silent |" in text
    assert (
        "| unedited | the source handed in as the edit scores 0 | 100.0% (61.0% to 100.0%) of 6 | no case, 6 unscored **broken** |" in text
    )
    assert "| drop | score, points | +0.000, p = 1.0000, n = 12 |" in text  # it answers no to every question
    assert "up to 12 edits unscored" in text
    assert "Probes on 6 edits of held-out tasks" in text
    assert {metric.name for metric in Run.open(run_dir).metrics()} >= {"audit/unedited/Silent", "audit/unedited/ByPrinciples"}


def test_training_tasks_are_not_probed_where_tasks_are_held_out(tmp_path):
    run = Run.open(build_tiny_run(tmp_path / "run", num_tasks=12))
    (run.dir / "07_pairs" / "settings.json").write_text('{"held_out_share": 0.5}')
    probed = {case.item.source.tobytes() for case in cases_from_run(run, 100, 0)}
    held_out = {run.images.get(task.source).tobytes() for task in run.read("01_tasks") if is_held_out(task.id, 0.5)}
    assert probed == held_out
    assert 2 <= len(held_out) < 12


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--judge", "audit_judges:Sound", "--threshold", "1.5"], "expected a share"),
        (["--judge", "{id: x, colour: red}"], "expected an id"),
        (["--judge", "audit_judges:items"], "is required"),
        (["--judge", "audit_judges:Sound", "--perturb"], "need --run"),
        (["--judge", "audit_judges:Sound", "--page", "x.md"], "need --run"),
        (["--judge", "audit_judges:Sound", "--probes", "blend"], "did you mean 'blends'"),
        ([], "name one judge"),
    ],
)
def test_bad_options_are_one_clear_line(table, capsys, args, message):
    assert _audit("--table", table, *args) == 2
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in complaint


def test_a_bad_row_stops_the_audit(tmp_path, capsys):
    path = Path(tmp_path) / "edits.csv"
    path.write_text("source,edited,instruction\na.png,b.png,\nc.png,d.png,x\n")
    assert _audit("--table", str(path), "--judge", "audit_judges:Sound") == 2
    assert "row 1: column 'instruction' is missing or empty" in capsys.readouterr().err
