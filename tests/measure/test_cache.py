"""Nothing that was paid for is asked again, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from editr1.errors import DataError
from editr1.measure.judging import CachedVLM, Prices, request_key
from editr1.vlm.base import ChatReply, ChatRequest, Sampling, TokenAlternatives


class Counting:
    """Stands for the network."""

    def __init__(self, name: str = "m") -> None:
        self.name = name
        self.num_asked = 0

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        self.num_asked += len(requests)
        logprobs = (TokenAlternatives("a", (("a", -0.1), ("b", -2.5))),)
        return [ChatReply(f"seed {r.seed}", self.name, 100, 10, 0.5, logprobs=logprobs) for r in requests]


IMAGE = Image.new("RGB", (4, 2), "red")
BASE = ChatRequest((IMAGE, "what?"), system="s", sampling=Sampling(0.7), seed=1)


def test_a_second_process_pays_nothing_and_reads_the_same(tmp_path: Path) -> None:
    requests = [dataclasses.replace(BASE, seed=seed) for seed in (1, 2, 1)]
    first = Counting()
    replies = CachedVLM(first, tmp_path).chat(requests)
    assert first.num_asked == 2  # equal questions of one call are asked once
    assert replies[0] == replies[2]
    second = Counting()
    cached = CachedVLM(second, tmp_path)
    assert cached.chat(requests) == replies
    assert (second.num_asked, cached.num_hits) == (0, 3)


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(BASE, seed=2),
        dataclasses.replace(BASE, system=""),
        dataclasses.replace(BASE, sampling=Sampling(0.0)),
        dataclasses.replace(BASE, sampling=Sampling(0.7, max_tokens=9)),
        dataclasses.replace(BASE, parts=("what?", IMAGE)),
        dataclasses.replace(BASE, parts=(IMAGE.resize((2, 4)), "what?")),
        dataclasses.replace(BASE, parts=(Image.new("RGB", (4, 2), "blue"), "what?")),
        dataclasses.replace(BASE, want_logprobs=True),
    ],
)
def test_everything_that_a_reply_depends_on_is_in_the_key(other: ChatRequest) -> None:
    assert request_key("m", other) != request_key("m", BASE)
    assert request_key("n", BASE) != request_key("m", BASE)


def test_a_torn_last_line_costs_one_question_and_a_strange_file_is_refused(tmp_path: Path) -> None:
    CachedVLM(Counting(), tmp_path).chat([BASE, dataclasses.replace(BASE, seed=2)])
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-7])
    again = Counting()
    CachedVLM(again, tmp_path).chat([BASE, dataclasses.replace(BASE, seed=2)])
    assert again.num_asked == 1
    path.write_text('{"x": 1}\n')
    with pytest.raises(DataError, match="no cache of replies"):
        CachedVLM(Counting(), tmp_path)


def test_the_cost_is_what_this_process_paid(tmp_path: Path) -> None:
    cached = CachedVLM(Counting(), tmp_path, Prices(2.0, 8.0))
    cached.chat([BASE])
    cached.chat([BASE])
    assert cached.cost == pytest.approx((100 * 2 + 10 * 8) / 1e6)
    assert "1 asked, 1 cached, 110 tokens" in cached.status()


def test_a_refusal_is_no_answer_and_is_asked_again(tmp_path: Path) -> None:
    class Refusing(Counting):
        def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
            replies = super().chat(requests)
            return [dataclasses.replace(reply, refused=r.seed == 1) for reply, r in zip(replies, requests, strict=True)]

    requests = [dataclasses.replace(BASE, seed=seed) for seed in (1, 2)]
    vlm = Refusing()
    cached = CachedVLM(vlm, tmp_path)
    assert [reply.refused for reply in cached.chat(requests)] == [True, False]
    assert [reply.refused for reply in cached.chat(requests)] == [True, False]
    assert vlm.num_asked == 3
    other = Counting()
    assert [reply.refused for reply in CachedVLM(other, tmp_path).chat(requests)] == [False, False]
    assert other.num_asked == 1


def test_refusals_of_an_older_cache_are_forgotten(tmp_path: Path) -> None:
    CachedVLM(Counting(), tmp_path).chat([BASE])
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text().replace('"refused": false', '"refused": true'))
    vlm = Counting()
    assert not CachedVLM(vlm, tmp_path).chat([BASE])[0].refused
    assert vlm.num_asked == 1
