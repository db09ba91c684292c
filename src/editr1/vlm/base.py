"""The protocol of a vision-language model: a batch of requests in, a batch of replies out, in order.

A backend is one file in this folder with a function `build(**options) -> VLM`; outside code is named as
`"package.module:Factory"`. A reply is always text: whether it contains a judgement is for Phi to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from editr1.schema import Principle
from editr1.text import whole_text, without_control_tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 2048


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What a prompt was rendered from.

    Real models never see it. The simulated annotators of the embedded world read it in place of parsing
    their own prompt, exactly as a person would read the form and not the HTML.
    """

    role: str
    """`decompose`, `score`, `inspect` or `filter`."""
    instruction: str
    principles: tuple[Principle, ...] = ()
    traces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. `parts` interleaves text and images in the order in which the model reads them."""

    parts: tuple[str | Image.Image, ...]
    system: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    context: PromptContext | None = None
    want_logprobs: bool = False
    """Ask for the log-probabilities of the alternatives at every generated token, where the backend has them."""


@dataclass(frozen=True, slots=True)
class TokenAlternatives:
    """The likeliest tokens at one generated position with their natural-log probabilities."""

    token: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One answer with what it cost."""

    text: str
    model: str
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    truncated: bool = False
    """The token limit ended the reply."""
    refused: bool = False
    """The endpoint or its model would not handle this content: an answer that says nothing, and no failure of the machine."""
    logprobs: tuple[TokenAlternatives, ...] = ()
    token_ids: tuple[int, ...] = ()
    """The generated tokens, end token included, where the backend shares the model's vocabulary; trainers need them."""
    prompt_token_ids: tuple[int, ...] = ()
    """The tokens that the model read, where the backend knows them."""

    def __post_init__(self) -> None:
        """An emoji that a token limit cut in half is U+FFFD: no file can hold half of it."""
        object.__setattr__(self, "text", whole_text(self.text))


class VLM(Protocol):
    """Answers requests. Raises BackendError when the machine fails after its retries; never invents a reply."""

    @property
    def name(self) -> str:
        """What is written into traces: model id, and endpoint where that matters."""
        ...

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One reply a request, in the order of the requests."""
        ...


def to_messages(request: ChatRequest, special: Sequence[str] = ()) -> list[dict[str, object]]:
    """The request as chat messages with typed content, images as `{"type": "image"}` in reading order.

    Control tokens in the text are broken up, those of the tokenizer (`special`) too. The pictures themselves travel beside the messages
    (`request_images`), as processors and trainers want them.
    """

    def told(text: str) -> dict[str, object]:
        return {"type": "text", "text": without_control_tokens(text, special)}

    system: list[dict[str, object]] = [{"role": "system", "content": [told(request.system)]}] if request.system else []
    return [*system, {"role": "user", "content": [told(part) if isinstance(part, str) else {"type": "image"} for part in request.parts]}]


def flat_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages of typed content with plain texts, where the marker `<image>` stands for each picture (ms-swift, LLaMA-Factory).

    Markers that were in a text are broken up: these tools would look for a picture to each.
    """
    return [{"role": message["role"], "content": "".join(map(_flat_part, message["content"]))} for message in messages]


def _flat_part(part: Mapping[str, str]) -> str:
    return "<image>" if part["type"] == "image" else _MARKER.sub(r"< \1>", part["text"])


_MARKER = re.compile(r"<(image|video|audio)>", re.IGNORECASE)


def request_images(request: ChatRequest) -> list[Image.Image]:
    """The pictures of a request, in reading order."""
    return [part for part in request.parts if not isinstance(part, str)]
