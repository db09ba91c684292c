"""What a hostile or a clumsy client may do to the service, and what it may not."""

from __future__ import annotations

import gzip
import json
import logging
import os
import pickle
import pickletools
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from editr1.cli import main
from editr1.config import Component
from editr1.errors import DataError
from editr1.judge.item import Again
from editr1.judge.rrm import RewardModel
from editr1.serve import app as app_module
from editr1.serve import dialects, listen
from editr1.serve.app import Access, Config
from editr1.serve.guard import Limits
from editr1.serve.worker import Draft, Encoded, slices
from editr1.store import read_inside
from editr1.vlm.base import ChatReply, ChatRequest
from serve_tools import LOCAL, Live, ScriptedVLM, b64, client, edit, png

JSON = {"Content-Type": "application/json"}


def post(service: TestClient, body: bytes | str, path: str = "/edit-reward", **headers: str) -> httpx.Response:
    return service.post(path, content=body, headers=JSON | headers)


# --- bodies


def test_a_million_unknown_keys_are_refused_before_they_are_read() -> None:
    with client() as service:
        answer = post(service, json.dumps({f"key{i}": i for i in range(1_000_000)}))
        assert answer.status_code == 413
        assert len(answer.content) < 200


@pytest.mark.parametrize("kind", ["Application/JSON", "application/json; charset=utf-8", None])
def test_the_bound_holds_however_the_kind_is_spelt(kind: str | None) -> None:
    body = b'  {"items":[' + b"[]," * 300_000 + b"[]]}"
    with client() as service:
        answer = service.post("/edit-reward", content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 413
    assert "JSON values" in answer.json()["error"]


def test_an_announced_length_beside_chunks_takes_no_small_room() -> None:
    taken: list[int] = []
    with client() as service:
        guard = service.app
        for room in (guard._small, guard._large):
            take = room.take
            room.take = lambda count, take=take: taken.append(count) or take(count)
        assert (
            service.post(
                "/edit-reward", content=iter([b"{}"]), headers=JSON | {"Content-Length": "2", "Transfer-Encoding": "chunked"}
            ).status_code
            == 422
        )
    assert taken == [Limits().max_body]


def test_what_is_no_http_and_what_is_packed_are_told_in_the_one_shape() -> None:
    with Live() as live:
        for text in ("GARBAGE", "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nb@d: 1", "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -5"):
            with socket.create_connection(("127.0.0.1", live.port), timeout=20) as peer:
                peer.sendall(text.encode() + b"\r\n\r\n")
                head, _, body = b"".join(iter(lambda peer=peer: peer.recv(4096), b"")).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 400 ")
                assert list(json.loads(body)) == ["error"]
    with client() as service:
        answer = post(service, gzip.compress(json.dumps({"items": [edit()]}).encode()), **{"Content-Encoding": "gzip"})
        assert answer.status_code == 415
        assert "packed" in answer.json()["error"]


def test_an_edit_without_an_instruction_is_refused_in_every_dialect() -> None:
    picture = b64(png())
    turn = {"text": "", "image_b64": picture}
    with client() as service:
        for path, body in (
            ("/edit-reward", {"items": [edit(" \n")]}),
            ("/score", {"requests": [{"history": [turn, turn]}]}),
            ("/compute", {"prompt": [""], "image": [picture], "condition_images": [[picture]]}),
        ):
            answer = post(service, json.dumps(body), path)
            assert answer.status_code == 400
            assert "item 0 has no instruction" in answer.json()["error"]


def test_a_principle_without_a_question_is_refused() -> None:
    with client() as service:
        answer = post(service, json.dumps({"items": [edit(principles=[{"question": " ", "category": "keep"}])]}))
    assert answer.status_code == 400
    assert "without a question" in answer.json()["error"]


def test_unknown_keys_are_counted_and_never_repeated() -> None:
    with client() as service:
        for body in ({"items": [edit()]} | {f"k{i}": 1 for i in range(50_000)}, {"items": [edit() | {"x" * 100_000: 1}]}):
            answer = post(service, json.dumps(body))
            assert answer.status_code == 422
            assert len(answer.content) < 400
            assert "unknown key" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/edit-reward", "/score", "/compute"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"seed": NaN}', b'{"metadata": {"x": Infinity}}', b'{"items": "\\ud800"}', b'"\xff"', b"[" * 100_000],
    ids=["empty", "cut", "nan", "infinity", "surrogate", "utf8", "deep"],
)
def test_what_is_no_json_is_a_400_with_one_line(path: str, body: bytes) -> None:
    with client() as service:
        answer = post(service, body, path)
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
        assert len(answer.content) < 300


def test_every_failure_has_one_shape_and_repeats_no_picture() -> None:
    class Bug(ScriptedVLM):
        def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
            raise AttributeError("our own bug")

    picture = b64(png((300, 300)))
    wrong = {"items": [edit(source={"base64": picture, "path": "x"})]}
    with client(vlm=Bug()) as service:
        answers = [
            service.get("/nowhere"),
            service.get("/edit-reward"),
            post(service, json.dumps(wrong)),
            post(service, json.dumps({"requests": [{"history": picture}]}), "/score"),
            post(service, json.dumps({"prompt": [1], "image": [picture]}), "/compute"),
            post(service, json.dumps({"items": [edit()]})),
            service.post("/edit-reward", content=b"{}", headers={"Content-Type": "text/plain"}),
        ]
    assert [answer.status_code for answer in answers] == [404, 405, 422, 422, 422, 500, 415]
    for answer in answers:
        assert list(answer.json()) == ["error"]
        assert picture[:60] not in answer.text


def test_a_page_of_another_site_is_refused() -> None:
    body = json.dumps({"items": [edit()]})
    with client() as service:
        assert post(service, body, Origin="http://evil.example").status_code == 403
        assert post(service, body, Origin="null").status_code == 403
        assert post(service, body, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert post(service, body, Origin="http://[").status_code == 403
        assert post(service, body, Origin=LOCAL).status_code == 200


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Content-Type", ("application/json", "text/plain")),  # the bound on JSON values looked at one, the app at the other
        ("Origin", ("http://evil.example", LOCAL)),
        ("Authorization", ("Bearer wrong", "Bearer right")),
    ],
)
def test_of_two_headers_of_one_name_neither_is_believed(name: str, values: tuple[str, str]) -> None:
    body = b'{"items":[' + b"[]," * 300_000 + b"[]]}"
    with client() as service:
        answer = service.post("/edit-reward", content=body, headers=[(name, value) for value in values])
    assert answer.status_code == 400
    assert "stands twice" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.2:8090", "LOCALHOST", "[::1]:8090", "127.0.0.1"])
def test_this_machine_may_be_called_by_its_other_names(host: str) -> None:
    with client() as service:
        assert service.get("/health", headers={"Host": host}).status_code == 200
        assert service.head("/health", headers={"Host": host}).status_code == 200
        assert service.get("/health", headers={"Host": f"x.{host}"}).status_code == 400


def test_the_word_before_a_token_has_no_case() -> None:
    with client(Access(token="a-secret")) as service:
        for given, status in (("Bearer a-secret", 200), ("bearer  a-secret", 200), ("a-secret", 200), ("Basic a-secret", 401), ("", 401)):
            assert service.get("/health", headers={"Authorization": given}).status_code == status
    assert "a-secret" not in repr(Access(token="a-secret"))


# --- pictures


def test_pixels_are_bounded_by_headers_and_nothing_is_decoded_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = {"base64": b64(png((7000, 7000)))}
    limits = Limits(max_request_pixels=3_000_000)
    with client(limits=limits) as service:
        monkeypatch.setattr(Draft, "item", lambda self: pytest.fail("decoded"))
        one = post(service, json.dumps({"items": [edit(edited=flat)]}))
        assert (one.status_code, "49,000,000 pixels" in one.json()["error"]) == (400, True)
        many = {"base64": b64(png((1000, 1000)))}
        sum_ = post(service, json.dumps({"items": [edit(source=many, edited=many)] * 2}))
        assert "4,000,000 pixels" in sum_.json()["error"]


def test_a_request_is_decoded_in_slices() -> None:
    small, large = Encoded(png((100, 100)), "s"), Encoded(png((5000, 5000)), "l")
    drafts = [Draft((small,), small, "x")] * 5 + [Draft((large,), large, "x")] * 2 + [Draft((small,), small, "x")]
    assert [len(piece) for piece in slices(drafts, 4)] == [4, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["fifo", "loop", "folder", "device"])
def test_special_files_under_the_root_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    name = tmp_path / "x.png"
    if kind == "fifo":
        os.mkfifo(name)
    elif kind == "loop":
        name.symlink_to(name)
    elif kind == "folder":
        name.mkdir()
    root, path = (Path("/dev"), "zero") if kind == "device" else (tmp_path, "x.png")
    with pytest.raises(DataError, match=path):
        read_inside(root, path)
    with client(Access(root=root)) as service:
        answer = post(service, json.dumps({"items": [edit(edited={"path": path})]}))
        assert answer.status_code == 400


# --- the queue


def test_a_client_that_leaves_is_not_judged() -> None:
    with Live() as live:
        live.vlm.delay = 0.5
        body = json.dumps({"items": [edit("left")]}).encode()
        head = b"POST /edit-reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        first = socket.create_connection(("127.0.0.1", live.port))
        first.sendall(head.replace(b"%d", b"") + body)  # keeps the judge busy
        time.sleep(0.2)
        gone = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(5)]
        for leaver in gone:
            leaver.sendall(head + body)
        time.sleep(0.1)
        for leaver in gone:
            leaver.close()
        time.sleep(0.1)
        reply = httpx.post(f"{live.url}/edit-reward", json={"items": [edit("stays")]}, trust_env=False)
        assert reply.status_code == 200
        assert sum(live.vlm.batches) == 2
        assert httpx.get(f"{live.url}/health", trust_env=False).json()["waiting"] == 0
        first.close()


def test_held_bytes_are_bounded_and_everybody_is_served() -> None:
    """Room for four bodies: sixteen at once wait their turn, and none is refused."""
    body = json.dumps({"items": [edit()], "seed": 0}).ljust(50_000)
    with Live(limits=Limits(max_body=60_000, max_held=400_000)) as live:
        guard = live.app
        assert guard._small.size == 200_000
        with ThreadPoolExecutor(16) as pool:
            send = lambda _: httpx.post(f"{live.url}/edit-reward", content=body, headers=JSON, trust_env=False).status_code  # noqa: E731
            assert list(pool.map(send, range(16))) == [200] * 16
        for _ in range(100):  # the last answer arrives a moment before its room is given back
            if guard._small.free == 200_000:
                break
            time.sleep(0.02)
        assert guard._small.free == 200_000


def test_room_that_stays_taken_is_a_429() -> None:
    limits = Limits(max_body=60_000, max_held=100_000, room_seconds=0.2)
    with Live(limits=limits) as live, socket.create_connection(("127.0.0.1", live.port)) as hog:
        hog.sendall(b"POST /edit-reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 59000\r\n\r\n{")
        time.sleep(0.1)
        reply = httpx.post(f"{live.url}/edit-reward", content=json.dumps({"items": [edit()]}).ljust(5000), headers=JSON, trust_env=False)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert httpx.get(f"{live.url}/health", trust_env=False).status_code == 200


def test_silent_connections_make_room_for_those_that_ask() -> None:
    with Live(max_connections=20) as live:
        idle = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(60)]
        assert httpx.get(f"{live.url}/health", trust_env=False).status_code == 200
        assert len(live.server.server_state.connections) <= 20
        for connection in idle:
            connection.close()


def test_files_that_run_out_are_one_line_a_minute() -> None:
    quiet = listen._OnceAMinute()
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "socket.accept() out of system resource", (), (OSError, OSError(), None))
    assert [quiet.filter(record) for _ in range(4000)].count(True) == 1
    assert record.exc_info is None
    assert quiet.filter(logging.LogRecord("asyncio", logging.ERROR, "", 0, "another trouble", (), None))


# --- asked again


class MoodyVLM(ScriptedVLM):
    """Gives no score to a greedy question, and one to any other."""

    def _text(self, request: ChatRequest) -> str:
        return super()._text(request) if request.sampling.temperature > 0 else "I like it."


def test_an_unscored_edit_is_asked_again_hotter_in_every_dialect() -> None:
    pictures = (b64(png(color="blue")), b64(png()))
    history = [{"text": "make it red", "image_b64": picture} for picture in pictures]
    compute = {"prompt": ["make it red"], "image": [pictures[1]], "condition_images": [[pictures[0]]]}
    plain = pickle.dumps({"ref_images": [png(color="blue")], "images": [png()], "prompts": ["make it red"]})
    with client(Access(allow_pickle=True), vlm=MoodyVLM(), decompose=True) as service:
        assert post(service, json.dumps({"items": [edit()]})).json()["results"][0]["value"] == 6.5
        assert post(service, json.dumps({"requests": [{"history": history}]}), "/score").json()["errors"] == [{}]
        assert post(service, json.dumps(compute), "/compute").json() == {"rewards": [6.5]}
        assert pickle.loads(service.post("/", content=plain).content) == {"scores": [6.5]}
    with client(vlm=MoodyVLM(), again=Again(tries=0)) as service:
        assert post(service, json.dumps({"items": [edit()]})).json()["results"][0]["value"] is None


# --- pickles


def opcodes(*names: str) -> bytes:
    codes = {code.name: code.code.encode("latin-1") for code in pickletools.opcodes}
    return b"".join(codes[name] for name in names)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x04)" + opcodes("TUPLE1") * 99_000 + b".",
        b"\x80\x04)" + opcodes("TUPLE1") * 300_000 + b".",
        b"\x80\x04})" + opcodes("TUPLE1") * 20 + b"Ns.",  # a tuple as key: its hash visits everything
        b"\x80\x04" + b"]" * 99_000 + b"a" * 98_999 + b".",
        b"\x80\x04" + b"N0" * 200_000 + b".",
        b"\x80\x04a.", b"\x80\x04t.", b"\x80\x04h\x00.", b"\x80\x040.", b"\x80\x04.", b"\x80\x04(K\x01u.", b"\x80\x04}K\x01s.",
    ],
)  # fmt: skip
def test_a_pickle_is_bounded_in_depth_and_steps(body: bytes) -> None:
    with pytest.raises(DataError):
        dialects.load_pickle(body)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_python_reads_them(protocol: int) -> None:
    row = {"tag": "x", "n": [1, -2, 2**40, 0.5, True, None], "t": (1,), "u": (1, 2), "v": (1, 2, 3), "w": (1, 2, 3, 4), "e": ()}
    value: Any = {"images": [png()] if protocol > 2 else ["x"], "prompts": ["größer", "größer"], "metadatas": [row, row, {}, []]}
    if protocol == 0:  # texts of protocol 0 are escaped, which no known client sends
        value = {1: [2.5, {3: None}]}
    assert dialects.load_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json"])
def test_a_pickle_of_a_kind_that_any_page_can_send_is_refused(kind: str) -> None:
    body = pickle.dumps({"ref_images": [png()], "images": [png()], "prompts": ["make it red"]})
    with client(Access(allow_pickle=True), decompose=True) as service:
        assert service.post("/", content=body, headers={"Content-Type": kind}).status_code == 415
        assert service.post("/", content=body, headers={"Content-Type": "application/octet-stream"}).status_code == 200
        assert service.post("/", content=body, headers={"Origin": "http://evil.example"}).status_code == 403


# --- the command


def settings_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Config:
    taken: list[Config] = []
    monkeypatch.setattr(app_module, "make_judge", lambda config: taken.append(config) or RewardModel(ScriptedVLM(), "compact"))
    monkeypatch.setattr(listen, "listen", lambda *given, **options: None)
    assert main(["serve", *words]) == 0
    return taken[0]


def test_set_works_without_a_recipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    judge = ("--model", "m", "--base-url", "http://127.0.0.1:9/v1")
    config = settings_of(monkeypatch, *judge, "--set", "serve.max_tokens=99", "--set", "serve.vlm.options.max_concurrency=3")
    assert (config.max_tokens, config.vlm.options["max_concurrency"]) == (99, 3)
    assert settings_of(monkeypatch, "--set", "serve.vlm.id=scripted").vlm == Component("scripted")
    assert main(["serve", *judge, "--set", "score.max_tokens=99"]) == 2
    assert "serve.num_traces=4" in capsys.readouterr().err
    assert main(["serve", *judge, "--set", "serve.max_token=99"]) == 2
