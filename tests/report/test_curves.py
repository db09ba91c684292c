"""Curves: what belongs together in one chart, healthy bands, alarms, and axes that leave noise small."""

from __future__ import annotations

import math
from pathlib import Path

from editr1.report import write_report
from editr1.report.curves import HEALTHY, MAX_POINTS, _thin, draw_curves, overlay, read_points
from editr1.report.reading import Reader
from editr1.store import Run

COLLAPSE = Path(__file__).parents[2] / "docs" / "how_to" / "collapse.md"


def charts_of(run: Run) -> dict[str, object]:
    return {chart.title: chart for stage in draw_curves(read_points(Reader(run.dir))) for chart in (*stage.headlines, *stage.others)}


def test_reward_and_held_out_reward_share_a_chart(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for step in range(4):
        run.log("edit_rl", step, {"reward/mean": 5.0} | ({"evaluation/reward": 6.0} if step == 3 else {}))
    (stage,) = draw_curves(read_points(Reader(run.dir)))
    (chart,) = stage.headlines
    assert [(line.label, line.steps) for line in chart.lines] == [("in training", (0, 1, 2, 3)), ("held out", (3,))]


def test_a_parse_rate_of_zero_is_an_alarm_on_the_first_screen(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for step in range(6):
        run.log("gcpo", step, {"parse_rate": 0.0, "reward": 0.0})
    chart = charts_of(run)["traces that could be read"]
    assert "parse_rate is 0" in chart.alarm
    page = write_report(run.dir)[0].read_text(encoding="utf-8")
    assert "parse_rate is 0" in page[: page.index('id="editor"')]
    run.log("gcpo", 6, {"parse_rate": 0.5})
    assert charts_of(run)["traces that could be read"].alarm == ""


def test_a_curve_outside_its_healthy_band_is_told(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for step in range(10):
        run.log("edit_rl", step, {"train/clipped": 0.6 if step > 4 else 0.0, "train/abs_advantage": 0.6, "reward/signal": 0.9})
    charts = charts_of(run)
    assert "below 0.25" in charts["ratios that were clipped"].outside
    assert charts["ratios that were clipped"].band == (None, 0.25)
    assert charts["size of the advantages"].outside == charts["signal beside the judge's noise"].outside == ""
    page = write_report(run.dir)[0].read_text(encoding="utf-8")
    assert "healthy is below 0.25" in page[: page.index('id="editor"')]


def test_a_held_out_reward_that_falls_while_training_rises_is_told(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for step in range(6):
        run.log("edit_rl", step, {"reward/mean": 5.0 + step, "evaluation/reward": 7.0 - step})
    assert "reward hacking" in charts_of(run)["reward, of 10: in training and held out"].alarm
    run.log("edit_rl", 6, {"reward/mean": 11.0, "evaluation/reward": 7.0})
    assert charts_of(run)["reward, of 10: in training and held out"].alarm == ""


def test_the_bands_are_those_of_the_collapse_page() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in COLLAPSE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")}
    for name, band in HEALTHY.items():
        text = rows.get(name, COLLAPSE.read_text(encoding="utf-8"))
        words = {0.25: "a quarter"} | {edge: f"{edge:g}".lstrip("0") for edge in band if edge is not None and edge != 0.25}
        assert all(words[edge] in text for edge in band if edge is not None), name


def test_an_axis_does_not_zoom_into_noise(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for step in range(5):
        noise = step % 2 / 1000
        run.log("edit_rl", step, {"reward/mean": 5.0 + noise, "reward/tied_groups": 0.2 + noise, "train/grad_norm": 40.0 + noise})
    charts = charts_of(run)
    assert charts["groups that tie"].axis == (0.0, 1.0)
    low, high = charts["reward, of 10: in training and held out"].axis
    assert high - low >= 2.0
    low, high = charts["train/grad_norm"].axis
    assert high - low >= 10


def test_stages_stand_in_the_order_of_the_loop(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for stage in ("other", "edit_rl", "sft/06_scorer", "gcpo/held_out", "gcpo", "sft"):
        run.log(stage, 1, {"epoch": 1.0, "loss": 0.5, "reward": math.nan, "pair_accuracy": 0.5})
    stages = draw_curves(read_points(Reader(run.dir)))
    assert [stage.stage for stage in stages] == ["sft", "sft/06_scorer", "gcpo", "edit_rl", "other"]
    assert stages[1].title == "SFT of the verifier (06_scorer)"
    assert [line.label for line in stages[2].headlines[0].lines] == ["pair_accuracy", "held out"]
    rewards = next(chart for chart in stages[2].headlines if chart.title == "reward")
    assert rewards.lines[0].values == (None,)  # nan is a gap and not a number


def test_after_a_resume_the_last_point_of_a_step_counts(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for step, value in ((0, 1.0), (1, 2.0), (1, 5.0)):
        run.log("sft", step, {"loss": value})
    assert charts_of(run)["loss"].lines[0].values == (1.0, 5.0)


def test_long_curves_are_thinned_to_means() -> None:
    line = _thin("loss", {step: float(step % 2) for step in range(4 * MAX_POINTS)})
    assert len(line.steps) == MAX_POINTS
    assert set(line.values) == {0.5}


def test_runs_lie_over_each_other_in_one_chart_a_series() -> None:
    runs = {"a": {"sft": {"loss": {0: 2.0, 1: 1.0}}}, "b": {"sft": {"loss": {0: 3.0}, "eval_loss": {0: 3.0}}}}
    (stage,) = overlay(runs)
    assert [(chart.title, [line.label for line in chart.lines]) for chart in stage.headlines] == [
        ("loss", ["a", "b"]),
        ("loss, held out", ["b"]),
    ]
