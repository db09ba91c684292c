"""The first success: a shipped edit by a shipped judge, in the terminal, as JSON, and as one page in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from browser import chromium
from editr1 import RewardModel, example
from editr1.cli import main
from editr1.commands.verify import verdict_page
from editr1.judge.item import RewardItem, asking
from editr1.schema import Principle, Reward

VERDICTS = [0, 1, 1, 1, 0, 1, 1]
"""What the pictures show: the triangle is red in place of purple, and a square has appeared."""


def test_the_example_is_judged_rightly_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "verdict.html"
    assert main(["verify", "--example", "--json", "--html", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["prompt"] == asking(example.JUDGE).prompt_id == "compact"
    assert told["traces"][0]["verdicts"] == VERDICTS
    assert 5.5 < told["score"] < 7.5
    text = page.read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)


def test_it_is_the_weights_that_judge(capsys: pytest.CaptureFixture[str]) -> None:
    """The source as its own edit: nothing was done, and everything was kept."""
    shown = example.edit()
    item = RewardItem(shown.source, shown.only_source, shown.instruction, shown.principles)
    reward = RewardModel.from_checkpoint(example.JUDGE).score([item])[0]
    assert reward.category_means["keep"] == 1.0
    assert reward.category_means["follow"] == 0.0


def test_the_example_brings_its_own_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--example", "a.png", "b.png", "text"]) == 2
    assert "brings its own pictures" in capsys.readouterr().err
    assert main(["verify", "a.png"]) == 2
    assert "--example" in capsys.readouterr().err


def test_what_is_shipped_is_small() -> None:
    assert sum(path.stat().st_size for path in example.FOLDER.rglob("*") if path.is_file()) < 6_000_000


@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_shows_both_pictures_and_every_answer_and_folds_the_rest(tmp_path: Path, width: int) -> None:
    shown = example.edit()
    principles = (Principle('Is it "<b>red</b>"?', "follow"), Principle("Is the sky kept?" * 20, "keep"))
    scored = Reward(7.25, 2, 4, rates=(0.5, 1.0), principles=principles)
    unscored = Reward(None, 0, 1, reason="NO_SCORE", principles=principles)
    item = RewardItem(shown.source, shown.edited, "<script>document.title='x'</script>", principles)
    with chromium() as browser:
        view = browser.new_page(viewport={"width": width, "height": 800})
        for name, reward in (("scored", scored), ("unscored", unscored)):
            path = tmp_path / f"{name}.html"
            path.write_text(verdict_page(item, reward, "judge", "tv", "no score follows"), encoding="utf-8")
            view.goto(path.as_uri())
            assert view.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert view.evaluate("document.images.length") == 2
            assert view.evaluate("document.documentElement.scrollWidth") <= width
            assert view.title() == item.instruction
            body = view.inner_text("body")
            assert 'Is it "<b>red</b>"?' in body
            assert ("7.2" in body and "50 % yes" in body) if reward.scored else ("Unscored" in body and "no score follows" in body)
