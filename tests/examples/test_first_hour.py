"""The notebook runs from top to bottom, offline, and ends with a table of scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_hour.ipynb"


def test_the_notebook_runs_and_prints_a_table_of_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            capsys.readouterr()
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec", dont_inherit=True), names)
    lines = capsys.readouterr().out.splitlines()
    scores = [float(line.split()[0]) for line in lines[::2]]
    assert len(scores) == 8
    assert scores == sorted(scores)
    assert len(set(scores)) > 1
