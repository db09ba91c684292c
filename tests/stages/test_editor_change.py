"""Two editors compared by any judge: paired gains, a win rate, a table by kind, the gallery, and a dead judge found first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import free_port
from editr1.config import Component
from editr1.editors.base import EditRequest
from editr1.errors import BackendError, ConfigError, DataError
from editr1.flow.config import Config as EditConfig
from editr1.judge.item import RewardItem
from editr1.schema import ImageRef, Reward, from_json
from editr1.stages import edit_rl, evaluate
from editr1.store import Run
from tiny_run import build_tiny_run

MADE: list[str] = []


class Painter:
    """Paints the whole picture in one grey."""

    def __init__(self, grey: int) -> None:
        self.name, self.grey = f"painter {grey}", grey

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        MADE.append(self.name)
        return [Image.new("RGB", request.source.size, (self.grey,) * 3) for request in requests]


class Brightness:
    """The brighter the better; silent about the tasks whose instruction ends in `silent`."""

    def __init__(self, silent: str = "nothing") -> None:
        self.silent = silent

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        assert all(item.principles for item in items)
        means = [float(np.asarray(item.edited).mean()) / 25.5 for item in items]
        heard = [not item.instruction.endswith(self.silent) for item in items]
        return [Reward(mean if ok else None, int(ok), 1, reason=None if ok else "NO_SCORE") for mean, ok in zip(means, heard, strict=True)]


def painter(grey: int) -> Component:
    return Component(f"{__name__}:Painter", {"grey": grey})


def brightness(**options: str) -> Component:
    return Component(f"{__name__}:Brightness", options)


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    return build_tiny_run(tmp_path / "run", num_tasks=8)


def test_the_brighter_editor_wins_every_task_of_the_run(run_dir: Path) -> None:
    result = evaluate.run(evaluate.Config(editors=(painter(51), painter(102)), editor_judge=brightness()), run_dir)
    metrics = {metric.name: metric for metric in Run.open(run_dir).metrics()}
    assert metrics["editor_score/before"].value == pytest.approx(2.0)
    assert metrics["editor_score_gain"].value == pytest.approx(2.0)
    assert metrics["editor_score_win_rate"].value == 1.0
    assert metrics["editor_score_win_rate"].low is not None
    assert metrics["editor_score_win_rate"].low > 0.5
    assert result.num_editor_tasks == metrics["editor_score_gain"].n == 8
    assert "+2.00" in str(result)
    assert "100%" in str(result)


def test_swapped_editors_swap_the_figures_and_equal_ones_tie(run_dir: Path) -> None:
    def values(before: int, after: int) -> list[float | None]:
        evaluate.run(evaluate.Config(editors=(painter(before), painter(after)), editor_judge=brightness()), run_dir)
        metrics = {metric.name: metric.value for metric in Run.open(run_dir).metrics()}
        return [metrics["editor_score_gain"], metrics["editor_score_win_rate"]]

    assert values(102, 51) == [pytest.approx(-2.0), 0.0]
    assert values(51, 51) == [0.0, 0.5]


def test_the_gallery_is_what_the_report_reads_and_unscored_edits_stay_so(run_dir: Path) -> None:
    judge = brightness(silent="red")
    evaluate.run(evaluate.Config(editors=(painter(51), painter(102)), editor_judge=judge, gallery=4, num_editor_tasks=6), run_dir)
    rows = [json.loads(line) for line in (run_dir / "09_editor" / "gallery.jsonl").read_text().splitlines()]
    images = Run.open(run_dir).images
    assert [row["score_before"] is None for row in rows] == [row["instruction"].endswith("red") for row in rows]
    assert all(images.get(from_json(ImageRef, json.dumps(row["after"]))).getpixel((0, 0)) == (102,) * 3 for row in rows)
    gain = next(metric for metric in Run.open(run_dir).metrics() if metric.name == "editor_score_gain")
    assert (gain.n, gain.num_unscored) == (3, 3)
    with pytest.raises(DataError, match="scored no task"):
        evaluate.run(evaluate.Config(editors=(painter(1), painter(2)), editor_judge=brightness(silent="")), run_dir)


def test_two_editors_and_somebody_to_judge_them_are_asked_for_at_once() -> None:
    with pytest.raises(ValueError, match="two"):
        evaluate.Config(editors=(painter(1),), editor_judge=brightness())
    with pytest.raises(ValueError, match="editor_judge"):
        evaluate.Config(editors=(painter(1), painter(2)))


def test_a_dead_judge_is_found_before_any_editor_is_made(run_dir: Path) -> None:
    nobody = {"id": "openai_api", "options": {"model": "m", "base_url": f"http://127.0.0.1:{free_port()}/v1", "max_attempts": 1}}
    judge = Component("editr1.judge.rrm:build", {"vlm": nobody})
    MADE.clear()
    with pytest.raises(BackendError, match="is the server running"):
        evaluate.run(evaluate.Config(editors=(painter(1), painter(2)), editor_judge=judge), run_dir)
    config = EditConfig(editor=Component(f"{__name__}:never"), reward=judge, contexts=2, group_size=2)
    with pytest.raises(BackendError, match="is the server running"):
        edit_rl.run(config, run_dir)
    assert not MADE


def never() -> None:
    raise ConfigError("the editor was loaded")
