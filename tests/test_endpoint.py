"""Address, secrets and proxies; what servers say in place of an answer. Against real HTTP servers on loopback."""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1 import endpoint as endpoint_module
from editr1._server_errors import complaint_of
from editr1.config import Component, component_of, section, to_plain
from editr1.endpoint import connect
from editr1.errors import BackendError, ConfigError, EditR1Error
from editr1.integrations._client import Edit, RewardClient
from editr1.serve.app import Config as ServeConfig
from editr1.store import Run
from editr1.text import shown
from editr1.vlm import openai_api
from editr1.vlm.base import ChatReply, ChatRequest, Sampling
from editr1.wire import Client, check_address, retry_after, via_proxy
from fake_endpoint import completion, serve

IMAGE = Image.new("RGB", (4, 4), "red")
KEY = "a-secret-key-0123456789"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint_module, "_LONGEST_PAUSE", 0.01)


def ask(vlm: Any, **sampling: Any) -> ChatReply:
    reply: ChatReply = vlm.chat([ChatRequest((IMAGE, "look"), sampling=Sampling(**sampling))])[0]
    return reply


def told(answer: Any, **options: Any) -> tuple[str, int]:
    """(the message of the BackendError, number of requests)."""
    with serve(lambda body: answer) as endpoint:
        with pytest.raises(BackendError) as caught:
            ask(openai_api.build("org/m", base_url=endpoint.url, max_attempts=3, **options))
        return str(caught.value), len(endpoint.bodies)


# --- address


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "http://127.0.0.1:9/v1\n", " http://x/v1", "http://127.0.0.1:PORT/v1", "http://[::1/v1", "http://", "http:///v1",
     "https://:80/v1", "http://x:70000/v1", "http://x:0/v1", "ftp://x/v1", "http://a b/v1", "http://x/v1\x00", "http://x\u00a0y/v1", ""],
)  # fmt: skip
def test_what_is_no_address_is_one_line(address: str) -> None:
    for build in (lambda: check_address(address, "base_url", "http://localhost:8000/v1"), lambda: RewardClient(address)):
        with pytest.raises(ConfigError, match=r"is no address; expected something like http://") as caught:
            build()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://localhost", "https://x.example/v1/", "http://[::1]:8000/v1", "http://10.0.0.1:80/a?api-version=1"]
)
def test_addresses_pass(address: str) -> None:
    check_address(address, "base_url", "")
    assert openai_api.build("m", base_url=address).name == "m"


def test_a_query_of_the_address_stays_behind_the_path() -> None:
    found = connect("m", "http://h/v1/?api-version=3", None, 1.0, 1)
    assert found._url("/chat/completions") == "http://h/v1/chat/completions?api-version=3"


# --- secrets


@pytest.mark.parametrize("key", [KEY + "\n", KEY + "\r\nX-Evil: 1", "a secret-key", "schlüssel", "\t" + KEY])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    for build in (lambda: openai_api.build("m", base_url="http://x/v1"), lambda: RewardClient("http://x", token=key)):
        with pytest.raises(ConfigError, match="no header can carry") as caught:
            build()
        assert "secret" not in str(caught.value)
        assert "schl" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
def test_a_key_that_a_server_echoes_is_in_no_message(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        message, _ = told((status, {"error": {"message": f"wrong: Bearer {KEY}"}}), api_key=KEY)
    assert "wrong: Bearer ***" in message
    assert KEY not in message + caplog.text


def test_an_address_with_a_password_is_shown_without() -> None:
    with pytest.raises(BackendError) as caught:
        ask(openai_api.build("m", base_url="http://me:pass-word@127.0.0.1:9/v1?key=abcdefgh", max_attempts=1))
    assert "pass-word" not in str(caught.value)
    assert "abcdefgh" not in str(caught.value)
    with pytest.raises(ConfigError) as wrong:
        connect("m", "http://me:pass-word@h:PORT/v1", None, 1.0, 1)
    assert "pass-word" not in str(wrong.value)
    assert KEY not in repr(connect("m", "http://h/v1", KEY, 1.0, 1))


def test_a_token_of_the_reward_service_is_in_no_message() -> None:
    with serve(lambda body: (403, {"error": f"no {KEY}"})) as endpoint, pytest.raises(BackendError) as caught:
        RewardClient(endpoint.url, token=KEY, sleep=lambda _: None).score([Edit(IMAGE, IMAGE, "x")])
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_half_a_key_is_a_secret_too(status: int) -> None:
    """What a server says is shortened; a key that begins before the cut must not leave its first half."""
    for start in range(270, 300, 7):
        message, _ = told((status, {"error": {"message": "x" * start + KEY}}), api_key=KEY)
        assert KEY[:6] not in message
        with serve(lambda body, start=start: (status, "y" * (start - 100) + KEY)) as endpoint, pytest.raises(BackendError) as caught:
            RewardClient(endpoint.url, token=KEY, sleep=lambda _: None).score([Edit(IMAGE, IMAGE, "x")])
        assert KEY[:6] not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["http://me:pass@word-s@127.0.0.1:9/v1", "http://me:pa/ssword-s@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?api-key=password-s",
     "http://127.0.0.1:9/v1#password-s", "http://password-s@127.0.0.1:9/v1", "http://me:pass%2Fword-s@127.0.0.1:9/v1",
     "me:password-s@127.0.0.1:9", "http://me:password-s@127.0.0.1:PORT/v1", "http://me:pa ssword-s@127.0.0.1:9/v1"],
)  # fmt: skip
def test_no_part_of_an_address_that_may_be_secret_is_shown(address: str) -> None:
    for call in (
        lambda: ask(openai_api.build("m", base_url=address, max_attempts=1)),
        lambda: RewardClient(address, max_attempts=1).score([Edit(IMAGE, IMAGE, "x")]),
    ):
        with pytest.raises(EditR1Error) as caught:
            call()
        assert "word-s" not in str(caught.value)
        assert "pa" not in str(caught.value).replace("spaces", "")


def test_a_server_that_repeats_what_it_was_sent_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serve(lambda body: (400, "Basic " + base64.b64encode(b"me:pass-word").decode())) as endpoint:
        address = endpoint.url.replace("//", "//me:pass-word@") + "?sig=abcdefgh"
        with pytest.raises(BackendError) as caught:
            ask(openai_api.build("m", base_url=address))
    assert "Basic ***" in str(caught.value)
    assert not any(secret in caplog.text for secret in ("pass-word", "abcdefgh"))
    assert "pass-word" not in repr(openai_api.build("m", base_url=address).endpoint)
    assert KEY not in repr(RewardClient("http://h", token=KEY))


def test_no_key_is_written_into_a_run(tmp_path: Path) -> None:
    options = {
        "model": "m",
        "base_url": "https://me:pass-word@h/v1?api-version=3&key=abcdefgh",
        "api_key": KEY,
        "extra_body": {"token": KEY},
    }
    component = Component("openai_api", options | {"token_limit_field": "max_tokens"})
    run = Run.open(tmp_path / "run", {"score": to_plain({"vlm": component})})
    Run.open(run.dir, {"inspect": {"api_key": KEY}})
    run.claim("folder", "", {"vlm": {"options": options}})
    run.claim("folder", "", {"vlm": {"options": options | {"api_key": "another-key"}}})  # another key changes no row
    text = "".join(path.read_text() for path in run.dir.rglob("*.json"))
    assert '"https://h/v1?api-version=3"' in text
    assert "token_limit_field" in text
    assert not any(secret in text for secret in (KEY, "pass-word", "abcdefgh", "another-key"))
    for raw in ({"vlm": [component]}, {"vlm": {"id": "x", "option": options}}):
        with pytest.raises(ConfigError) as caught:
            component_of("vlm", raw) if "id" in raw else section({"serve": raw}, "serve", ServeConfig)
        assert KEY not in str(caught.value)


# --- proxies


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense", "http://me:word@[::1"])
@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTP_PROXY", "http_proxy", "all_proxy"])
def test_this_machine_is_asked_directly_whatever_the_variables_say(name: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, proxy)
    with serve() as endpoint:
        for host in ("127.0.0.1", "localhost"):
            assert ask(openai_api.build("m", base_url=endpoint.url.replace("127.0.0.1", host))).text == "look seed=0"


@pytest.mark.parametrize("proxy", ["socks5://me:pass-word@127.0.0.1:9", "ftp://h:1", "http://me:pass-word@h:PORT"])
def test_a_proxy_that_cannot_be_used_is_one_line_with_its_variable(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    for build in (lambda: openai_api.build("m", base_url="http://judge.example/v1"), lambda: Client("http://judge.example", 1.0)):
        with pytest.raises(ConfigError, match=r"^ALL_PROXY ") as caught:
            build()
        assert "pass-word" not in str(caught.value)


def test_a_host_that_needs_no_proxy_by_the_users_word_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "judge.example")
    assert openai_api.build("m", base_url="http://judge.example/v1").name == "m"  # refused were the proxy asked


@pytest.mark.parametrize(
    ("spared", "address"),
    [("*", "http://judge.example"), (".example", "http://judge.example"), ("*.example", "http://judge.example"), ("10.0.0.0/8", "http://10.1.2.3:8000"),
     ("a, judge.example:8000", "http://judge.example:8000"), ("judge.example:80", "http://judge.example"), ("fd00::/8", "http://[fd00::1]:8000"),
     ("10.1.2.3", "http://10.1.2.3"), ("EXAMPLE", "http://Judge.Example")],
)  # fmt: skip
def test_every_form_of_no_proxy_is_read(spared: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", spared)
    assert via_proxy(address) == ""
    Client(address, 1.0)
    assert (via_proxy("http://other.host:8001") == "") == (spared == "*")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "localhost.",
        "LOCALHOST",
        "a.localhost",
        "ip6-localhost",
    ],
)
def test_this_machine_has_many_names(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert via_proxy(f"http://{host}:8000/v1") == ""
    assert via_proxy("http://128.0.0.1:8000/v1")


@pytest.mark.parametrize("status", [403, 407, 502])
def test_what_a_proxy_says_is_the_proxys(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda body: (status, "<html>proxy</html>")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        with pytest.raises(BackendError, match="through the proxy of HTTP_PROXY"):
            ask(openai_api.build("m", base_url="http://judge.example/v1", max_attempts=1))


def test_a_proxy_that_is_dead_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(BackendError, match="through the proxy of HTTP_PROXY"):
        ask(openai_api.build("m", base_url="http://judge.example/v1", max_attempts=1))
    with pytest.raises(BackendError, match="through the proxy of HTTP_PROXY"):
        RewardClient("http://judge.example", max_attempts=1).score([Edit(IMAGE, IMAGE, "x")])


def test_other_hosts_go_through_the_users_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        assert ask(openai_api.build("m", base_url="http://judge.example/v1")).text == "look seed=0"


# --- complaints

REFUSALS = {
    "openai": (400, {"error": {"message": "Your request was rejected by our safety system.", "code": "moderation_blocked"}}),
    "openai usage": (400, {"error": {"message": "Invalid prompt: it violates our usage policy", "code": "invalid_prompt"}}),
    "azure": (400, {"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                              "code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    "azure, only inside": (400, {"error": {"message": "no", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    "dashscope": (400, {"error": {"code": "data_inspection_failed", "message": "Input data may contain ..."}}),
    "dashscope, own shape": (400, {"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}),
    "openrouter": (403, {"error": {"code": 403, "message": "Input was flagged", "metadata": {"flagged_input": "x"}}}),
    "openrouter, in a 200": {"error": {"code": 403, "message": "google/gemini requires moderation. Your input was flagged"}},
    "openrouter, in a choice": {"choices": [{"error": {"code": 502, "message": "PROHIBITED_CONTENT"}, "finish_reason": "error"}]},
    "openrouter, native reason": completion("", finish_reason="error", native_finish_reason="PROHIBITED_CONTENT"),
    "gemini": completion("", finish_reason="content_filter: PROHIBITED_CONTENT"),
    "gemini, safety": completion("", finish_reason="SAFETY"),
    "gemini, list": (400, [{"error": {"code": 400, "message": "blocked: PROHIBITED_CONTENT", "status": "INVALID_ARGUMENT"}}]),
    "gemini, feedback": {"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}},
    "a cut reply": completion("It is half", finish_reason="content_filter"),
    "zhipu": completion("", finish_reason="sensitive"),
    "litellm": (400, {"error": {"message": "litellm.ContentPolicyViolationError: no", "type": None, "code": "400"}}),
    "minimax": {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}},
    "minimax, newer": (400, {"type": "error", "error": {"type": "bad_request_error", "message": "input new_sensitive (1026)"}}),
    "doubao": (400, {"error": {"code": "InputImageSensitiveContentDetected", "message": "The request failed"}}),
    "azure, no choices": {"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]},
    "an image too large": (400, {"error": {"type": "invalid_request_error", "message": "image exceeds 5 MB maximum: 6291456 bytes"}}),
    "a strip of a picture": (400, {"message": "absolute aspect ratio must be smaller than 200, got 300.0", "type": "BadRequestError"}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_verdict_of_moderation_is_a_reply_that_says_nothing(name: str) -> None:
    with serve(lambda body: REFUSALS[name]) as endpoint:
        reply = ask(openai_api.build("m", base_url=endpoint.url, max_attempts=3))
        assert len(endpoint.bodies) == 1
    assert reply.refused
    assert reply.text.startswith("(refused by the endpoint: ")


WRONG_SETTINGS = {
    "max_tokens against max_model_len": (
        (400, {"object": "error", "message": "max_tokens=2048 cannot be greater than max_model_len=max_total_tokens=1024.", "code": 400}),
        "--max-model-len",
    ),
    "vllm, newer": (
        (400, {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context length is "
                         "1024 tokens and your request has 300 input tokens", "type": "BadRequestError", "code": 400}}),
        "--max-model-len",
    ),
    "openai": ((400, {"error": {"message": "This is too long.", "code": "context_length_exceeded"}}), "max_tokens"),
    "vllm, long prompt": ((400, {"message": "Prompt of 5000 tokens: more than the maximum model length."}), "--max-model-len"),
    "a renamed field": (
        (400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model.", "param": "max_tokens"}}),
        "token_limit_field",
    ),
    "a refused field": ((400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.7."}}), "option omit"),
    "top_k": ((400, {"error": {"message": "Unrecognized request argument supplied: top_k"}}), "sampler to plain"),
    "fastapi": ((422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": "x" * 999}]}), "option omit"),
    "tgi": ((422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "error_type": "validation"}),
            "--max-model-len"),
    "llama.cpp": ((400, {"error": {"message": "the request exceeds the available context size"}}), "--max-model-len"),
    "llama.cpp, older": (
        (500, {"error": {"code": 500, "message": "the request exceeds the available context size. try increasing the context size"}}),
        "--max-model-len",
    ),
    "too long, in a 200": ({"error": {"message": "Context size has been exceeded."}}, "--max-model-len"),
    "anthropic": ((400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}), "lower"),
    "in a 200": ({"error": {"message": "max_tokens=9 is greater than max_model_len=8", "type": "BadRequestError"}}, "--max-model-len"),
    "a model without eyes": ((400, {"error": {"message": "org/m is not a multimodal model"}}), "takes no pictures"),
    "deepseek": ((422, {"error": {"message": "messages[0]: unknown variant `image_url`, expected `text`"}}), "takes no pictures"),
    "a large body": ((413, "<html><title>413 Request Entity Too Large</title></html>"), "image_format jpeg"),
    "words of moderation in a setting": ((400, {"error": {"message": "Extra inputs: 'top_k' beside 'censorship'"}}), "sampler"),
    "words of moderation in what is repeated": (
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted", "input": "a poster against censorship"}]}),
        "sampler to plain",
    ),
    "forbidden logprobs": ((403, {"error": {"message": "You are not allowed to request logprobs from this model"}}), "leave out expected"),
    "unknown model": ((400, {"error": {"message": "The model `org/m` does not exist."}}), "option model"),
    "pictures": ((400, {"message": "At most 1 image(s) may be provided in one prompt."}), "--limit-mm-per-prompt"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_a_wrong_setting_is_the_machines_failure_and_is_named(name: str) -> None:
    answer, word = WRONG_SETTINGS[name]
    message, num_requests = told(answer)
    assert word in message
    assert num_requests == 1
    assert len(message) < 800


@pytest.mark.parametrize(
    ("answer", "words", "num_requests"),
    [
        ({"error": {"message": "Insufficient credits. Add more", "code": 402}}, "no credit left (Insufficient credits", 1),
        ({"error": {"message": "Insufficient credits", "code": "402"}}, "Insufficient credits", 1),
        ((429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}), "no credit left (You exceeded", 1),
        ((400, {"error": {"message": "Your credit balance is too low to access the API"}}), "no credit left (Your credit", 1),
        ((429, {"error": {"message": "Rate limit exceeded: maximum number of tokens per minute"}}), "status 429, 3 times", 3),
        ((503, {"error": {"message": "Too many tokens are waiting: capacity exceeded"}}), "status 503, 3 times", 3),
        ((500, {"error": {"message": "The moderation service is unavailable"}}), "status 500, 3 times (The moderation", 3),
        ((403, {"error": {"message": "Your account is suspended: it violates our usage policies"}}), "Your account is suspended", 1),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "status 529, 3 times (Overloaded)", 3),
        ({"code": 1301, "msg": "out of order"}, 'no choices, 3 times; it begins with {"code": 1301, "msg": "out of order"}', 3),
        (completion("half", finish_reason="abort"), "broke off (finish_reason abort), 3 times", 3),
        ('data: {"choices": []}\n\ndata: [DONE]\n\n', "{stream: false}", 1),
        ({"error": {"message": "No auth credentials found", "code": 401}}, "refused the API key (No auth", 1),
        ({"error": {"message": "No endpoints found for org/m", "code": 404}}, "No endpoints found", 1),
        ({"error": {"message": "bad key", "code": "invalid_api_key"}}, "refused the API key", 1),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "does the address end in /v1", 1),
        ("<!doctype html><html><head><title>Open WebUI</title></head></html>", "a web page: Open WebUI); does the address end in /v1", 1),
        ((405, "<html>Method Not Allowed</html>"), "does the address end in /v1", 1),
        ({"detail": "Not Found"}, "does the address end in /v1", 1),
        ({"error": {"message": "Provider returned error", "code": 502}}, "status 502, 3 times (Provider returned error)", 3),
        ({"error": {"message": "slow down", "code": 429}}, "status 429, 3 times (slow down)", 3),
        ((503, "<html><body>upstream <b>busy</b></body></html>"), "status 503, 3 times (a web page: upstream busy)", 3),
        ({"choices": None}, "holds no choices, 3 times", 3),
        ({"choices": "text"}, "holds no choices, 3 times", 3),
        ({"choices": [{"message": None}]}, "holds no message, 3 times", 3),
        ("[]", "no JSON object, 3 times", 3),
        ("null", "no JSON object, 3 times", 3),
        ("[" * 100_000, "cut or broken, 3 times", 3),
        ('{"choices": [{"message": {"content": "\udcff', "cut or broken, 3 times", 3),
        ("", "cut or broken, 3 times", 3),
    ],
)
def test_what_a_server_says_reaches_the_user(answer: Any, words: str, num_requests: int) -> None:
    if isinstance(answer, str):
        answer = answer.encode("utf-8", "replace").decode()
    message, found = told(answer)
    assert words in message
    assert found == num_requests
    assert "\n" not in message


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "model_length"])
def test_a_limit_is_named_in_several_ways(reason: str) -> None:
    with serve(lambda body: completion("half", finish_reason=reason)) as endpoint:
        assert ask(openai_api.build("m", base_url=endpoint.url)).truncated


def test_a_pause_may_stand_in_the_body() -> None:
    quota = {"code": 429, "message": "quota", "details": [{"@type": "RetryInfo", "retryDelay": "34.07s"}]}
    complaint = complaint_of(429, json.dumps([{"error": quota}]))
    assert (complaint.pause, complaint.passing) == (34.07, True)
    assert complaint_of(429, "later").pause is None


def raw(answer: Callable[[socket.socket], None]) -> tuple[socket.socket, str]:
    """A server that answers as nobody should."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        while True:
            try:
                peer = listener.accept()[0]
                with peer:
                    peer.recv(1 << 16)
                    answer(peer)
            except OSError:
                if listener.fileno() < 0:
                    return

    threading.Thread(target=work, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"])
def test_an_answer_that_dribbles_is_late_in_whatever_part(head: bytes) -> None:
    def dribble(peer: socket.socket) -> None:
        peer.sendall(head or b"HTTP/1.1 200 OK\r\n")
        for number in range(300):
            peer.sendall(b" " if head else b"x%d: y\r\n" % number)
            time.sleep(0.01)

    listener, url = raw(dribble)
    with listener:
        with pytest.raises(BackendError, match="no answer in time"):
            ask(openai_api.build("m", base_url=url, timeout=0.3, max_attempts=1, sampler="plain"))
        with pytest.raises(BackendError, match=r"cannot reach it \(no whole answer within 0.3 seconds\)"):
            RewardClient(url, timeout=0.3, max_attempts=1).score([Edit(IMAGE, IMAGE, "x")])


@pytest.mark.parametrize(
    ("status", "to"), [(301, "https://judge.example/v1?sig=abcdefgh"), (302, "/login"), (303, "/login"), (302, "/v1/chat/completions")]
)
def test_a_redirection_that_loses_the_question_is_named(status: int, to: str) -> None:
    answers = [f"HTTP/1.1 {status} x\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", OK]
    listener, url = raw(lambda peer: peer.sendall((answers.pop(0) if answers else OK).encode()))
    with listener, pytest.raises(BackendError, match=r"is redirected to|cannot connect") as caught:
        ask(openai_api.build("m", base_url=url, max_attempts=1, sampler="plain"))
    assert "abcdefgh" not in str(caught.value)


OK = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


def test_numbers_that_json_has_not_do_not_count() -> None:
    body = completion("fine")
    body["usage"]["prompt_tokens"] = float("nan")
    body["usage"]["completion_tokens"] = None
    with serve(lambda _: json.dumps(body)) as endpoint:
        reply = ask(openai_api.build("m", base_url=endpoint.url))
    assert (reply.text, reply.num_prompt_tokens, reply.num_tokens) == ("fine", 0, 0)


@pytest.mark.parametrize(
    "header",
    [
        "nan",
        "inf",
        "-1",
        "soon",
        "",
        "Fri, 01 Jan 2010 00:00:00",
        "Fri, 99 Jan 2010 00:00:00 GMT",
        "1e400",
        "Fri, 01 Jan 99999999999 00:00:00 GMT",
    ],
)
def test_odd_pauses_are_none_or_short(header: str) -> None:
    assert (retry_after(header) or 0.0) == 0.0


def test_shown_hides_every_secret_of_an_address() -> None:
    assert shown("https://a:b@h/v1?x=1#f") == "https://***@h/v1?***"
    assert shown("http://h/v1") == "http://h/v1"


# --- connections


def test_retries_and_later_requests_use_one_connection() -> None:
    with serve(fault=lambda body, attempt: "503" if attempt < 3 else None) as endpoint:
        vlm = openai_api.build("m", base_url=endpoint.url, sampler="plain")
        for _ in range(4):
            ask(vlm)
        assert (len(endpoint.bodies), endpoint.num_connections) == (6, 1)


def test_a_forked_process_has_connections_of_its_own() -> None:
    with serve() as endpoint:
        vlm = openai_api.build("m", base_url=endpoint.url, sampler="plain", timeout=5.0, max_attempts=1)
        ask(vlm)
        child = os.fork()
        if child == 0:
            try:
                ask(vlm)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert (len(endpoint.bodies), endpoint.num_connections) == (2, 2)


def results(body: dict[str, Any]) -> dict[str, Any]:
    return {"results": [{"value": 7.0, "categories": {}, "reason": None} for _ in body["items"]]}


def test_the_clients_of_one_service_share_a_connection() -> None:
    with serve(results) as endpoint:
        for _ in range(3):
            client = RewardClient(endpoint.url)
            assert [client.score([Edit(IMAGE, IMAGE, "x")])[0].value for _ in range(3)] == [7.0] * 3
        assert endpoint.num_connections == 1


@pytest.mark.parametrize(
    "answer",
    ["<html>login</html>", "", "[]", "null", "{}", {"results": None}, {"results": []}, {"results": [7]}, {"results": [{"value": 7}]},
     {"results": [{"value": "high", "categories": {}}]}, '{"results": [{"value": NaN, "categories": {}}]}',
     {"results": [{"value": 70, "categories": {}}]}, {"results": [{"value": None}]}, "[" * 100_000],
)  # fmt: skip
def test_an_answer_that_no_reward_service_gives_is_no_number(answer: Any) -> None:
    with serve(lambda body: answer) as endpoint, pytest.raises(BackendError, match=r"is it the service's address\?") as caught:
        RewardClient(endpoint.url).score([Edit(IMAGE, IMAGE, "x")])
    assert isinstance(caught.value, EditR1Error)
