"""A damaged or half-finished run: a report of what is there, and one line for each file that cannot be read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from editr1.cli import main
from editr1.report import write_report
from editr1.store import Run
from small_run import make_run

DAMAGED = {
    "cut": b'{"cut',
    "bytes": b"\xff\x00\x01" * 50,
    "empty": b"",
    "list": b"[1]\n",
    "null": b"null\n",
    "object": b"{}\n",
    "not a number": b"NaN\n",
    "folder": "folder",
    "missing": None,
}
LOGS = (
    "metrics.jsonl",
    "10_metrics.jsonl",
    "10_traces/gcpo.jsonl",
    "09_editor/gallery.jsonl",
    "09_editor/gallery/evaluation_000060_0.jsonl",
)
OBJECTS = (
    *("env.json", "04_traces/usage.json", "05_inspections/agreement.json", "05_inspections/annotators.json", "audit/judge.json"),
    *("01_tasks/counts.json", "03_candidates/counts.json", "07_pairs/counts.json", "06_rrm_sft/done.json"),
)
TABLES = ("01_tasks", "02_principles", "03_candidates", "04_traces", "05_inspections", "07_pairs")
HARMLESS = {("04_traces/usage.json", "object"), ("config.json", "object")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("damage") / "run", num_tasks=1)
    for name, text in (
        ("06_rrm_sft/done.json", '{"rows": 5}'),
        ("audit/judge.json", '{"schema": 2, "label": "a", "judge": "b", "command": "c", "commit": ""}'),
    ):
        (run.dir / name).parent.mkdir(exist_ok=True)
        (run.dir / name).write_text(text)
    assert write_report(run.dir)[1] == []
    return run


@pytest.fixture
def damage(run: Run) -> Iterator[object]:
    """Puts other bytes, a folder or nothing in a file's place; the file is whole again after the test."""
    aside: list[tuple[Path, bytes]] = []

    def put(name: str, content: bytes | str | None) -> None:
        path = run.dir / name
        aside.append((path, path.read_bytes()))
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "folder":
            path.mkdir()

    yield put
    for path, good in aside:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(good)


@pytest.mark.parametrize("kind", DAMAGED)
def test_each_damaged_file_is_one_line_and_the_rest_is_shown(
    run: Run, damage: object, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files at once: what one of them hides, no other does."""
    names = (*LOGS, *OBJECTS, "config.json")
    for name in names:
        damage(name, DAMAGED[kind])  # type: ignore[operator]
    assert main(["report", str(run.dir)]) == 0
    lines = capsys.readouterr().err.splitlines()
    told = {line.removeprefix(f"editr1 report: {run.dir}/").partition(":")[0] for line in lines}
    assert len(told) == len(lines)
    if kind == "missing":
        assert told == {"env.json"}
    else:
        unread = {name for name in names if (name, kind) not in HARMLESS and not (name in LOGS and kind == "empty")}
        assert told == unread
    page = (run.dir / "report.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in page for name in told)


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_shard_costs_its_table_alone(run: Run, damage: object, table: str) -> None:
    shard = f"{table}/part-00000.parquet"
    damage(shard, (run.dir / shard).read_bytes()[:-9])  # type: ignore[operator]
    path, lines = write_report(run.dir)
    (line,) = lines
    assert table in line
    assert "pair_accuracy/gcpo" in path.read_text(encoding="utf-8")


def test_a_missing_and_a_broken_picture_leave_their_places_empty(run: Run, damage: object) -> None:
    first, second = sorted((run.dir / "images").rglob("*.png"))[:2]
    damage(str(first.relative_to(run.dir)), None)  # type: ignore[operator]
    damage(str(second.relative_to(run.dir)), second.read_bytes()[:60])  # type: ignore[operator]
    _, lines = write_report(run.dir)
    assert sorted(Path(line.partition(": ")[0]).name for line in lines) == sorted([first.stem, second.stem])


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_missing_folder_of_pictures_is_one_line(run: Run, kind: str) -> None:
    aside = (run.dir / "images").rename(run.dir / "aside")
    if kind == "a file":
        (run.dir / "images").write_text("x")
    path, lines = write_report(run.dir)
    (run.dir / "images").unlink(missing_ok=True)
    aside.rename(run.dir / "images")
    (line,) = lines
    assert line.startswith(f"{run.dir / 'images'}: ")
    assert "pair_accuracy/gcpo" in path.read_text(encoding="utf-8")


def test_one_bad_line_of_a_log_leaves_the_others(run: Run) -> None:
    name = run.dir / "10_metrics.jsonl"
    good = name.read_bytes()
    name.write_bytes(good + b'{"schema": 2, "name": "torn')
    path, lines = write_report(run.dir)
    assert name.read_bytes().endswith(b"torn")  # a run that goes on may be writing that line: nothing is cut off
    name.write_bytes(good)
    (line,) = lines
    assert f"line {good.count(bytes([10])) + 1}" in line
    assert "pair_accuracy/gcpo" in path.read_text(encoding="utf-8")


def test_a_figure_that_is_not_finite_is_no_figure(run: Run, damage: object) -> None:
    damage("09_editor/gallery.jsonl", (run.dir / "09_editor/gallery.jsonl").read_bytes().replace(b"5.0", b"NaN"))  # type: ignore[operator]
    path, lines = write_report(run.dir)
    assert lines == []
    assert "NaN" not in path.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0]


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    for name in ("10_traces", "audit", "03_candidates", "09_editor"):
        (run.dir / name).write_text("x")
    _, lines = write_report(run.dir)
    assert {line.partition(": ")[0] for line in lines} >= {str(run.dir / name) for name in ("10_traces", "audit", "03_candidates")}


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    os.mkfifo(run.dir / "metrics.jsonl")
    (line,) = write_report(run.dir)[1]
    assert "metrics.jsonl" in line


def test_what_is_no_run_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path):
        assert main(["report", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    old = Run.open(tmp_path / "old").dir
    (old / "env.json").write_text('{"schema": 1}')
    assert main(["report", str(old)]) == 2
    assert "editr1 migrate" in capsys.readouterr().err
