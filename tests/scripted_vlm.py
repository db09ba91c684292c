"""A VLM that answers from a script: stands for the network, behind the same protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from editr1.vlm.base import ChatReply, ChatRequest


class ScriptedVLM:
    """`answer(request)` gives the text, or a whole reply. Every request is remembered."""

    name = "scripted"

    def __init__(self, answer: Callable[[ChatRequest], str | ChatReply]) -> None:
        self._answer = answer
        self.requests: list[ChatRequest] = []

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        self.requests += requests
        return [self._reply(request) for request in requests]

    def _reply(self, request: ChatRequest) -> ChatReply:
        answer = self._answer(request)
        return answer if isinstance(answer, ChatReply) else ChatReply(answer, self.name, 100, 10, 0.5)
