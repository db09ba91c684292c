"""Any OpenAI-compatible chat endpoint as a VLM: vLLM, SGLang, `transformers serve`, LiteLLM, OpenAI itself.

    vlm = build("Qwen/Qwen2.5-VL-7B-Instruct", base_url="http://localhost:8000/v1", max_concurrency=64)

One HTTP request a reply (`n` is ignored by some servers), no server-side stop, images as data URLs; tries and failures: `editr1.endpoint`.
What is refused on account of its content, by the model or by a vendor's moderation, is data: a text that says so, and stays unscored.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import math
import re
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from PIL import Image

from editr1.endpoint import CutReplyError, Endpoint, connect
from editr1.errors import BackendError, ConfigError, ContentRefusedError
from editr1.pictures import encode_picture
from editr1.text import without_control_tokens
from editr1.vlm.base import NUM_ALTERNATIVES, VLM, ChatReply, ChatRequest, TokenAlternatives, template_settings

ImageFormat = Literal["png", "jpeg"]

_NEUTRAL = {"top_k": -1, "repetition_penalty": 1.0}  # both off, in vLLM and in SGLang
_LIST_TIMEOUT = 10.0  # seconds; ours
_CHECK_ATTEMPTS = 3
_CHECK_TOKENS = 16  # ours: some vendors refuse less
# OpenAI, Gemini, Mistral, Responses API, Anthropic
_CUT_SHORT = ("length", "maxtokens", "modellength", "tokenlimit", "maxoutputtokens", "modelcontextwindowexceeded")
_BROKEN_OFF = ("error", "abort", "aborted", "cancelled", "networkerror", "insufficientsystemresource")  # by the machine, not by the model
_FIELDS = ("temperature", "top_p", "seed", "max_tokens")


def build(
    model: str,
    base_url: str | None = None,
    api_key: str | None = None,
    max_concurrency: int = 8,
    timeout: float = 300.0,
    max_attempts: int = 6,
    image_format: ImageFormat = "png",
    token_limit_field: str = "max_tokens",
    omit: Sequence[str] = (),
    extra_body: Mapping[str, Any] | None = None,
    thinking: bool | None = None,
    sampler: Literal["auto", "vllm", "plain"] = "auto",
    check_traces: bool = True,
) -> VLM:
    """A VLM behind an endpoint. Nothing is sent yet. Raises ConfigError for options that cannot work.

    Args:
        model: the model's id at the endpoint.
        base_url: address up to and including `/v1`; default is OPENAI_BASE_URL, else OpenAI.
        api_key: default is OPENAI_API_KEY; local servers need none.
        max_concurrency: requests in flight.
        timeout: seconds without an answer after which a request counts as lost.
        max_attempts: tries for a request before the run stops.
        image_format: `png` (exact) or `jpeg` (smaller).
        token_limit_field: `max_tokens`, or `max_completion_tokens` for models that insist.
        omit: fields that this endpoint refuses, among temperature, top_p, seed, max_tokens.
        extra_body: further fields.
        thinking: `enable_thinking` of the chat template, where the server has vLLM's field `chat_template_kwargs`. None = its default.
        sampler: `vllm` says in every request that nothing but temperature and top_p cuts the distribution (top_k -1, repetition_penalty
            1), which vLLM and SGLang would otherwise take from the checkpoint's generation_config.json; `plain` leaves both fields out,
            for vendors that refuse them; `auto` asks the server's list of models, once, whether it is vLLM or SGLang.
        check_traces: stop when the first items are answered alike by every seed at a temperature above 0.
    """
    if image_format not in ("png", "jpeg"):
        raise ConfigError(f"image_format {image_format!r} is unknown; expected png or jpeg")
    if wrong := set(omit) - set(_FIELDS):
        raise ConfigError(f"omit names {sorted(wrong)[0]!r}; expected some of {', '.join(_FIELDS)}")
    if max_concurrency < 1:
        raise ConfigError("max_concurrency must be at least 1")
    if sampler not in ("auto", "vllm", "plain"):
        raise ConfigError(f"sampler {sampler!r} is unknown; expected auto, vllm or plain")
    endpoint = connect(model, base_url, api_key, timeout, max_attempts)
    extra = dict(extra_body or {})
    if thinking is not None:
        extra["chat_template_kwargs"] = {**extra.get("chat_template_kwargs", {}), **template_settings(thinking)}
    check = TraceCheck(model) if check_traces else None
    return OpenAIVLM(endpoint, max_concurrency, image_format, token_limit_field, tuple(omit), extra, sampler, check)


@dataclass(repr=False, eq=False)
class OpenAIVLM:
    """An endpoint behind the VLM protocol; made by `build`, which says what the fields are."""

    endpoint: Endpoint
    max_concurrency: int
    image_format: ImageFormat
    token_limit_field: str
    omit: tuple[str, ...]
    extra_body: dict[str, Any]
    sampler: str
    traces: TraceCheck | None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """The model's id at the endpoint."""
        return self.endpoint.model

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One reply a request, in their order. Raises BackendError when one request fails for good; the others are dropped then."""
        urls = {id(image): image for request in requests for image in request.parts if not isinstance(image, str)}
        data_urls = {key: data_url(image, self.image_format) for key, image in urls.items()}
        with ThreadPoolExecutor(max_workers=max(1, min(self.max_concurrency, len(requests)))) as pool:
            futures = [pool.submit(self._ask, request, data_urls) for request in requests]
            try:
                replies = [future.result() for future in futures]
            except BackendError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self.traces is not None:
            self.traces.see(requests, replies)
        return replies

    def check(self) -> None:
        """Asks for a few tokens, so that a dead server, a wrong address, key or model is found early. Raises BackendError."""
        endpoint = dataclasses.replace(self.endpoint, max_attempts=min(self.endpoint.max_attempts, _CHECK_ATTEMPTS))
        limit = {} if "max_tokens" in self.omit else {self.token_limit_field: _CHECK_TOKENS}
        body = {"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}], **limit}
        with contextlib.suppress(ContentRefusedError):  # who refuses is there
            endpoint.post("/chat/completions", partial(_reply, model=self.name), 0, json=body)

    def _ask(self, request: ChatRequest, data_urls: Mapping[int, str]) -> ChatReply:
        body = self._body(request, data_urls)
        begin = time.perf_counter()
        try:
            reply = self.endpoint.post("/chat/completions", partial(_reply, model=self.name), request.seed, json=body)
        except ContentRefusedError as refusal:
            reply = ChatReply(f"(refused by the endpoint: {refusal})", self.name, refused=True)
        return dataclasses.replace(reply, seconds=time.perf_counter() - begin)

    def _body(self, request: ChatRequest, data_urls: Mapping[int, str]) -> dict[str, Any]:
        content = [
            {"type": "text", "text": without_control_tokens(part)}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": data_urls[id(part)]}}
            for part in request.parts
        ]
        system = [{"role": "system", "content": without_control_tokens(request.system)}] if request.system else []
        kept = {
            name: value for name, value in {**dataclasses.asdict(request.sampling), "seed": request.seed}.items() if name not in self.omit
        }
        if "max_tokens" in kept:
            kept[self.token_limit_field] = kept.pop("max_tokens")
        if request.want_logprobs:
            kept |= {"logprobs": True, "top_logprobs": NUM_ALTERNATIVES}
        messages = [*system, {"role": "user", "content": content}]
        neutral = _NEUTRAL if request.sampling.temperature > 0 and self._takes_neutral() else {}
        return {"model": self.endpoint.model, "messages": messages, **kept, **neutral, **self.extra_body}

    def _takes_neutral(self) -> bool:
        with self._lock:
            if self.sampler == "auto":
                self.sampler = "vllm" if _owner(self.endpoint.get("/models", _LIST_TIMEOUT)) in ("vllm", "sglang") else "plain"
        return self.sampler == "vllm"


def data_url(image: Image.Image, image_format: ImageFormat = "png") -> str:
    """The image inside a URL, as chat endpoints take it."""
    return f"data:image/{image_format};base64,{base64.b64encode(encode_picture(image, image_format)).decode('ascii')}"


def _owner(models: Any) -> str:
    rows = models.get("data") if isinstance(models, dict) else None
    return str(rows[0].get("owned_by")).lower() if isinstance(rows, list) and rows and isinstance(rows[0], dict) else ""


def _reply(answer: dict[str, Any], model: str) -> ChatReply:
    """The reply in a completion. Raises CutReplyError where there is none."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise CutReplyError("the answer holds no choices")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise CutReplyError("the answer holds no message")
    reason = re.sub(r"[^a-z]", "", str(choice.get("finish_reason") or "").lower())
    if reason in _BROKEN_OFF:
        raise CutReplyError(f"the reply broke off (finish_reason {reason})")
    text, refusal = _text(message.get("content")), _text(message.get("refusal"))
    usage = answer.get("usage")
    return ChatReply(
        text=text or refusal,
        model=model,
        num_prompt_tokens=_count(usage, "prompt_tokens"),
        num_tokens=_count(usage, "completion_tokens"),
        truncated=reason in _CUT_SHORT,
        refused=bool(refusal) and not text,
        logprobs=_logprobs(choice.get("logprobs")),
    )


def _text(content: Any) -> str:
    """A text, or the texts of a list of parts; thinking is a part of another type."""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {"text": part} for part in content]
        return "".join(_text(part.get("text")) for part in parts if part.get("type", "text") in ("text", "output_text"))
    return content if isinstance(content, str) else ""


def _count(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, dict) else None
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def _logprobs(found: Any) -> tuple[TokenAlternatives, ...]:
    """The alternatives at every position; empty where the server gives none, or not at every position."""
    positions = found.get("content") if isinstance(found, dict) else None
    read = [_alternatives(position) for position in positions] if isinstance(positions, list) else []
    return tuple(read) if all(position.alternatives for position in read) else ()


def _alternatives(position: Any) -> TokenAlternatives:
    """The likeliest tokens, and the sampled one where it is none of them."""
    position = position if isinstance(position, dict) else {}
    rows = [row for row in position.get("top_logprobs") or () if isinstance(row, dict)]
    token = _text(position.get("token"))
    if rows and all(row.get("token") != token for row in rows):
        rows.append(position)
    pairs = ((row.get("token"), row.get("logprob")) for row in rows)
    known = tuple((t, float(p)) for t, p in pairs if isinstance(t, str) and isinstance(p, int | float) and not math.isnan(p))
    return TokenAlternatives(token, known)


# ours, all of them: when equal traces are no chance any more. A judge that writes a paragraph never repeats it at a temperature; one that
# writes a line does for one item in five (measured on the embedded judge at 0.7: 6 of 32 items with 4 traces; at 0.3: 12 of 32).
LONG_REPLY = 200
MIN_ITEMS_LONG, MIN_ITEMS, MIN_ITEMS_COOL = 2, 3, 8
MIN_REPEATS = 6
COOL = 0.5


class TraceCheck:
    """Looks at the first items that are asked several times at a temperature above 0, until one is answered in two ways."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._done = False
        self._alike: list[tuple[int, int, float]] = []  # repeats, characters and temperature of each item so far

    def see(self, requests: Sequence[ChatRequest], replies: Sequence[ChatReply]) -> None:
        """Raises BackendError, with the likely cause, when everything so far was answered alike by every seed."""
        if self._done:
            return
        items: dict[tuple[object, ...], dict[int, str]] = defaultdict(dict)
        for request, reply in zip(requests, replies, strict=True):
            if request.sampling.temperature > 0 and reply.text and not reply.refused:
                parts = (part if isinstance(part, str) else id(part) for part in request.parts)
                items[(request.system, request.sampling, *parts)][request.seed] = reply.text
        with self._lock:
            for key, texts in items.items():
                if len(texts) > 1:
                    sampling = key[1]
                    self._done |= len(set(texts.values())) > 1
                    self._alike.append((len(texts) - 1, len(next(iter(texts.values()))), getattr(sampling, "temperature", 0.0)))
            if not self._done and self._is_no_chance():
                raise BackendError(self._complaint())

    def _is_no_chance(self) -> bool:
        if sum(repeats for repeats, _, _ in self._alike) < MIN_REPEATS:
            return False
        is_long = all(length >= LONG_REPLY for _, length, _ in self._alike)
        is_cool = any(temperature < COOL for _, _, temperature in self._alike)
        return len(self._alike) >= (MIN_ITEMS_LONG if is_long else MIN_ITEMS_COOL if is_cool else MIN_ITEMS)

    def _complaint(self) -> str:
        return (
            f"{self._model}: all traces of each of the first {len(self._alike)} items are equal though the temperature is above 0: K "
            "traces say what one says. Likely the server takes top_k 1 from the checkpoint's generation_config.json; start it with "
            "`vllm serve ... --generation-config vllm`, or set the option sampler to vllm. If it is meant so: check_traces=false"
        )
