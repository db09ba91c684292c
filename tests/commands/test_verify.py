"""`editr1 verify` from the command line, against a real server with a random model, and with every kind of bad input."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from editr1.cli import main
from editr1.judge.parse import render
from editr1.schema import Judgement
from fake_endpoint import completion, serve
from tiny_qwen import build_tiny_qwen

PRINCIPLES = [{"question": "Is the wall made of glass?", "category": "follow"}, {"question": "Is the table kept?", "category": "keep"}]
START_SECONDS = 120


def _photo_like(seed: int) -> Image.Image:
    """A picture with gradients, edges and sensor noise, at the size of a photo for the web."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:480, 0:640]
    sky = np.stack([90 + x / 8, 120 + y / 6, 200 - y / 5], -1)
    image = Image.fromarray(np.clip(sky + rng.normal(0, 8, sky.shape), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        left, top, width, height = rng.integers([0, 0, 20, 20], [600, 440, 160, 160])
        draw.ellipse((left, top, left + width, top + height), fill=tuple(int(value) for value in rng.integers(0, 255, 3)))
    return image.filter(ImageFilter.GaussianBlur(1))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple[str, str]:
    """(before, after): `input.png` and `output.png` of the folder EDITR1_PHOTO_PAIR where that is set, else generated."""
    folder = Path(os.environ.get("EDITR1_PHOTO_PAIR", ""))
    if (folder / "output.png").is_file():
        return str(folder / "input.png"), str(folder / "output.png")
    made = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("input.png", "output.png")):
        _photo_like(seed).save(made / name)
    return str(made / "input.png"), str(made / "output.png")


@pytest.fixture
def principles(tmp_path) -> str:
    path = tmp_path / "principles.json"
    path.write_text(json.dumps(PRINCIPLES))
    return str(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, model id) of `transformers serve` with a tiny random Qwen2.5-VL, its replies limited to what a CPU makes at once."""
    checkpoint = build_tiny_qwen(tmp_path_factory.mktemp("served"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).parents[1] / "serve_transformers.py"
    log = tmp_path_factory.mktemp("log") / "server.txt"
    with log.open("w") as out:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, str(script), str(checkpoint), str(port)], stdout=out, stderr=out, env=environment)
        try:
            _wait_until_healthy(process, port, log)
            yield f"http://127.0.0.1:{port}/v1", str(checkpoint)
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_healthy(process: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"the server did not start in {START_SECONDS} s: {log.read_text()[-2000:]}")


def _verify(*args: str) -> int:
    return main(["verify", *args])


def test_a_random_model_on_a_real_server_is_unscored_with_the_reason(server, photos, principles, capsys):
    url, model = server
    judge = ("--base-url", url, "--model", model, "--max-tokens", "24")
    code = _verify(*photos, "Make the wall of glass.", *judge, "--principles", principles)
    said = capsys.readouterr().out
    assert code == 1
    assert "unscored: " in said
    assert any(reason in said for reason in ("NO_VERDICTS", "TRUNCATED"))
    assert "score " not in said
    assert "Is the wall made of glass?" in said


def test_a_random_decomposer_on_a_real_server_is_unscored_with_the_reason(server, photos, capsys):
    url, model = server
    assert _verify(*photos, "Make it glass.", "--base-url", url, "--model", model, "--max-tokens", "16", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["score"] is None
    assert said["reason"].startswith("decomposition failed: ")


def test_a_judge_that_writes_no_questions_says_who_could(server, photos, capsys):
    url, model = server
    assert _verify(*photos, "Make it glass.", "--base-url", url, "--model", model, "--max-tokens", "16") == 1
    assert "--principles FILE, or --decomposer MODEL" in capsys.readouterr().out


def test_a_checkpoint_that_is_no_folder_is_refused_at_once(photos, capsys):
    """transformers would ask the Hub for it, for minutes where there is no network."""
    assert _verify(*photos, "x", "--checkpoint", "checkpoints/mistyped") == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_local_random_checkpoint_is_unscored_too(tmp_path, photos, principles, capsys):
    checkpoint = str(build_tiny_qwen(tmp_path / "model"))
    assert _verify(*photos, "Make it glass.", "--checkpoint", checkpoint, "--principles", principles, "--max-tokens", "8") == 1
    assert "unscored: " in capsys.readouterr().out


def test_a_judge_that_answers_is_scored(photos, principles, capsys):
    text = "The wall is glass now.\n" + render(Judgement((True, False), 4.5), ["F1", "K1"])
    with serve(lambda body: completion(text)) as endpoint:
        args = (*photos, "Make it glass.", "--base-url", endpoint.url, "--model", "m", "--principles", principles)
        assert _verify(*args) == 0
        assert capsys.readouterr().out.splitlines() == [
            "    yes  F1  Is the wall made of glass?",
            "     no  K1  Is the table kept?",
            "score 4.50 of 10",
        ]
        assert _verify(*args, "--json", "--traces", "2") == 0
        said = json.loads(capsys.readouterr().out)
    assert (said["score"], said["num_valid"], said["principles"][1]["yes_rate"]) == (4.5, 2, 0.0)
    assert said["traces"][0]["verdicts"] == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: "missing.png"}, "cannot read missing.png: No such file"),
        ({0: __file__}, "is not a readable image: expected PNG, JPEG, WebP, AVIF or GIF"),
        ({2: " "}, "the instruction is empty"),
        ({4: "http://127.0.0.1:9/v1"}, "m at http://127.0.0.1:9/v1: cannot connect, 3 times"),
        ({4: "localhost:9"}, "'localhost:9' is no address"),
        ({8: "missing.json"}, "cannot read missing.json"),
        ({8: str(Path(__file__).parents[1] / "conftest.py")}, "holds no principles"),
        ({5: "--checkpoint", 6: "no/such/folder"}, "cannot load a vision-language checkpoint from 'no/such/folder'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_two(photos, principles, capsys, monkeypatch, change, message):
    monkeypatch.setattr("editr1.endpoint._LONGEST_PAUSE", 0.01)
    args = [*photos, "Make it glass.", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--principles", principles]
    for index, value in change.items():
        args[index] = value
    assert _verify(*args) == 2
    complaint = capsys.readouterr().err.strip()
    assert message in complaint
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("words", [("--temperature", "nan"), ("--temperature", "-1"), ("--max-tokens", "0")])
def test_what_no_model_can_draw_by_is_refused_before_it_is_asked(words, photos, capsys):
    assert _verify(*photos, "x", "--model", "m", "--base-url", "http://127.0.0.1:9/v1", *words) == 2
    assert f"{words[0].strip('-').replace('-', '_')} is {words[1]}" in capsys.readouterr().err.replace("-1.0", "-1")


def test_one_judge_must_be_named(photos, capsys):
    assert _verify(*photos, "x") == 2
    assert _verify(*photos, "x", "--model", "m", "--checkpoint", "c") == 2
    assert "name one judge" in capsys.readouterr().err
