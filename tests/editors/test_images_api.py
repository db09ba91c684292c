"""The images.edit client against a real server on loopback: multipart fields, seeds, faults, refusals."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1 import endpoint
from editr1.config import Component
from editr1.editors import images_api
from editr1.editors.base import EditRequest
from editr1.errors import BackendError, ConfigError, ContentRefusedError
from editr1.schema import EditTask, Principle, TaskPrinciples
from editr1.stages import generate
from editr1.store import Engine, Run, Work

SOURCE = Image.new("RGB", (32, 16), "navy")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_LONGEST_PAUSE", 0.02)


def reply(status: int, value: Any) -> tuple[int, bytes]:
    return status, json.dumps(value).encode()


def picture(fields: dict[str, bytes]) -> tuple[int, bytes]:
    """An image whose colour tells the seed."""
    buffer = io.BytesIO()
    seed = int(fields.get("seed", b"0"))
    Image.new("RGB", (32, 16), (seed % 256, seed // 256 % 256, 9)).save(buffer, "PNG")
    return reply(200, {"created": 0, "data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]})


@contextmanager
def serve(answer: Callable[[dict[str, bytes], int], tuple[int, bytes]]) -> Iterator[tuple[str, list[dict[str, bytes]]]]:
    """A server; `answer` gets the form fields and the number of this try for the seed."""
    seen: list[dict[str, bytes]] = []
    tries: Counter[bytes] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            return

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = BytesParser().parsebytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
            parts = message.get_payload()
            fields = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True) for p in parts}
            with lock:
                seen.append({"path": self.path.encode(), **fields})
                tries[fields.get("seed", b"")] += 1
                number = tries[fields.get("seed", b"")]
            status, payload = answer(fields, number)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Retry-After", "0.01")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def test_several_sources_are_several_files() -> None:
    names: list[str] = []
    with serve(lambda fields, number: names.extend(fields) or picture(fields)) as (url, _):
        images_api.build("m", url, size="source").edit([EditRequest((SOURCE, SOURCE), "put 1 on 2", 5)])
    assert names.count("image[]") == 1  # the test's server keeps one field a name
    assert "image" not in names


def test_a_request_is_the_form_that_servers_document() -> None:
    with serve(lambda fields, number: picture(fields)) as (url, seen):
        editor = images_api.build("m", url, size="source", extra_body={"guidance_scale": 2.5, "num_inference_steps": 4})
        images = editor.edit([EditRequest(SOURCE, "make it red", seed) for seed in (5, 300)])
    assert [image.getpixel((0, 0)) for image in images] == [(5, 0, 9), (44, 1, 9)]
    fields = next(fields for fields in seen if fields["seed"] == b"5")
    image = Image.open(io.BytesIO(fields.pop("image")))
    assert image.size == SOURCE.size
    assert fields == {
        "path": b"/v1/images/edits", "model": b"m", "prompt": b"make it red", "n": b"1", "size": b"32x16",
        "seed": b"5", "guidance_scale": b"2.5", "num_inference_steps": b"4",
    }  # fmt: skip


def test_what_passes_is_tried_again_and_gives_the_same_picture() -> None:
    def answer(fields: dict[str, bytes], number: int) -> tuple[int, bytes]:
        faults = {1: reply(503, {}), 2: (200, b'{"created": 0, "da'), 3: reply(200, {"created": 0, "data": []})}
        faults[4] = reply(200, {"created": 0, "data": [{"b64_json": "AAAA"}]})
        return faults.get(number) or picture(fields)

    with serve(answer) as (url, seen):
        image = images_api.build("m", url).edit([EditRequest(SOURCE, "x", 7)])[0]
    assert image.getpixel((0, 0)) == (7, 0, 9)
    assert [fields["seed"] for fields in seen] == [b"7"] * 5


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (reply(500, {}), BackendError, "m at http://127.0.0.1:"),
        (reply(422, {"error": {"message": "no image"}}), BackendError, "status 422"),
        (reply(400, {"error": {"message": "no", "code": "moderation_blocked"}}), ContentRefusedError, "no"),
        (reply(200, {"error": {"message": "Insufficient credits", "code": 402}}), BackendError, "no credit left .Insufficient credits"),
        (reply(200, {"error": "Unexpected endpoint"}), BackendError, "Unexpected endpoint.*does the address end in /v1"),
        ((200, b"<!doctype html><html>login</html>"), BackendError, "a web page: login"),
        (reply(200, {"data": None}), BackendError, "holds no image, 2 times"),
        (reply(200, {"data": [{"b64_json": None}]}), BackendError, "image is broken.*, 2 times"),
        (reply(400, {"code": "DataInspectionFailed", "message": "Output data may be inappropriate"}), ContentRefusedError, "Output data"),
        (reply(200, {"data": [{"b64_json": "", "finish_reason": "CONTENT_FILTER"}]}), ContentRefusedError, "CONTENT_FILTER"),
        (reply(200, {"created": 0, "data": [{"url": "http://x/y.png"}]}), ConfigError, "set response_format to b64_json"),
    ],
)
def test_what_stays_wrong_says_why(answer: tuple[int, bytes], error: type[Exception], message: str) -> None:
    with serve(lambda fields, number: answer) as (url, _), pytest.raises(error, match=message):
        images_api.build("m", url, max_attempts=2).edit([EditRequest(SOURCE, "x", 1)])


@pytest.mark.parametrize("options", [{"size": "big"}, {"response_format": "url"}, {"extra_body": {"seed": 1}}, {"base_url": "localhost:1"}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        images_api.build("m", **{"base_url": "http://localhost:1/v1", **options})


def test_generate_drops_refusals_and_counts_an_endpoint_that_ignores_the_seed(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    source = run.images.put(SOURCE)
    rows = [TaskPrinciples(EditTask.make(source, text), (Principle("Is it?", "follow"),)) for text in ("fine", "forbidden")]
    run.process("02_principles", [(r.task.id, r) for r in rows], Work(lambda: list), settings={}, engine=Engine(progress=False))

    def answer(fields: dict[str, bytes], number: int) -> tuple[int, bytes]:
        if fields["prompt"] == b"forbidden":
            return reply(400, {"error": {"message": "not this", "code": "content_policy_violation"}})
        return picture({})

    with serve(answer) as (url, _):
        spec = generate.EditorSpec("api", Component("images_api", {"model": "m", "base_url": url}), num_seeds=3, batch_size=2)
        counts = generate.run(generate.Config((spec,), engine=Engine(progress=False)), run.dir)
    assert (counts.num_out, counts.reasons) == (3, {"refused": 3})
    assert json.loads((run.dir / "03_candidates" / "repeats.json").read_text()) == {"api": {"candidates": 3, "repeated": 2}}
