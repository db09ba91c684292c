"""Rows for ms-swift, LLaMA-Factory and TRL: each in the shape that its tool documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editr1.cli import main
from editr1.commands.data import FORMS, WHATS, export_rows
from editr1.errors import DataError
from editr1.store import Run, held_out_share, is_held_out, preference_pairs, with_inspections
from editr1.vlm.base import ChatRequest, flat_messages, to_messages
from small_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("rows") / "run", training=False)


def rows_of(run: Run, tmp_path: Path, what: Any, form: Any) -> list[dict[str, Any]]:
    path = tmp_path / f"{what}_{form}.jsonl"
    number = export_rows(run, path, what, form)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(rows) == number > 0
    return rows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", WHATS)
def test_every_row_names_a_picture_for_each_marker(run: Run, tmp_path: Path, what: str, form: str) -> None:
    for row in rows_of(run, tmp_path, what, form):
        text = json.dumps(row)
        markers = text.count('{"type": "image"}') if form == "trl" else text.count("<image>")
        assert markers == len(row["images"]) == (3 if what == "pairs" else 2)
        assert all(Path(path).is_absolute() and Path(path).is_file() for path in row["images"])


def test_sft_rows_end_with_the_kept_trace_and_leave_out_tasks_that_measure(run: Run, tmp_path: Path) -> None:
    share = held_out_share(run)
    inspected = [(q, traces, i) for q, traces, i in with_inspections(run) if i.chosen is not None]
    kept = [traces[i.chosen].text for q, traces, i in inspected if i.chosen is not None and not is_held_out(q.task.id, share)]
    assert 0 < len(kept) < len(inspected)
    rows = rows_of(run, tmp_path, "sft", "messages")
    assert [row["messages"][-1] for row in rows] == [{"role": "assistant", "content": text} for text in kept]
    assert [message["role"] for message in rows[0]["messages"]][-2:] == ["user", "assistant"]
    sharegpt = rows_of(run, tmp_path, "sft", "sharegpt")
    assert [[turn["from"] for turn in row["conversations"]] for row in sharegpt] == [["human", "gpt"]] * len(kept)
    assert [row["conversations"][1]["value"] for row in sharegpt] == kept
    trl = rows_of(run, tmp_path, "sft", "trl")
    assert trl[0]["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": kept[0]}]}


def test_dpo_rows_prefer_the_trace_that_agrees_with_the_inspector(run: Run, tmp_path: Path) -> None:
    rows = rows_of(run, tmp_path, "dpo", "messages")
    assert all(row["rejected_response"] != row["messages"][-1]["content"] for row in rows)
    sharegpt = rows_of(run, tmp_path, "dpo", "sharegpt")
    assert [row["rejected"]["value"] for row in sharegpt] == [row["rejected_response"] for row in rows]
    assert [[turn["from"] for turn in row["conversations"]] for row in sharegpt] == [["human"]] * len(rows)
    trl = rows_of(run, tmp_path, "dpo", "trl")
    assert set(trl[0]) == {"prompt", "chosen", "rejected", "images"}
    assert [row["chosen"][0]["content"][0]["text"] for row in trl] == [row["messages"][-1]["content"] for row in rows]


def test_pairs_say_what_people_chose(run: Run, tmp_path: Path) -> None:
    labels = [pair.label for pair in preference_pairs(run, "train") if pair.label != "same"]
    rows = rows_of(run, tmp_path, "pairs", "trl")
    assert [row["chosen"][0]["content"][0]["text"] for row in rows] == [f"CHOICE: {label.upper()}" for label in labels]
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_markers_of_an_instruction_are_no_pictures() -> None:
    request = ChatRequest(("look at <image>, <VIDEO> and <audio>",), system="<image>")
    assert flat_messages(to_messages(request)) == [
        {"role": "system", "content": "< image>"},
        {"role": "user", "content": "look at < image>, < VIDEO> and < audio>"},
    ]


def test_the_command_says_how_many_rows_and_an_empty_run_what_is_missing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-rows", str(run.dir), str(tmp_path / "x.jsonl"), "--what", "pairs", "--as", "sharegpt"]) == 0
    assert "rows" in capsys.readouterr().out
    (tmp_path / "y.jsonl").write_text("of an earlier run\n")
    with pytest.raises(DataError):
        export_rows(Run.open(tmp_path / "empty", {}), tmp_path / "y.jsonl")
    assert (tmp_path / "y.jsonl").read_text() == "of an earlier run\n"
