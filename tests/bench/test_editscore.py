"""EditScore's bench: loader on small files in the published layout, macro of 13 tasks, the identities of the published table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.bench.base import JudgedEdit
from editr1.bench.editreward import DIMENSIONS, GROUPS, TASKS, editreward_editscore
from editr1.errors import DataError


def png(shade: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade, shade // 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_dataset(folder: Path, rows: list[dict[str, Any]], kind: str = "arrow", drop: str = "") -> Path:
    import datasets

    features = datasets.Features(
        {
            "key": datasets.List(datasets.Value("string")),
            "instruction": datasets.Value("string"),
            "input_image": datasets.Image(),
            "output_images": datasets.List(datasets.Image()),
            "task_type": datasets.Value("string"),
            "dimension": datasets.Value("string"),
        }
    )
    table = datasets.Dataset.from_list(rows, features=features)
    if drop:
        table = table.remove_columns(drop)
    if kind == "arrow":
        table.save_to_disk(str(folder / "test"))
    else:
        folder.mkdir(exist_ok=True)
        table.to_parquet(str(folder / "part-0.parquet"))
    return folder


def make_rows(tasks: tuple[str, ...] = TASKS) -> list[dict[str, Any]]:
    return [
        {
            "key": [f"{t}-w", f"{t}-l"],
            "instruction": f"edit {t}",
            "input_image": {"bytes": png(t)},
            "output_images": [{"bytes": png(100 + t)}, {"bytes": png(180 + t, size=16)}],
            "task_type": task,
            "dimension": dimension,
        }
        for t, task in enumerate(tasks)
        for dimension in DIMENSIONS
    ]


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_each_image_is_judged_once_at_the_size_of_its_source(tmp_path: Path, kind: str) -> None:
    bench = editreward_editscore.build(write_dataset(tmp_path / "d", make_rows(), kind))
    items = list(bench.edits())
    assert len(items) == 2 * 13  # three dimensions share their images
    assert len({item.key for item in items}) == len(items)
    assert all(source.size == edited.size == (8, 8) for source, edited in (item.load() for item in items))


def test_oracle_constant_and_silent_judges_over_thirteen_tasks(tmp_path: Path) -> None:
    bench = editreward_editscore.build(write_dataset(tmp_path / "d", make_rows()))
    winners = {row.sides[0] for row in bench.rows}
    keys = [item.key for item in bench.edits()]
    cases = {
        "oracle": ({key: JudgedEdit(key, 9.0 if key in winners else 1.0) for key in keys}, 1.0, 0.0, 0),
        "constant": ({key: JudgedEdit(key, 5.0) for key in keys}, 0.0, 1.0, 0),
        "silent": ({}, 0.0, None, 13),
    }
    for judged, value, tie_rate, num_unscored in cases.values():
        found = {metric.protocol: metric for metric in bench.metrics(judged)}
        strict = found["editscore-erb/overall/strict/macro13"]
        assert (strict.value, strict.tie_rate, strict.num_unscored, strict.n) == (value, tie_rate, num_unscored, 13)
        assert set(GROUPS) <= {protocol.rsplit("/", 1)[-1] for protocol in found}


def test_a_dimension_reads_its_own_sub_score_and_the_macro_weighs_tasks_equally(tmp_path: Path) -> None:
    rows = make_rows(("extract", "extract", "extract", "compose"))
    for i, row in enumerate(rows):
        row["instruction"] += str(i // 3)
    bench = editreward_editscore.build(write_dataset(tmp_path / "d", rows))
    judged = {}
    for row in bench.rows:
        winner, loser = row.sides
        right = row.category.endswith("/extract")
        judged[winner] = JudgedEdit(winner, 5.0, {"prompt_following": 9.0 if right else 1.0, "consistency": 4.0})
        judged[loser] = JudgedEdit(loser, 5.0, {"prompt_following": 2.0, "consistency": 6.0})
    found = {metric.protocol: metric for metric in bench.metrics(judged)}
    assert found["editscore-erb/prompt_following/strict/macro2"].value == 0.5  # 3 of 3 and 0 of 1: micro would say .75
    assert found["editscore-erb/consistency/strict/macro2"].value == 0.0
    assert found["editscore-erb/overall/strict/macro2"].tie_rate == 1.0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="huggingface-cli download EditScore/EditReward-Bench"):
        editreward_editscore.build(None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.arrow or \.parquet"):
        editreward_editscore.build(tmp_path / "empty")
    with pytest.raises(DataError, match="column 'dimension' is missing"):
        editreward_editscore.build(write_dataset(tmp_path / "d", make_rows(), "parquet", drop="dimension"))
    with pytest.raises(DataError, match="unknown task_type 'juggling'"):
        editreward_editscore.build(write_dataset(tmp_path / "e", make_rows(("juggling",))))
    rows = make_rows(("extract",))
    rows[0]["dimension"] = "beauty"
    with pytest.raises(DataError, match="unknown dimension 'beauty'"):
        editreward_editscore.build(write_dataset(tmp_path / "f", rows))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "part.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot read"):
        editreward_editscore.build(broken)


def test_a_truncated_image_is_a_clear_error_of_that_row(tmp_path: Path) -> None:
    rows = make_rows(("extract",))
    for row in rows:
        row["output_images"][1]["bytes"] = png(7, size=64)[:-40]
    items = list(editreward_editscore.build(write_dataset(tmp_path / "d", rows)).edits())
    items[0].load()
    with pytest.raises(DataError, match="row 0: edited image"):
        items[1].load()


def test_all_48_published_overall_cells_are_the_mean_of_13_tasks(published: dict[str, Any]) -> None:
    table = {name: row for name, row in published["editscore_editreward_bench"].items() if not name.startswith("_")}
    cells = [cell for row in table.values() for cell in row.values()]
    assert len(cells) == 48
    for overall, *groups in cells:
        weighted = sum(len(tasks) * mean for tasks, mean in zip(GROUPS.values(), groups, strict=True)) / len(TASKS)
        assert overall == pytest.approx(weighted, abs=7e-4)
