"""The endpoint client against a real HTTP server on loopback that fails on purpose."""

from __future__ import annotations

import time

import pytest
from PIL import Image

from editr1 import endpoint as endpoint_module
from editr1.errors import BackendError, ConfigError
from editr1.vlm import openai_api
from editr1.vlm.base import ChatRequest, Sampling
from fake_endpoint import completion, echo, random_faults, serve

IMAGE = Image.new("RGB", (4, 4), "red")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def fast(monkeypatch):
    """Retries without the pauses between them; what Retry-After asks for still holds."""
    monkeypatch.setattr(endpoint_module, "_LONGEST_PAUSE", 0.01)


def ask(text: str, seed: int = 0, **options) -> ChatRequest:
    return ChatRequest((IMAGE, text, IMAGE), "system", Sampling(0.3, 0.9, 50), seed, **options)


def test_the_body_holds_what_was_asked_in_reading_order():
    with serve() as endpoint:
        reply = openai_api.build("m", base_url=endpoint.url, extra_body={"top_k": 5}).chat([ask("look", 4)])[0]
    body = endpoint.bodies[0]
    kinds = [part["type"] for part in body["messages"][1]["content"]]
    assert kinds == ["image_url", "text", "image_url"]
    assert body["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert body["messages"][0] == {"role": "system", "content": "system"}
    assert (body["temperature"], body["top_p"], body["seed"], body["max_tokens"], body["top_k"]) == (0.3, 0.9, 4, 50, 5)
    assert not {"n", "stop", "logprobs"} & body.keys()
    assert (reply.text, reply.num_prompt_tokens, reply.num_tokens, reply.truncated) == ("look seed=4", 7, 3, False)


def test_fields_can_be_left_out_and_renamed():
    with serve() as endpoint:
        openai_api.build("m", base_url=endpoint.url, omit=("seed", "top_p"), token_limit_field="max_completion_tokens").chat([ask("x")])
    assert not {"seed", "top_p", "max_tokens"} & endpoint.bodies[0].keys()
    assert endpoint.bodies[0]["max_completion_tokens"] == 50


def test_under_thirty_percent_faults_every_request_is_answered_once_and_in_order(fast):
    requests = [ask(f"q{index}", index) for index in range(120)]
    with serve(fault=random_faults(0.3, seed=1)) as endpoint:
        vlm = openai_api.build("m", base_url=endpoint.url, max_concurrency=16, timeout=0.6, max_attempts=12)
        replies = vlm.chat(requests)
    for index, reply in enumerate(replies):
        assert reply.text in (f"q{index} seed={index}", "")  # an empty text is a reply: the judge said nothing
    assert sum(reply.text == "" for reply in replies) < 20
    assert endpoint.most_in_flight <= 16 + 8  # hanging requests that the client gave up may still sit in the server


def test_replies_keep_the_order_of_the_requests_when_they_come_back_out_of_order():
    def slow_first(body):
        time.sleep(0.3 if body["seed"] == 0 else 0.0)
        return echo(body)

    with serve(slow_first) as endpoint:
        replies = openai_api.build("m", base_url=endpoint.url).chat([ask("q", seed) for seed in range(6)])
    assert [reply.text for reply in replies] == [f"q seed={seed}" for seed in range(6)]


def test_no_more_requests_are_in_flight_than_allowed():
    def slow(body):
        time.sleep(0.02)
        return echo(body)

    with serve(slow) as endpoint:
        openai_api.build("m", base_url=endpoint.url, max_concurrency=3).chat([ask("q", seed) for seed in range(15)])
    assert endpoint.most_in_flight == 3


def test_retry_after_is_honoured():
    with serve(fault=lambda body, attempt: "429" if attempt == 1 else None) as endpoint:
        endpoint.retry_after = "0.7"
        begin = time.monotonic()
        openai_api.build("m", base_url=endpoint.url).chat([ask("q")])
    assert 0.7 <= time.monotonic() - begin < 3.0
    assert endpoint_module.retry_after("Fri, 01 Jan 2010 00:00:00 GMT") == 0.0


def test_an_endpoint_that_is_down_is_named_as_the_user_gave_it(fast):
    address = "http://127.0.0.1:9/v1"
    with pytest.raises(BackendError, match=rf"m at {address}: cannot connect, 2 times .*is the server running"):
        openai_api.build("m", base_url=address, max_attempts=2).chat([ask("q")])


@pytest.mark.parametrize(
    ("fault", "message", "tries"),
    [
        ("500", "status 500, 3 times", 3),
        ("401", "refused the API key", 1),
        ("404", "does the address end in /v1", 1),
        ("422", r"status 422 \(", 1),
        ("cut", "JSON is cut or broken, 3 times", 3),
    ],
)
def test_what_stays_broken_stops_the_run_with_the_reason(fast, fault, message, tries):
    with serve(fault=lambda body, attempt: fault) as endpoint:
        with pytest.raises(BackendError, match=message):
            openai_api.build("m", base_url=endpoint.url, max_attempts=3).chat([ask("q")])
        assert len(endpoint.bodies) == tries


def test_a_refusal_of_the_content_is_a_reply_and_not_an_outage():
    with serve(fault=lambda body, attempt: "400 content_filter" if body["seed"] else None) as endpoint:
        replies = openai_api.build("m", base_url=endpoint.url).chat([ask("q", 0), ask("q", 1)])
    assert replies[0].text == "q seed=0"
    assert replies[1].text.startswith("(refused by the endpoint: ")
    assert [reply.refused for reply in replies] == [place == 1 for place in range(len(replies))]


def test_a_cut_reply_is_truncated_and_logprobs_are_read_where_given():
    position = {"token": "7", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "7", "logprob": -0.1, "bytes": None}]}
    answer = completion("7", finish_reason="length", logprobs={"content": [position], "refusal": None})
    with serve(lambda body: answer) as endpoint:
        reply = openai_api.build("m", base_url=endpoint.url).chat([ask("q", want_logprobs=True)])[0]
    assert reply.truncated
    assert reply.logprobs[0].alternatives == (("7", -0.1),)
    assert endpoint.bodies[0]["top_logprobs"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "is no address"),
        ({}, "needs an API key"),
        ({"base_url": "http://x/v1", "image_format": "gif"}, "expected png or jpeg"),
        ({"base_url": "http://x/v1", "omit": ("n",)}, "omit names 'n'"),
        ({"base_url": "http://x/v1", "max_concurrency": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_sent(options, message):
    with pytest.raises(ConfigError, match=message):
        openai_api.build("m", **options)
