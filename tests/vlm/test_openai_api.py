"""The endpoint client against a real HTTP server on loopback that fails on purpose."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from editr1 import endpoint as endpoint_module
from editr1.errors import BackendError, ConfigError
from editr1.vlm import openai_api
from editr1.vlm.base import ChatRequest, Sampling
from editr1.wire import retry_after
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
    three = threading.Barrier(3)  # nobody is answered before three are there

    def together(body):
        three.wait(timeout=60)
        return echo(body)

    with serve(together) as endpoint:
        openai_api.build("m", base_url=endpoint.url, max_concurrency=3).chat([ask("q", seed) for seed in range(15)])
    assert endpoint.most_in_flight == 3


def test_retry_after_is_honoured():
    with serve(fault=lambda body, attempt: "429" if attempt == 1 else None) as endpoint:
        endpoint.retry_after = "0.7"
        begin = time.monotonic()
        openai_api.build("m", base_url=endpoint.url).chat([ask("q")])
    assert 0.7 <= time.monotonic() - begin < 3.0
    assert retry_after("Fri, 01 Jan 2010 00:00:00 GMT") == 0.0


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


# --- what the reply holds


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}, {"type": "text", "text": "yes"}], "yes"),
        ([{"type": "reasoning", "text": "no"}, {"type": "output_text", "text": "yes"}], "yes"),
        (["a", {"text": "b"}, None, 7], "ab"),
        ([], ""),
        (None, ""),
        ({"text": "x"}, ""),
    ],
)
def test_content_may_be_a_list_of_parts(content, text):
    with serve(lambda body: completion(content)) as endpoint:
        assert openai_api.build("m", base_url=endpoint.url).chat([ask("q")])[0].text == text


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "max_output_tokens", "model_context_window_exceeded"])
def test_a_reply_that_a_limit_ended_is_cut(reason):
    with serve(lambda body: completion("half", finish_reason=reason)) as endpoint:
        assert openai_api.build("m", base_url=endpoint.url).chat([ask("q")])[0].truncated


TOKEN = {"token": "7", "logprob": -0.1}


@pytest.mark.parametrize(
    "positions",
    [
        [TOKEN | {"top_logprobs": None}],
        [TOKEN],
        [TOKEN | {"top_logprobs": []}],
        [TOKEN | {"top_logprobs": [TOKEN]}, TOKEN | {"top_logprobs": None}],
        [TOKEN | {"top_logprobs": [{"token": "7", "logprob": None}]}],
        [TOKEN | {"top_logprobs": [{"token": "7", "logprob": float("nan")}]}],
        [TOKEN | {"top_logprobs": "7"}],
        [None],
        {"content": None},
        None,
    ],
)
def test_alternatives_that_are_null_are_no_alternatives(positions):
    answer = completion("7", logprobs={"content": positions})
    with serve(lambda body: answer) as endpoint:
        assert openai_api.build("m", base_url=endpoint.url).chat([ask("q", want_logprobs=True)])[0].logprobs == ()


def test_a_sampled_token_that_is_none_of_the_likeliest_has_a_say():
    likely = [{"token": "8", "logprob": -0.5}, {"token": "9", "logprob": -1.0}]
    answer = completion("7", logprobs={"content": [{"token": "7", "logprob": -3.0, "top_logprobs": likely}]})
    with serve(lambda body: answer) as endpoint:
        reply = openai_api.build("m", base_url=endpoint.url).chat([ask("q", want_logprobs=True)])[0]
    assert reply.logprobs[0].alternatives == (("8", -0.5), ("9", -1.0), ("7", -3.0))


# --- sampling of the server


@pytest.mark.parametrize(("owner", "sent"), [("vllm", True), ("sglang", True), ("openai", False), (None, False)])
def test_a_server_that_takes_them_is_told_that_nothing_else_cuts_the_distribution(owner, sent):
    with serve() as endpoint:
        endpoint.models = {"data": [{"id": "m", "owned_by": owner}]} if owner else None
        vlm = openai_api.build("m", base_url=endpoint.url)
        vlm.chat([ask("q", 0), ask("q", 1)])
        vlm.chat([ChatRequest((IMAGE, "greedy"), sampling=Sampling(0.0))])
    fields = [(body.get("top_k"), body.get("repetition_penalty")) for body in endpoint.bodies]
    assert fields == [(-1, 1.0) if sent else (None, None)] * 2 + [(None, None)]


@pytest.mark.parametrize(("answer", "asked"), [((501, ""), 1), ((405, "{}"), 1), ((200, "<!doctype html>"), 1), ((503, ""), 3)])
def test_only_a_busy_server_is_asked_again_what_it_is(answer, asked):
    with serve() as endpoint:
        endpoint.list_answer = answer
        vlm = openai_api.build("m", base_url=endpoint.url)
        vlm.chat([ChatRequest((IMAGE, "greedy"), sampling=Sampling(0.0))])
        assert endpoint.num_lists == 0  # nothing cuts a greedy answer
        vlm.chat([ask("q", 0), ask("q", 1)])
    assert endpoint.num_lists == asked


def test_the_user_decides_what_is_sent():
    with serve() as endpoint:
        endpoint.models = {"data": [{"id": "m", "owned_by": "vllm"}]}
        openai_api.build("m", base_url=endpoint.url, sampler="plain").chat([ask("q")])
        openai_api.build("m", base_url=endpoint.url, sampler="vllm", extra_body={"top_k": 20}).chat([ask("q")])
    assert [body.get("top_k") for body in endpoint.bodies] == [None, 20]
    assert endpoint.bodies[1]["repetition_penalty"] == 1.0


def traces(items: int, number: int, temperature: float = 0.7) -> list[ChatRequest]:
    return [ChatRequest((IMAGE, f"item {i}"), sampling=Sampling(temperature), seed=seed) for i in range(items) for seed in range(number)]


def deaf(body):
    """Greedy whatever is asked: what vLLM does under top_k 1 of a checkpoint's generation_config.json."""
    return completion(f"a line about {body['messages'][-1]['content'][1]['text']}")


@pytest.mark.parametrize("batches", [[4], [1, 1, 1, 1]])
def test_equal_traces_of_every_item_stop_the_run_with_the_cause(batches):
    with serve(deaf) as endpoint:
        vlm = openai_api.build("m", base_url=endpoint.url)
        with pytest.raises(BackendError, match=r"--generation-config vllm.*check_traces=false"):
            [vlm.chat(traces(items, 4)) for items in batches]
        openai_api.build("m", base_url=endpoint.url, check_traces=False).chat(traces(4, 4))


@pytest.mark.parametrize(
    "requests", [traces(8, 4, temperature=0.0), traces(8, 1), traces(1, 4), traces(2, 2), traces(4, 4, temperature=0.2)]
)
def test_what_may_be_chance_or_is_meant_so_does_not_stop(requests):
    with serve(deaf) as endpoint:
        assert len(openai_api.build("m", base_url=endpoint.url).chat(requests)) == len(requests)


def test_one_item_whose_traces_differ_settles_the_question():
    with serve(lambda body: echo(body) if "item 0" in str(body["messages"]) else deaf(body)) as endpoint:
        vlm = openai_api.build("m", base_url=endpoint.url)
        assert len(vlm.chat(traces(4, 4))) == 16
        later = [request for request in traces(9, 4) if "item 0" not in request.parts]
        assert len({reply.text for reply in vlm.chat(later)}) == 8  # all traces of each item are equal, and nothing stops any more


def test_long_replies_are_never_equal_by_chance():
    with serve(lambda body: completion("A paragraph. " * 40)) as endpoint, pytest.raises(BackendError, match="all traces"):
        openai_api.build("m", base_url=endpoint.url).chat(traces(2, 4))


def test_refusals_are_no_equal_traces():
    with serve(lambda body: completion("", finish_reason="content_filter")) as endpoint:
        assert all(reply.refused for reply in openai_api.build("m", base_url=endpoint.url).chat(traces(8, 4)))


def test_every_documented_server_keeps_the_whole_distribution():
    root = Path(__file__).parents[2]
    pages = [path for name in ("docs", "recipes") for path in (root / name).rglob("*") if path.suffix in (".md", ".yaml")]
    text = "\n".join(path.read_text() for path in [root / "README.md", *pages])
    commands = re.findall(r"vllm serve [^`\n]*", text)
    assert commands
    assert [c for c in commands if "--generation-config vllm" not in c and "--omni" not in c and not c.startswith("vllm serve ...")] == []
