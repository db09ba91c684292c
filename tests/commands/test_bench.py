"""`editr1 bench` and `score-folder` against a real HTTP server: numbers, resume, cache, repeats, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench_files import png
from editr1.cli import main
from editr1.schema import Metric, from_json
from fake_endpoint import completion, serve


def folder_of(tmp_path: Path, num_edits: int = 6) -> Path:
    """Edits of one colour each; the red channel of an edit decides its score."""
    folder = tmp_path / "edits"
    folder.mkdir()
    (folder / "s.png").write_bytes(png(0))
    lines = []
    for i in range(num_edits):
        (folder / f"e{i}.png").write_bytes(png(40 * i))
        lines.append(
            json.dumps({"id": f"e{i}", "source": "s.png", "edited": f"e{i}.png", "instruction": f"edit {i}", "category": "ab"[i % 2]})
        )
    (folder / "edits.jsonl").write_text("\n".join(lines))
    return folder


def judge(body: dict[str, Any]) -> dict[str, Any]:
    """Answers `[i, 9]` for the instruction `edit i`, and nonsense for the last one."""
    text = next(part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")
    if "edit 5" in text:
        return completion("no idea")
    number = next((i for i in range(5) if f"edit {i}" in text), 4)
    return completion(json.dumps({"score": [number + 2, 9], "reasoning": "r"}))


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(word) for word in argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_folder_is_scored_once_and_a_second_run_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    with serve(judge) as endpoint:
        command = ["score-folder", folder, "--run", tmp_path / "run", "--judge", "viescore", "--model", "m", "--base-url", endpoint.url]
        code, out, err = run(capsys, *command, "--json")
        assert code == 0, err
        num_asked = len(endpoint.bodies)
        metric = from_json(Metric, out.splitlines()[0])
        # SC of edits 0 to 4: 2 to 6; PQ always 6 (the question without an instruction is answered with 4 + 2)
        assert metric.value == pytest.approx(sum((sc * 6) ** 0.5 for sc in (2, 3, 4, 5, 6)) / 5)
        assert (metric.name, metric.n, metric.num_unscored, metric.low) == ("folder/viescore", 5, 1, None)  # one source: no interval
        assert run(capsys, *command, "--json")[1] == out
        assert len(endpoint.bodies) == num_asked
        outcomes = [json.loads(line) for line in (tmp_path / "run" / "bench_folder_viescore.outcomes.jsonl").read_text().splitlines()]
        assert [row["value"] is None for row in outcomes] == [False] * 5 + [True]


def test_replies_survive_another_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    with serve(judge) as endpoint:
        command = ["score-folder", folder, "--judge", "viescore", "--model", "m", "--base-url", endpoint.url, "--cache", tmp_path / "cache"]
        run(capsys, *command, "--run", tmp_path / "one")
        num_asked = len(endpoint.bodies)
        code, out, _ = run(capsys, *command, "--run", tmp_path / "two", "--price", "1", "2")
        assert code == 0
        assert "0 asked" in out
        assert len(endpoint.bodies) == num_asked


def test_repeats_print_their_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    with serve(judge) as endpoint:
        command = ["score-folder", folder, "--run", tmp_path / "run", "--judge", "viescore", "--model", "m", "--base-url", endpoint.url]
        code, out, _ = run(capsys, *command, "--repeats", 3, "--json")
    assert code == 0
    found = {row["protocol"]: row for row in map(json.loads, out.splitlines())}
    assert found["folder/mean/between-run-sd"]["value"] == pytest.approx(0.0)
    assert found["folder/mean/between-run-sd"]["n"] == 3


def test_a_broken_image_is_counted_and_not_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    (folder / "e1.png").write_bytes(png(9, size=64)[:-30])
    (folder / "e2.png").unlink()
    with serve(judge) as endpoint:
        command = ["score-folder", folder, "--run", tmp_path / "r", "--judge", "viescore", "--model", "m", "--base-url", endpoint.url]
        code, out, err = run(capsys, *command, "--json")
        assert code == 0, err
        assert json.loads(out.splitlines()[0])["num_unscored"] == 3
        assert "2 of 6 could not be shown to the judge (image 2) and count as unscored" in run(capsys, *command)[1]
    dropped = (tmp_path / "r" / "bench_folder_viescore" / "dropped.jsonl").read_text()
    assert "cannot read" in dropped
    assert "edited image" in dropped


def test_a_judge_that_mostly_fails_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    with serve(lambda body: completion("no")) as endpoint:
        code, _, err = run(
            capsys, "score-folder", folder, "--run", tmp_path / "r", "--judge", "viescore", "--model", "m", "--base-url", endpoint.url
        )
    assert code == 2
    assert "6 of 6 edits are unscored" in err


def test_a_dead_judge_is_found_by_its_first_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, 12)
    (folder / "e0.png").unlink()  # the judge cannot be blamed for a picture that is missing
    with serve(lambda body: completion("I am a language model")) as endpoint:
        command = ["score-folder", folder, "--run", tmp_path / "r", "--judge", "viescore", "--model", "m", "--base-url", endpoint.url]
        code, _, err = run(capsys, *command)
        assert code == 2
        assert "none of the first 8 edits got a readable answer (NO_SCORE 8, the first answer is 'I am a language model" in err
        assert "--max-unscored 1" in err
        assert len(endpoint.bodies) == 16  # two questions an edit
        assert run(capsys, *command, "--max-unscored", 1)[0] == 0
        assert len(endpoint.bodies) == 22


def test_first_answers_are_asked_for_once_and_only_about_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, 12)
    with serve(judge) as endpoint:
        command = ["score-folder", folder, "--run", tmp_path / "r", "--judge", "viescore", "--model", "m", "--base-url", endpoint.url]
        assert run(capsys, *command)[0] == 0
        # a question without an instruction is the same for pictures that are the same: none here
        assert len(endpoint.bodies) == len({json.dumps(body, sort_keys=True) for body in endpoint.bodies}) == 24
    assert run(capsys, *command)[0] == 0  # nobody is there any more, and nobody is asked


def test_the_dry_run_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "score-folder",
        folder_of(tmp_path),
        "--run",
        tmp_path / "r",
        "--judge",
        "viescore",
        "--model",
        "m",
        "--base-url",
        "http://127.0.0.1:9/v1",
    ]
    code, out, _ = run(capsys, *command, "--dry-run")
    assert code == 0
    assert "6 edits x 1" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bench", "gedti"], "gedit"),
        (["bench", "editreward_editscore", "--run", "r"], "huggingface-cli download EditScore/EditReward-Bench"),
        (["bench", "gedit", "--root", ".", "--set", "langage=cn"], "did you mean 'language'"),
        (["score-folder", "nowhere"], "no folder nowhere"),
        (["score-folder", "."], "no known layout"),
        (["score-folder", "edits"], "--run DIR"),
        (["score-folder", "edits", "--run", "r", "--judge", "visecore"], "viescore"),
        (["score-folder", "edits", "--run", "r", "--judge", "viescore"], "option 'vlm' is required"),
        (["score-folder", "edits", "--run", "r", "--model", "m", "--checkpoint", "c"], "both name a model"),
        (["score-folder", "edits", "--run", "r", "--concurrency", "0"], "--concurrency is 0; expected at least 1"),
        (["score-folder", "edits", "--run", "r", "--max-unscored", "7"], "--max-unscored is 7; expected a share"),
        (["score-folder", "edits", "--run", "r", "--price", "1", "-2"], "--price is -2"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    folder_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"source": "s.png", "edited": "e.png"}', "line 1: column 'instruction' is missing"),
        ("{", "line 1 is not JSON"),
        ('{"source": 1, "edited": "e", "instruction": "i"}', "object of texts"),
        ('{"id": "x", "source": "s", "edited": "e", "instruction": "i"}\n' * 2, "more than once"),
    ],
)
def test_a_broken_list_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "edits.jsonl").write_text(text)
    code, _, err = run(capsys, "score-folder", folder, "--run", tmp_path / "r")
    assert (code, message in err) == (2, True), err
