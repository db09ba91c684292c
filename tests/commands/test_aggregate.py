"""`editr1 aggregate` on raw formats; what it cannot use gives one line and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editr1.cli import main

HEADER = "edited_image,sementics_score,quality_score,intersection_exist,instruction_language\n"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["aggregate", *argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_gedit_csvs_of_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for task, score in [("ps_human", 4), ("style_change", 9)]:
        files.append(tmp_path / f"m_{task}_gpt_score.csv")
        rows = "".join(f"o/m/fullset/{task}/en/{i}.png,{score},{score},True,en\n" for i in range(2))
        files[-1].write_text(HEADER + rows)
    code, out, _ = run(capsys, *map(str, files), "--json")
    found = {row["protocol"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert found["gedit-en/O/full/micro"]["value"] == pytest.approx(6.5)
    assert found["gedit-en/O/full/micro"]["num_unscored"] == 602


def test_the_table_has_a_line_a_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairwise.json"
    path.write_text(json.dumps([{"idx": i, "source_prompt": i, "response": "[[A>B]]", "human_vote": "leftvote"} for i in range(9)]))
    code, out, _ = run(capsys, str(path), "--details")
    assert code == 0
    assert "genai-bench/4-label/first" in out
    assert "    A>B: 1.0000" in out


def test_metrics_enter_a_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "basic_edit.json").write_text(json.dumps({"a": {"id": "s.jpg", "prompt": "p", "edit_type": "add"}}))
    (tmp_path / "result.json").write_text(json.dumps({"a": "x: 4\ny: 4\nz: 5"}))
    for _ in range(2):
        assert run(capsys, str(tmp_path / "result.json"), "--run", str(tmp_path / "run"))[0] == 0
    assert len((tmp_path / "run" / "10_metrics.jsonl").read_text().splitlines()) == 2


def test_viescore_answers(public_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(public_data / "viescore" / "answers" / "results_gpt4o_0shot"))
    assert code == 0
    assert "0.7864" in out


def test_the_combined_file_of_gedit_is_not_added_to_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = "o/m/fullset/ps_human/en/1.png,8,8,True,en\n"
    for name in ("ps_human", "combined"):
        (tmp_path / f"m_{name}_gpt_score.csv").write_text(HEADER + row)
    code, out, _ = run(capsys, str(tmp_path), "--json")
    found = {row["protocol"]: row for row in map(json.loads, out.splitlines())}
    assert (code, found["gedit-en/O/full/micro"]["n"]) == (0, 1)
    code, _, err = run(capsys, *(str(path) for path in tmp_path.glob("*.csv")))
    assert code == 2
    assert "give one or the other" in err


def test_several_judges_are_a_row_each_and_go_into_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for judge, label in (("good", "[[A>B]]"), ("bad", "[[B>A]]")):
        files.append(tmp_path / judge / "pairwise.json")
        files[-1].parent.mkdir()
        rows = [{"idx": i, "source_prompt": i, "response": label, "human_vote": "leftvote"} for i in range(9)]
        files[-1].write_text(json.dumps(rows))
    code, out, _ = run(capsys, *map(str, files), "--out", str(tmp_path / "out"))
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["genai_bench", "4-label", "three-class", "strict", "half", "n", "unscored"]
    assert lines[1:3] == [["good", *["100.00"] * 4, "9", "0"], ["bad", *["0.00"] * 4, "9", "0"]]
    assert "few sources: some intervals rest on 9" in out
    outcomes = [str(tmp_path / "out" / f"genai_bench_{judge}.outcomes.jsonl") for judge in ("good", "bad")]
    assert main(["compare", *outcomes, "--json"]) == 0
    written = capsys.readouterr().out
    assert main(["compare", *map(str, files), "--json"]) == 0
    assert capsys.readouterr().out == written
    found = {row["protocol"]: row for row in map(json.loads, written.splitlines())}
    assert (found["compare/credit/micro"]["value"], found["compare/credit/mcnemar"]["p_value"]) == (-1.0, 2 / 2**9)
    (tmp_path / "x" / "good").mkdir(parents=True)
    twin = tmp_path / "x" / "good" / "pairwise.json"
    twin.write_text(files[0].read_text())
    assert "told apart by the names of their folders" in run(capsys, str(files[0]), str(twin))[2]


def test_the_csvs_of_two_models_are_two_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, score in (("kontext", 8), ("bagel", 2)):
        (tmp_path / f"{model}_ps_human_gpt_score.csv").write_text(HEADER + f"o/fullset/ps_human/en/1.png,{score},{score},True,en\n")
    code, out, _ = run(capsys, str(tmp_path))
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["bagel", "2.00"], ["kontext", "8.00"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.csv", None, "does not exist"),
        ("x.csv", HEADER.replace("quality_score,", ""), "column"),
        ("x.csv", "", "unknown content"),
        ("x.json", "{", "cannot read as JSON"),
        ("x.json", "7", "unknown content"),
        ("x.json", '{"a": "b"}', "unknown content"),
        ("result.json", '{"a": "x: 4"}', "name it with --data FILE"),
        ("SC.json", '{"u": {"score": [7, 8]}}', "give their folder _answers/<results>"),
        ("x.csv", HEADER, "no row below the heading"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    code, _, err = run(capsys, str(path))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
