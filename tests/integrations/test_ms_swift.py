"""The ms-swift plug-in: registration in its registry, the same ratios as in our stage, and the rows it reads."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from editr1.integrations import ms_swift
from editr1.schema import PreferencePair
from editr1.store import Run
from editr1.training.rows import read_pairs
from tiny_run import build_tiny_run


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """ms-swift's registry as its documentation shows it: classes by name, built with the trainer's arguments."""
    rewards = types.ModuleType("swift.rewards")

    class ORM:
        def __init__(self, args: Any = None, **kwargs: Any) -> None:
            self.args = args

    rewards.ORM, rewards.orms = ORM, {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", types.ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    return rewards.orms  # type: ignore[attr-defined]


def test_exported_rows_and_strings_give_the_ratios_of_our_stage(tmp_path: Path, registry: dict[str, Any]) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    assert ms_swift.export_pairs(run_dir, tmp_path / "pairs.jsonl", "compact_direct") == 6
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [(row["pair"], row["side"]) for row in rows[:4]] == [(0, "w"), (0, "l"), (1, "w"), (1, "l")]
    assert rows[0]["messages"][0]["content"].count("<image>") == 2
    assert all(Path(path).is_absolute() and Path(path).is_file() for row in rows for path in row["images"])
    ms_swift.register()
    reward = registry[ms_swift.NAME](args=None)
    columns = {name: [rows[0][name]] * 2 + [rows[1][name]] * 2 for name in rows[0] if name not in ("messages", "images")}
    completions = ["<score>7</score>", "<score>5</score>", "<score>5</score>", "<score>2</score>"]
    assert reward(completions, **columns) == [1.0, 0.5, 0.5, 1.0]


def test_a_marker_in_an_instruction_is_no_picture_and_a_relative_run_has_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tiny_run(tmp_path / "run")

    def marked(run: Run) -> list[PreferencePair]:
        pairs = read_pairs(run)
        return [dataclasses.replace(p, task=dataclasses.replace(p.task, instruction="put <image> into <image>")) for p in pairs]

    monkeypatch.setattr(ms_swift, "read_pairs", marked)
    monkeypatch.chdir(tmp_path)
    ms_swift.export_pairs(Path("run"), Path("pairs.jsonl"), "compact_direct")
    for line in Path("pairs.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert "< image>" in row["messages"][0]["content"]
        assert row["messages"][0]["content"].count("<image>") == len(row["images"]) == 2
        assert all(Path(path).is_absolute() for path in row["images"])
