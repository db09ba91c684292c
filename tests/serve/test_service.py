"""The reward service: its contract, its dialects, and what it refuses while others are served."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pickle
import socket
import zlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import uvicorn
from starlette.testclient import TestClient

from editr1.cli import main
from editr1.config import Component
from editr1.errors import ConfigError, DataError
from editr1.serve import dialects
from editr1.serve.app import Access, Config, build_app
from editr1.serve.guard import Limits
from editr1.serve.listen import PatientProtocol
from editr1.serve.messages import published_schema
from editr1.serve.worker import Load
from editr1.vlm.base import ChatReply, ChatRequest, request_images
from serve_tools import Live, ScriptedVLM, b64, client, edit, judge, png
from small_run import make_run


def bomb() -> bytes:
    """A PNG of a few bytes that announces 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


@pytest.fixture
def service() -> Iterator[TestClient]:
    with client() as opened:
        yield opened


# --- the contract


def test_a_batch_gets_values_rates_and_reasons_in_order(service: TestClient) -> None:
    answer = service.post("/edit-reward", json={"items": [edit(), edit("nonsense")]}).json()
    first, second = answer["results"]
    assert first["value"] == 6.5
    assert first["categories"] == {"follow": 1.0, "keep": 0.0}
    assert [(row["question"], row["rate"]) for row in first["principles"]] == [("Is it red?", 1.0), ("Is the rest kept?", 0.0)]
    assert first["tokens"] == 7
    assert (second["value"], second["reason"], second["principles"]) == (None, "NO_VERDICTS", [])
    jsonschema.validate(answer, published_schema()["response"])


def test_the_published_schema_is_the_code(service: TestClient) -> None:
    published = json.loads(resources.files("editr1.serve").joinpath("schema.json").read_text())
    assert published == published_schema() == service.get("/schema").json()
    jsonschema.validate({"items": [edit()]}, published["request"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"items": [edit(instrution="typo")]}, published["request"])


def test_several_sources_are_shown_in_their_order(service: TestClient) -> None:
    vlm = ScriptedVLM()
    seen: list[ChatRequest] = []
    chat = vlm.chat
    vlm.chat = lambda requests: seen.extend(requests) or chat(requests)  # type: ignore[method-assign]
    pictures = [{"base64": b64(png(color=color))} for color in ("blue", "green")]
    several = {name: value for name, value in edit(sources=pictures).items() if name != "source"}
    with client(vlm=vlm) as opened:
        assert opened.post("/edit-reward", json={"items": [several]}).json()["results"][0]["value"] == 6.5
    assert [image.getpixel((0, 0)) for image in request_images(seen[0])][:2] == [(0, 0, 255), (0, 128, 0)]
    assert len(request_images(seen[0])) == 3
    for wrong in (edit(sources=pictures), several | {"sources": []}, several | {"sources": None}):
        assert service.post("/edit-reward", json={"items": [wrong]}).status_code == 422


def test_missing_principles_are_made_and_named_or_refused(service: TestClient) -> None:
    refused = service.post("/edit-reward", json={"items": [edit(principles=None)]})
    assert refused.status_code == 400
    assert "cannot make them" in refused.json()["error"]
    with client(decompose=True) as able:
        result = able.post("/edit-reward", json={"items": [edit(principles=None)]}).json()["results"][0]
    assert [row["question"] for row in result["principles"]] == ["Is it red?", "Is the rest kept?"]


def test_health_satisfies_both_start_up_checks(service: TestClient) -> None:
    answer = service.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["rewards"] == {"editrrm": ["ready"]}


# --- dialects


def unirl_request(*instructions: str) -> dict[str, Any]:
    def sample(number: int, text: str) -> dict[str, Any]:
        history = [{"text": text, "image_b64": b64(png(color="blue"))}, {"text": text, "image_b64": b64(png())}]
        return {"history": history, "required_rewards": ["editrrm"], "metadata": None, "request_id": f"r{number}", "source_rank": 3}

    return {"protocol_version": "1", "requests": [sample(number, text) for number, text in enumerate(instructions)]}


def test_unirl_gets_overall_first_and_unscored_as_an_error() -> None:
    with client(decompose=True) as able:
        answer = able.post("/score", json=unirl_request("make it red", "nonsense")).json()
    assert next(iter(answer["results"][0]["editrrm"].items())) == ("overall", 6.5)
    assert answer["results"][1] == {}
    assert answer["errors"] == [{}, {"editrrm": "unscored: NO_VERDICTS"}]
    assert [identity["request_id"] for identity in answer["identities"]] == ["r0", "r1"]
    assert answer["identities"][0]["source_rank"] == 3


def test_unirl_is_told_about_a_reward_or_a_picture_that_is_missing() -> None:
    with client(decompose=True) as able:
        wrong = unirl_request("x")
        wrong["requests"][0]["required_rewards"] = ["clip"]
        assert "'clip' is not served" in able.post("/score", json=wrong).json()["error"]
        single = unirl_request("x")
        single["requests"][0]["history"].pop()
        assert able.post("/score", json=single).status_code == 400


def flow_factory_request(*prompts: str) -> dict[str, Any]:
    sources = [[b64(png(color="blue"))] for _ in prompts]
    return {"prompt": list(prompts), "image": [b64(png()) for _ in prompts], "video": None, "condition_images": sources, "kwargs": None}


def test_flow_factory_gets_rewards_or_an_error_and_never_a_zero() -> None:
    with client(decompose=True) as able:
        assert able.post("/compute", json=flow_factory_request("make it red", "make it red")).json() == {"rewards": [6.5, 6.5]}
        answer = able.post("/compute", json=flow_factory_request("make it red", "nonsense")).json()
        assert "rewards" not in answer
        assert "sample 1, NO_VERDICTS" in answer["error"]
        without = flow_factory_request("make it red") | {"condition_images": None}
        assert "required_fields" in able.post("/compute", json=without).json()["error"]


def test_pickle_is_absent_unless_asked_for_and_reads_plain_batches(service: TestClient) -> None:
    body = pickle.dumps({"ref_images": [png(color="blue")], "images": [png()], "prompts": ["make it red"], "metadatas": [{}]})
    assert service.post("/mode/editrrm", content=body).status_code == 404
    with client(Access(allow_pickle=True), decompose=True) as able:
        assert pickle.loads(able.post("/mode/editrrm", content=body).content) == {"scores": [6.5]}
        carried = pickle.dumps({"images": [png()], "prompts": ["make it red"], "metadata": [{"source_image": png(color="blue")}]})
        assert pickle.loads(able.post("/", content=carried).content) == {"scores": [6.5]}
        unscored = pickle.dumps({"ref_images": [png()], "images": [png()], "prompts": ["nonsense"]})
        assert able.post("/", content=unscored).status_code == 422


class Exploit:
    """Makes a folder when it is loaded."""

    def __init__(self, owned: Path) -> None:
        self.owned = owned

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.owned),)


def hostile_pickles(owned: Path) -> list[bytes]:
    return [
        pickle.dumps(Exploit(owned)),
        pickle.dumps({"images": [Exploit(owned)]}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # BYTEARRAY8 that announces a terabyte
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # BINBYTES8 that does
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"",
        b"no pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({"images": 3}),
        pickle.dumps({"ref_images": [b"x"], "images": [b"x"], "prompts": ["p"]}),
    ]


def test_the_exploit_works_where_nothing_refuses_it(tmp_path: Path) -> None:
    pickle.loads(hostile_pickles(tmp_path / "owned")[1])
    assert (tmp_path / "owned").is_dir()


@pytest.mark.parametrize("number", range(11))
def test_a_hostile_pickle_is_refused_before_it_is_loaded(number: int, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        dialects.pickle_drafts(dialects.load_pickle(hostile_pickles(tmp_path / "owned")[number]))[0].item()
    assert not (tmp_path / "owned").exists()


def test_a_hostile_pickle_over_http_is_refused_and_the_next_request_served(tmp_path: Path) -> None:
    with client(Access(allow_pickle=True), decompose=True) as able:
        for body in hostile_pickles(tmp_path / "owned"):
            answer = able.post("/mode/editrrm", content=body)
            assert answer.status_code == 422
            assert answer.json()["error"]
        good = pickle.dumps({"ref_images": [png(color="blue")], "images": [png()], "prompts": ["make it red"]})
        assert able.post("/mode/editrrm", content=good).status_code == 200
    assert not (tmp_path / "owned").exists()


def test_pickle_never_leaves_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        build_app(judge(), Config(Component("x"), "compact"), Access("0.0.0.0", token="t", allow_pickle=True))
    assert main(["serve", "--model", "m", "--base-url", "http://x/v1", "--host", "0.0.0.0"]) == 2
    assert "--token" in capsys.readouterr().err


# --- what is refused


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"not an image", "not a readable"),
        (png()[:60], "broken"),
        (bomb(), "too large"),
    ],
    ids=["empty", "text", "cut", "bomb"],
)
def test_a_picture_that_is_none_or_a_bomb_is_refused_by_name(service: TestClient, data: bytes, word: str) -> None:
    answer = service.post("/edit-reward", json={"items": [edit(), edit(edited={"base64": b64(data)})]})
    assert answer.status_code == 400
    assert "items[1].edited" in answer.json()["error"]
    assert word in answer.json()["error"]
    assert service.post("/edit-reward", json={"items": [edit()]}).status_code == 200


def test_paths_stay_inside_their_root(service: TestClient, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "edit.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    refused = service.post("/edit-reward", json={"items": [edit(edited={"path": "sub/edit.png"})]})
    assert "takes no paths" in refused.json()["error"]
    with client(Access(root=root)) as able:
        assert able.post("/edit-reward", json={"items": [edit(edited={"path": "sub/edit.png"})]}).status_code == 200
        for path in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "sub/../../secret.png", "a\x00b", "sub", "/dev/zero"):
            answer = able.post("/edit-reward", json={"items": [edit(edited={"path": path})]})
            assert answer.status_code == 400, path


def test_a_wrong_token_is_refused_and_a_right_one_served() -> None:
    with client(Access(token="secret")) as guarded:
        assert guarded.get("/health").status_code == 401
        assert guarded.get("/health", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert guarded.get("/health?token=secret").status_code == 401
        assert guarded.get("/health", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_a_foreign_host_name_is_refused(service: TestClient) -> None:
    assert service.get("/health", headers={"Host": "rebound.example"}).status_code == 400


def test_oversized_bodies_are_refused_even_when_they_hide_their_length() -> None:
    with client(limits=Limits(max_body=10_000)) as small:
        assert small.post("/edit-reward", content=b"x" * 20_000).status_code == 413
        assert small.post("/edit-reward", content=iter([b"x" * 6_000] * 3)).status_code == 413
        assert small.get("/health").status_code == 200


def test_misspelt_keys_and_impossible_batches_are_refused(service: TestClient) -> None:
    for body in (
        {"items": []},
        {"items": [edit()], "sed": 1},
        {"items": [edit(source={})]},
        {"items": [edit()] * 300},
        {"items": [edit("")]},
    ):
        answer = service.post("/edit-reward", json=body)
        assert answer.status_code == 422
        assert list(answer.json()) == ["error"]


def test_a_dead_backend_fails_its_own_request_only() -> None:
    with client(vlm=ScriptedVLM(delay=0.05)) as shared:

        async def both() -> list[int]:
            replies = await asyncio.gather(
                *(asyncio.to_thread(shared.post, "/edit-reward", json={"items": [edit(text)]}) for text in ("fail", "ok", "ok"))
            )
            return [reply.status_code for reply in replies]

        assert asyncio.run(both()) == [503, 200, 200]


def test_a_judge_that_takes_too_long_is_a_504() -> None:
    with client(vlm=ScriptedVLM(delay=1.0), request_seconds=0.1) as slow:
        assert slow.post("/edit-reward", json={"items": [edit()]}).status_code == 504


def test_a_full_queue_says_429_and_when_to_come_back() -> None:
    with client(vlm=ScriptedVLM(delay=0.5), load=Load(batch_size=1, max_waiting=2)) as busy:
        answer = busy.post("/edit-reward", json={"items": [edit()] * 3})
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"


def test_an_answer_does_not_depend_on_its_batch() -> None:
    """Seeds hang on content, so a neighbour in the batch changes nothing."""
    seeds: list[list[int]] = []

    class Recorder(ScriptedVLM):
        def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
            seeds.append([request.seed for request in requests])
            return super().chat(requests)

    with client(vlm=Recorder()) as service:
        service.post("/edit-reward", json={"items": [edit("one"), edit("two")]})
        service.post("/edit-reward", json={"items": [edit("two")]})
    assert seeds[1] == [seeds[0][1]]


# --- over a real socket


def test_a_thousand_concurrent_requests_lose_none() -> None:
    body = json.dumps({"items": [edit()]})

    async def flood(port: int) -> list[float]:
        limits = httpx.Limits(max_connections=1000)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits, trust_env=False) as session:
            headers = {"Content-Type": "application/json"}
            replies = await asyncio.gather(*(session.post("/edit-reward", content=body, headers=headers) for _ in range(1000)))
            return [reply.json()["results"][0]["value"] for reply in replies]

    with Live() as live:
        assert asyncio.run(flood(live.port)) == [6.5] * 1000
        assert max(live.vlm.batches) > 1


def test_a_slow_client_is_sent_away_while_others_are_served() -> None:
    with Live(limits=Limits(body_seconds=0.5)) as live, socket.create_connection(("127.0.0.1", live.port)) as slow:
        slow.sendall(b"POST /edit-reward HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{")
        reply = httpx.post(f"http://127.0.0.1:{live.port}/edit-reward", json={"items": [edit()]}, trust_env=False)
        assert reply.status_code == 200
        slow.settimeout(10)
        assert b" 408 " in slow.recv(200)


def dribble(slow: socket.socket) -> bytes:
    """Sends a header line ten times a second until the server says something, and returns that."""
    slow.settimeout(0.1)
    for number in range(200):
        try:
            slow.sendall(b"X-Slow-%d: 1\r\n" % number)
            return slow.recv(1000)
        except TimeoutError:
            continue
    raise AssertionError("the server listened to endless headers")


GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def test_endless_headers_are_cut_off_while_others_are_served() -> None:
    with Live(header_seconds=0.5) as live:
        crowd = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(50)]
        for slow in crowd:
            slow.sendall(GET_HEALTH)
        reply = httpx.post(f"http://127.0.0.1:{live.port}/edit-reward", json={"items": [edit()]}, trust_env=False)
        assert reply.status_code == 200
        for slow in crowd:
            assert b" 408 " in dribble(slow)
            slow.close()


def test_the_command_listens_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: taken.append(self.config))
    assert main(["serve", "--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--port", "0"]) == 0
    assert taken[0].host == "127.0.0.1"
    assert issubclass(taken[0].http, PatientProtocol)


@pytest.mark.parametrize("command", ["serve", "annotate"])
def test_an_address_that_cannot_be_had_is_one_line_before_anything_is_loaded(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_run(tmp_path / "run", training=False).dir if command == "annotate" else None
    words = ["annotate", str(made)] if made else ["serve", "--checkpoint", str(tmp_path)]  # which holds no checkpoint
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for place in (
            ("--port", str(taken.getsockname()[1])),
            ("--port", "99999"),
            ("--port", "-1"),
            ("--host", "no.such", "--token", "t"),
        ):
            assert main([*words, *place]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert said.err.startswith(f"editr1 {command}: cannot serve at ")
            assert said.err.count("\n") == 1


def test_a_client_that_connects_and_says_nothing_is_cut_off() -> None:
    with Live(header_seconds=0.3) as live, socket.create_connection(("127.0.0.1", live.port)) as silent:
        silent.settimeout(10)
        assert b" 408 " in silent.recv(1000)


def test_a_kept_connection_may_not_dribble_its_second_request() -> None:
    with Live(header_seconds=0.5) as live, socket.create_connection(("127.0.0.1", live.port)) as slow:
        slow.settimeout(10)
        slow.sendall(GET_HEALTH + b"\r\n")
        reply = http.client.HTTPResponse(slow)
        reply.begin()
        assert (reply.status, json.loads(reply.read())["status"]) == (200, "ok")
        slow.sendall(GET_HEALTH)
        assert b" 408 " in dribble(slow)


def test_a_judge_may_take_longer_than_headers_may() -> None:
    with Live(header_seconds=0.2) as live:
        live.vlm.delay = 0.8
        reply = httpx.post(f"http://127.0.0.1:{live.port}/edit-reward", json={"items": [edit()]}, trust_env=False)
        assert reply.json()["results"][0]["value"] == 6.5
