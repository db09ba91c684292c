"""ImgEdit: the macro of the published table, two readings of a text, and readers that never invent a mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_files import png
from editr1.bench.base import JudgedEdit
from editr1.bench.imgedit import (
    TYPE_COUNTS,
    Task,
    build,
    complete_marks,
    metrics,
    official_marks,
    read_results,
    read_tasks,
    recognise,
)
from editr1.errors import DataError

GOOD = "Brief reasoning: fine.\nPrompt Compliance: 4\nVisual Naturalness: 3\nPhysical Integrity: 5\n"
DRESSED = "Prompt Compliance: 4/5\nVisual Naturalness: **3**\nPhysical Integrity: 5.\n"


def test_nine_of_twelve_published_rows_are_the_macro_mean(published: dict[str, Any]) -> None:
    table = published["imgedit_bench"]
    assert sum(TYPE_COUNTS.values()) == 737
    assert dict(zip(table["_cols"][:9], table["_n"], strict=True)) == TYPE_COUNTS
    rows = {name: row for name, row in table.items() if not name.startswith("_")}
    off = {name for name, row in rows.items() if abs(sum(row[:9]) / 9 - row[9]) > 0.01}
    assert off == {"Kontext-dev", "Ovis-U1", "GPT-4o-Image"}
    assert [f"{sum(rows[name][:9]) / 9:.3f}" for name in ("Kontext-dev", "Ovis-U1", "GPT-4o-Image")] == ["3.727", "3.992", "4.244"]


def test_the_two_readings_differ_exactly_on_dressed_marks() -> None:
    assert official_marks(GOOD) == complete_marks(GOOD) == (4, 3, 5)
    assert official_marks(DRESSED) is None
    assert complete_marks(DRESSED) == (4, 3, 5)
    assert official_marks("Compliance: 9\nx: 0\ny: ²") is None
    assert complete_marks("Compliance: 4\nVisual: 3") is None  # two of three marks are no judgement
    assert complete_marks(f"<think>{GOOD}</think>\n{DRESSED}") == (4, 3, 5)
    assert complete_marks(f"<think>{GOOD}") is complete_marks(f"<think>{GOOD}</think>I cannot tell.") is None  # a draft


@settings(deadline=None)
@given(
    st.text(max_size=120)
    | st.lists(st.sampled_from(["Name: 4", "a: 5/5", "b: **2**", "c: 45", "d:", "e: -1", "x"]), max_size=6).map("\n".join)
)
def test_a_mark_is_a_digit_of_the_text(text: str) -> None:
    for read in (official_marks, complete_marks):
        for mark in read(text) or ():
            assert 1 <= mark <= 5
            assert str(mark) in text


def test_overall_is_the_mean_of_types_and_unread_texts_are_counted(tmp_path: Path) -> None:
    tasks = {key: Task(f"{key}.jpg", "p", kind) for key, kind in [("a", "add"), ("b", "add"), ("c", "style"), ("d", "style")]}
    results = {"a": GOOD, "b": GOOD.replace(": 4", ": 1"), "c": DRESSED}
    found = {metric.protocol: metric for metric in metrics(results, tasks)}
    official, complete = found["imgedit/official/macro1"], found["imgedit/complete/macro2"]
    assert official.value == pytest.approx(3.5)  # (4 + 3) / 2 in "add"; nothing readable in "style"
    assert (official.n, official.num_unscored) == (2, 2)
    assert complete.value == pytest.approx((3.5 + 4.0) / 2)
    assert complete.num_unscored == 1
    assert complete.by_category == {"add": 3.5, "style": 4.0}
    with pytest.raises(DataError, match="no entry in basic_edit"):
        metrics({"z": GOOD}, tasks)


def test_edits_of_one_picture_are_not_independent() -> None:
    results = {str(i): GOOD if i % 2 else GOOD.replace(": 4", ": 1") for i in range(100)}
    own = metrics(results, {key: Task(key, "p", "add") for key in results})[0]
    shared = metrics(results, {key: Task(str(int(key) % 10), "p", "add") for key in results})[0]
    assert own.value == shared.value
    assert shared.high - shared.low > 2 * (own.high - own.low)  # ten pictures, each good or bad as a whole


def test_files(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"a": GOOD, "b": {"error": "429"}, "c": None}))
    assert read_results(result) == {"a": GOOD, "b": "", "c": ""}
    basic = tmp_path / "basic_edit.json"
    basic.write_text(json.dumps({"a": {"id": "a.jpg", "prompt": "p", "edit_type": "hybrid"}}))
    with pytest.raises(DataError, match="unknown edit_type 'hybrid'"):
        read_tasks(basic)
    basic.write_text(json.dumps({"a": {"edit_type": "add", "prompt": "p"}}))
    with pytest.raises(DataError, match="key a: column 'id' is missing"):
        read_tasks(basic)
    result.write_text('{"a": "x: 4", "a": "x: 1"}')
    with pytest.raises(DataError, match="'a' occurs more than once"):
        read_results(result)
    result.write_text("[]")
    with pytest.raises(DataError, match="JSON object"):
        read_results(result)


def test_judging_a_folder(tmp_path: Path) -> None:
    root, edits = tmp_path / "data", tmp_path / "edits"
    (root / "add").mkdir(parents=True)
    edits.mkdir()
    (root / "add" / "s.png").write_bytes(png(1))
    (edits / "k.png").write_bytes(png(2, size=30))
    rows = {
        "k": {"id": "add/s.png", "prompt": "Add a hat", "edit_type": "add"},
        "l": {"id": "../../x.png", "prompt": "p", "edit_type": "add"},
    }
    (root / "basic_edit.json").write_text(json.dumps(rows))
    bench = build(root, edits)
    first, second = bench.edits()
    assert first.load()[1].size == (8, 8)
    with pytest.raises(DataError, match="outside its root"):
        second.load()
    metric = bench.metrics({"k": JudgedEdit("k", 7.0)})[0]
    assert (metric.value, metric.n, metric.num_unscored, metric.protocol) == (7.0, 1, 1, "imgedit/judge10/macro1")
    with pytest.raises(DataError, match=r"Benchmark\.tar"):
        build(tmp_path / "nowhere")


def test_the_overall_mark_is_the_mean_of_rounded_types() -> None:
    tasks = {str(i): Task(str(i), "p", "add" if i < 3 else "style") for i in range(4)}
    texts = {str(i): f"x: {mark}\ny: {mark}\nz: {mark}" for i, mark in enumerate((1, 2, 2, 5))}
    found = metrics(texts, tasks)[0]
    assert found.by_category == {"add": 1.67, "style": 5.0}
    assert found.value == pytest.approx((1.67 + 5.0) / 2, abs=1e-12)  # not (5/3 + 5) / 2


@pytest.mark.parametrize("content", [{"a": "b"}, {"a": {"x": 1}}, {"a": 1.5}, {}, {"score": "good: very"}, {"a": ["x: 4"]}])
def test_another_json_object_is_not_taken_for_results(tmp_path: Path, content: object) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    assert not recognise(path)
