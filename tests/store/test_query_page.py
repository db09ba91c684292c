"""What docs/how_to/query_a_run.md teaches, run as it stands on a run of the embedded world."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from editr1.schema import Judgement
from editr1.store import Run
from small_run import make_run

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "query_a_run.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("queries")
    make_run(folder / "runs" / "demo", training=False)
    return folder


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_queries_give_what_the_records_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    scorers, editors, questions = (duckdb.sql(query).fetchall() for query in blocks("sql"))
    run = Run.open(folder / "runs" / "demo", create=False)
    traces = list(run.read("04_traces"))
    assert sum(row[2] for row in scorers) == len(traces)
    assert sum(row[4] for row in scorers) == sum(not isinstance(trace.outcome, Judgement) for trace in traces)
    assert sum(row[2] for row in editors) == sum(isinstance(trace.outcome, Judgement) for trace in traces)
    gold = [verdict for row in run.read("05_inspections") for verdict in row.gold]
    assert sum(row[1] for row in questions) == len(gold)
    assert sum(row[1] * row[2] for row in questions) == pytest.approx(gold.count(False), abs=0.001 * len(gold))


@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_of_the_page_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert len(names["scores"]) > 0 if "scores" in names else names["trace"]
