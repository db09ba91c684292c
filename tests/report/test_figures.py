"""The verdict first: a sentence and tiles in words, in one unit, decided by intervals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from editr1.report import write_report
from editr1.report.figures import accuracies, category_bars, in_words, promises, result_row, verdict
from editr1.schema import Metric
from editr1.store import Run

GAIN = Metric("pair_accuracy_gain", 0.05, -0.01, 0.11, 600)


def test_the_verdict_counts_what_holds_and_names_what_does_not() -> None:
    metrics = [
        Metric("pair_accuracy/sft", 0.8, 0.75, 0.85).promised(0.7, "above 0.7"),
        Metric("oracle_score_gain", -0.4, -0.6, -0.2).promised(0.0, "rises"),
        GAIN.promised(0.03, "above 0.03"),
        Metric("oracle_score/before", 5.0),
    ]
    assert verdict(promises(metrics)) == (
        "1 of 3 promises hold: the SFT-RRM picks what people prefer. Does not hold: edits score higher after RL. "
        "Not decided: the SFT-RRM beats the judge before it. "
    )
    assert verdict(promises(metrics[1:2])).startswith("0 of 1 promise holds. Does not hold:")
    assert "Nothing was promised" in verdict(promises(metrics[3:]))


def test_a_promise_holds_by_its_interval_alone() -> None:
    assert [row.holds for row in promises([GAIN.promised(0.03, "above 0.03")])] == [None]
    told = Metric("pair_accuracy_gain", 0.05, goal="above 0.03", holds=True)  # a figure without an interval decides nothing
    assert [row.holds for row in promises([told])] == [None]


def test_value_interval_and_goal_share_a_unit() -> None:
    row = result_row(GAIN.promised(0.03, "above 0.03"), [GAIN])
    assert (row.value, row.interval, row.goal) == ("+5.0 pp", "−1.0 pp … +11.0 pp", "above 3.0 pp")
    share = Metric("verdict_accuracy/sft", 0.9, 0.8, 0.95, goal="at least 0.85 of the verdicts")
    assert result_row(share, [share]).goal == "at least 85.0 % of the verdicts"
    score = Metric("oracle_score_gain", 0.4, 0.1, 0.7, goal="rises by 0.1")
    assert (result_row(score, [score]).goal, result_row(score, [score]).unit) == ("rises by 0.1", "points of 10")


def test_wins_are_a_share_and_gains_by_category_are_signed() -> None:
    wins = Metric("editor_score_win_rate", 0.625, 0.5, 0.7)
    assert (result_row(wins, [wins]).value, result_row(wins, [wins]).unit) == ("62.5 %", "")
    (bars,) = category_bars([Metric("oracle_success_gain", 0.1, by_category={"add": 0.25, "remove": -0.05})])
    assert dict(bars.rows) == {"add": (("+25.0 pp", 25.0),), "remove": (("−5.0 pp", 0.0),)}


def test_tiles_speak_in_words() -> None:
    names = ("pair_accuracy/gcpo", "pair_accuracy_gain", "pair_accuracy_gain/sft", "oracle_success_gain", "my_bench/new_judge")
    for name in names:
        assert "_" not in in_words(name)
        assert "/" not in in_words(name)
    assert in_words("odd{name}/{0}") == "odd{name}: {0}"
    assert in_words("pair_accuracy_gain/sft") == "the SFT-RRM beats the judge before it"


def test_the_page_begins_with_the_verdict_and_ends_with_the_loop(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    run.add_metric(GAIN.promised(0.03, "above 0.03"))
    page = write_report(run.dir)[0].read_text(encoding="utf-8")
    order = [page.index(f'id="{part}"') for part in ("verdict", "editor", "judges", "curves", "edits", "results", "audit", "loop", "setup")]
    assert order == sorted(order)
    tile = re.search(r'<div class="tile .*?</div>\s*</div>', page, re.S)
    assert tile is not None
    assert "The last judge" in tile[0] or "the last judge" in tile[0]
    assert "not decided" in tile[0]


def test_the_accuracy_chart_holds_every_judge_and_the_chance_line(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for judge, value in (("scorer", 0.55), ("gcpo", 0.75)):
        run.add_metric(Metric(f"pair_accuracy/{judge}", value, value - 0.05, value + 0.05, 100))
    found = accuracies(run.metrics())
    assert [judge for judge, _ in found] == ["score-only judge", "RL-RRM"]
    assert [row.bar[:3] for _, row in found if row.bar] == [pytest.approx((55, 50, 60)), pytest.approx((75, 70, 80))]  # of 0 to 100 %
    page = write_report(run.dir)[0].read_text(encoding="utf-8")
    assert page.count('class="chance"') == 2
    assert "chance 50 %" in page
