"""`editr1 edit-benchmark` with the real images client against a server on loopback: layouts, resume, refusals, and the way to `compare`."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench_files import png, write_parquet
from editr1 import endpoint
from editr1.cli import main
from fake_endpoint import completion
from fake_endpoint import serve as serve_chat


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_LONGEST_PAUSE", 0.02)


def picture(body: bytes) -> tuple[int, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (len(body) % 256, 90, 9)).save(buffer, "PNG")
    return 200, {"created": 0, "data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}


@contextmanager
def serve(answer: Callable[[bytes], tuple[int, Any]] = picture) -> Iterator[tuple[str, list[bytes]]]:
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            return

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(body)
            status, value = answer(body)
            payload = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def refuses(word: bytes) -> Callable[[bytes], tuple[int, Any]]:
    error = {"error": {"message": "against the rules", "code": "moderation_blocked", "type": None}}
    return lambda body: (400, error) if word in body else picture(body)


def gedit(folder: Path) -> Path:
    rows = [
        {
            "task_type": task,
            "key": f"k{i}",
            "instruction": f"edit {i}",
            "instruction_language": language,
            "Intersection_exist": True,
            "input_image": png(30 * i, 16),
        }
        for i, (task, language) in enumerate([("ps_human", "en"), ("ps_human", "cn"), ("style_change", "en"), ("style_change", "en")])
    ]
    return write_parquet(folder, rows, ("input_image",))


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def command(root: Path, out: Path, url: str, *more: object, name: str = "gedit") -> list[object]:
    editor = ["--editor", "images_api", "--editor-set", "model=m", "--editor-set", f"base_url={url}", "--editor-set", "max_attempts=2"]
    partial = ["--set", "partial_set=true"] if name == "gedit" else []
    return ["edit-benchmark", name, "--root", root, *partial, *editor, "--out", out, "--json", *more]


def test_only_missing_edits_are_made_and_each_again_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = gedit(tmp_path / "data"), tmp_path / "out"
    with serve() as (url, seen):
        assert "3 of 3" in run(capsys, *command(root, out, url, "--dry-run"))[1]
        assert not out.exists()
        code, text, err = run(capsys, *command(root, out, url, "--batch-size", 2))
        assert code == 0, err
        assert json.loads(text) == {"num_wanted": 3, "num_kept": 0, "num_made": 3, "failed": {}}
        found = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
        assert found[:2] == ["fullset/ps_human/en/k0.png", "fullset/ps_human/en/k0_SRCIMG.png"]
        assert len(found) == 6
        edit = out / "fullset/style_change/en/k2.png"
        before = edit.read_bytes()
        edit.unlink()
        assert json.loads(run(capsys, *command(root, out, url))[1])["num_made"] == 1
        assert edit.read_bytes() == before
        assert len(seen) == 4
        code, _, err = run(capsys, *command(root, out, url, "--seed", 1))
        assert (code, "seed=0, now it is 1" in err) == (2, True), err


def test_refused_edits_are_listed_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = gedit(tmp_path / "data"), tmp_path / "out"
    answers = [refuses(b"edit 2")]
    with serve(lambda body: answers[0](body)) as (url, _):
        assert json.loads(run(capsys, *command(root, out, url, "--batch-size", 3))[1])["failed"] == {"refused": 1}
        assert json.loads((out / "missing.jsonl").read_text())["key"] == "style_change/en/k2"
        answers[0] = picture
        assert json.loads(run(capsys, *command(root, out, url))[1]) == {"num_wanted": 3, "num_kept": 2, "num_made": 1, "failed": {}}
        assert (out / "missing.jsonl").read_text() == ""


def test_a_dead_endpoint_stops_and_what_was_made_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = gedit(tmp_path / "data"), tmp_path / "out"
    with serve(lambda body: picture(body) if b"edit 0" in body else (500, {"error": {"message": "down"}})) as (url, _):
        code, _, err = run(capsys, *command(root, out, url))
    assert (code, "2 of 3 items failed" in err) == (2, True), err
    assert (out / "fullset/ps_human/en/k0.png").is_file()


def test_two_editors_are_made_judged_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "own"
    root.mkdir()
    (root / "s.png").write_bytes(png(40, 16))
    rows = [{"id": f"t{i}", "source": "s.png", "instruction": f"edit {i}", "category": "ab"[i % 2]} for i in range(6)]
    (root / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def judge(body: dict[str, Any]) -> dict[str, Any]:
        text = next(part["text"] for part in body["messages"][-1]["content"] if part["type"] == "text")
        return completion(json.dumps({"score": [7, 6] if "edit" in text and '"edit 5"' not in text else [6, 6]}))

    with serve() as (url, _), serve_chat(judge) as chat:
        for editor in "xy":
            out = tmp_path / editor
            assert (
                run(capsys, *command(root, out, url, "--editor-set", f"size={'auto' if editor == 'x' else 'source'}", name="folder"))[0]
                == 0
            )
            code, text, err = run(
                capsys, *["score-folder", out, "--run", tmp_path / "run", "--label", editor, "--judge", "viescore"],
                *["--model", "m", "--base-url", chat.url, "--json"],
            )  # fmt: skip
            assert code == 0, err
            assert json.loads(text.splitlines()[0])["n"] == 6
    outcomes = [tmp_path / "run" / f"bench_folder_{editor}.outcomes.jsonl" for editor in "xy"]
    code, text, _ = run(capsys, "compare", *outcomes, "--samples", tmp_path / "samples.csv")
    assert code == 0
    assert "compare/score/category/a: +0.000 is below the noise floor" in text
    assert (tmp_path / "samples.csv").read_text().count("below noise floor") == 6


def test_imgedit_layout_and_a_missing_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "Benchmark", tmp_path / "out"
    root.mkdir()
    (root / "a.png").write_bytes(png(1, 16))
    rows = {str(i): {"id": name, "prompt": f"p{i}", "edit_type": "add"} for i, name in enumerate(["a.png", "gone.png", "../out.png"])}
    (root / "basic_edit.json").write_text(json.dumps(rows))
    with serve() as (url, _):
        assert json.loads(run(capsys, *command(root, out, url, name="imgedit"))[1])["failed"] == {"image": 2}
    assert [path.name for path in out.glob("*.png")] == ["0.png"]
    assert "outside its root" in (out / "missing.jsonl").read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gedti", "--editor", "kontext", "--out", "o"], "did you mean 'gedit'"),
        (["gedit", "--editor", "images_api", "--out", "o"], "huggingface-cli download stepfun-ai/GEdit-Bench"),
        (["gedit", "--root", "data", "--editor", "images_api", "--out", "o"], "expected 606"),
        (["gedit", "--root", "data", "--set", "langage=en", "--editor", "images_api", "--out", "o"], "did you mean 'language'"),
        (["gedit", "--root", "data", "--set", "partial_set=true", "--editor", "kontxt", "--out", "o"], "did you mean 'kontext'"),
        (["gedit", "--root", "data", "--set", "partial_set=true", "--editor", "fractions:Fraction", "--out", "o"], "no edit method"),
        (["gedit", "--root", "data", "--set", "partial_set=true", "--editor", "images_api", "--out", "data"], "has no editor.json"),
        (["gedit", "--root", "data", "--editor", "images_api", "--out", "o", "--batch-size", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    gedit(tmp_path / "data")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "edit-benchmark", *argv)
    said = [line for line in err.splitlines() if line.startswith("editr1")]  # `datasets` shows a bar of its own
    assert (code, len(said), message in said[0]) == (2, 1, True), err
    assert not Path("o").exists()  # a folder is claimed by an editor that can be made, not by a misspelt one
