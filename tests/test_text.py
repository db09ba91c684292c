"""Text that goes to a model or into a file, whatever the world put into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from editr1.cli import main
from editr1.errors import DataError
from editr1.judge.decompose import parse_principles
from editr1.judge.item import RewardItem
from editr1.judge.prompts import render_decompose, render_score
from editr1.measure.edit_files import EditRow, as_csv
from editr1.schema import Principle
from editr1.sources.base import SourceRow
from editr1.stages.tasks import check_row
from editr1.text import as_cell, from_cell, lines_of, without_control_tokens
from editr1.training.rows import Lesson, lesson_row
from editr1.vlm.base import ChatReply, to_messages
from editr1.vlm.openai_api import build
from fake_endpoint import serve

PICTURE = Image.new("RGB", (8, 8))
HALF = "a smile \ud83d"
TOKENS = ["<|image_pad|>", "<|im_end|>", "<image>", "</s>", "<start_of_turn>", "[INST]",
          "<\uff5cend\u2581of\u2581sentence\uff5c>",
          "<|turn>", "<turn|>", "<tool_call>", "[TOOL_CALLS]", "[gMASK]", "<sop>", "</image>",
          "<end_of_utterance>", "<unused94>"]  # fmt: skip
PRINCIPLES = (Principle("Does it say <|vision_start|>?", "follow"),)


@pytest.mark.parametrize("token", TOKENS)
def test_no_control_token_of_an_instruction_a_principle_or_an_answer_reaches_a_model_or_a_trainer(token: str) -> None:
    request = render_score("compact", PICTURE, PICTURE, f"Write {token} on it", PRINCIPLES)
    repair = render_decompose(PICTURE, "Make it red", previous=f"I say {token}", problem="it is no array")
    row = lesson_row(Lesson(request, f"F1 it says {token} -> yes\n<score>9</score>"), {})
    for told in (to_messages(request), to_messages(repair), row["prompt"], row["completion"]):
        said = json.dumps(told, ensure_ascii=False)
        assert token not in said
        assert "<|vision_start|>" not in said
    assert f"{token[0]} {token[1:]}" in json.dumps(row["completion"], ensure_ascii=False)


@pytest.mark.parametrize("mark", ["<think>", "</think>", "[THINK]", "\u25c1/think\u25b7"])
def test_a_mark_of_thinking_is_broken_up_in_a_question_and_stays_in_a_models_own_answer(mark: str) -> None:
    request = render_score("compact", PICTURE, PICTURE, f"Write {mark} on it", PRINCIPLES)
    row = lesson_row(Lesson(request, f"{mark}\nF1 it says so -> yes\n<score>9</score>"), {})
    assert mark not in json.dumps(to_messages(request), ensure_ascii=False)
    assert mark in json.dumps(row["completion"], ensure_ascii=False)


def test_endpoints_are_sent_no_control_token() -> None:
    with serve() as endpoint:
        build("m", endpoint.url, sampler="plain").chat([render_score("compact", PICTURE, PICTURE, "Write <|im_end|>", PRINCIPLES)])
        sent = json.dumps(endpoint.bodies[0]["messages"])
    assert "< |im_end|>" in sent
    assert "<|im_end|>" not in sent


def test_what_a_tokenizer_names_is_broken_up_too() -> None:
    assert without_control_tokens("a @@end@@ b", ["@@end@@", "a"]) == "a @ @end@@ b"


def test_half_a_character_is_replaced_in_a_reply_and_refused_in_a_question() -> None:
    assert ChatReply(HALF, "m").text == "a smile \ufffd"
    found = parse_principles('[{"question": "Is there a smile \\ud83d?", "category": "follow"}]', quotas=None)
    assert found == (Principle("Is there a smile \ufffd?", "follow"),)
    with pytest.raises(DataError, match="half of a character"):
        RewardItem(PICTURE, PICTURE, HALF)
    with pytest.raises(DataError, match="half of a character"):
        RewardItem(PICTURE, PICTURE, "x", (Principle(HALF, "follow"),))
    assert "half of a" in check_row(SourceRow(b"", HALF)).reason  # type: ignore[union-attr]


def test_only_line_breaks_end_a_line_of_a_file(tmp_path: Path) -> None:
    row = json.dumps({"q": "one\u2028two\x0cthree\u0085"}, ensure_ascii=False)
    (tmp_path / "rows.jsonl").write_bytes(f"\ufeff{row}\r\n{row}\n".encode())
    assert lines_of((tmp_path / "rows.jsonl").read_text("utf-8")) == [row, row]
    assert lines_of("") == []


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1"])
def test_no_spreadsheet_runs_what_the_world_sent(cell: str) -> None:
    written = as_csv([EditRow("a.png", cell, 2.0, None, {}, (), (), cell)])
    assert f",'{cell}" in written.replace('"', "")
    assert from_cell(as_cell(cell)) == cell


def test_a_message_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "\x1b[2Jgone\u202e"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert "\\x1b[2Jgone" in err
