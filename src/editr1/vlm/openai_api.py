"""Any OpenAI-compatible chat endpoint as a VLM: vLLM, SGLang, `transformers serve`, LiteLLM, OpenAI itself.

    vlm = build("Qwen/Qwen2.5-VL-7B-Instruct", base_url="http://localhost:8000/v1", max_concurrency=64)

What servers do differently is met defensively: one HTTP request a reply (`n` is ignored by some), no server-side stop, images as
data URLs, replies whose JSON is cut are asked for again, and a status of 200 with no text is a reply without text.

429 and 5xx, timeouts and lost connections are tried again with growing pauses, or the pause that Retry-After names. What is still
failing then raises BackendError with the address as the user gave it. A reply that the endpoint refuses on account of its content is
data: it comes back as a text that says so, and stays unscored.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from PIL import Image

from editr1.endpoint import CutReplyError, Endpoint, connect
from editr1.errors import BackendError, ConfigError, ContentRefusedError
from editr1.generation import template_settings
from editr1.pictures import encode_picture
from editr1.vlm.base import VLM, ChatReply, ChatRequest, TokenAlternatives

ImageFormat = Literal["png", "jpeg"]
NUM_ALTERNATIVES = 20  # what the OpenAI API and vLLM return at most

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
    """
    if image_format not in ("png", "jpeg"):
        raise ConfigError(f"image_format {image_format!r} is unknown; expected png or jpeg")
    if wrong := set(omit) - set(_FIELDS):
        raise ConfigError(f"omit names {sorted(wrong)[0]!r}; expected some of {', '.join(_FIELDS)}")
    if max_concurrency < 1:
        raise ConfigError("max_concurrency must be at least 1")
    endpoint = connect(model, base_url, api_key, timeout, max_attempts)
    extra = dict(extra_body or {})
    if thinking is not None:
        extra["chat_template_kwargs"] = {**extra.get("chat_template_kwargs", {}), **template_settings(thinking)}
    return OpenAIVLM(endpoint, max_concurrency, image_format, token_limit_field, tuple(omit), extra)


class OpenAIVLM:
    """An endpoint behind the VLM protocol; made by `build`."""

    def __init__(
        self,
        endpoint: Endpoint,
        max_concurrency: int,
        image_format: ImageFormat,
        token_limit_field: str,
        omit: tuple[str, ...],
        extra_body: dict[str, Any],
    ) -> None:
        self._endpoint = endpoint
        self._max_concurrency = max_concurrency
        self._image_format = image_format
        self._token_limit_field = token_limit_field
        self._omit = omit
        self._extra_body = extra_body

    @property
    def name(self) -> str:
        """The model's id at the endpoint."""
        return self._endpoint.model

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One reply a request, in their order. Raises BackendError when one request fails for good; the others are dropped then."""
        urls = {id(image): image for request in requests for image in request.parts if not isinstance(image, str)}
        data_urls = {key: data_url(image, self._image_format) for key, image in urls.items()}
        with ThreadPoolExecutor(max_workers=max(1, min(self._max_concurrency, len(requests)))) as pool:
            futures = [pool.submit(self._ask, request, data_urls) for request in requests]
            try:
                return [future.result() for future in futures]
            except BackendError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, request: ChatRequest, data_urls: Mapping[int, str]) -> ChatReply:
        body = self._body(request, data_urls)
        begin = time.perf_counter()
        try:
            completion = self._endpoint.call(lambda: self._once(body), request.seed)
        except ContentRefusedError as refusal:
            return ChatReply(f"(refused by the endpoint: {refusal})", self.name, seconds=time.perf_counter() - begin, refused=True)
        return _reply(completion, self.name, time.perf_counter() - begin)

    def _once(self, body: Mapping[str, Any]) -> Any:
        completion = self._endpoint.client.chat.completions.create(**body)
        if not getattr(completion, "choices", None) or completion.choices[0].message is None:
            raise CutReplyError("the answer holds no choices")
        return completion

    def _body(self, request: ChatRequest, data_urls: Mapping[int, str]) -> dict[str, Any]:
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image_url", "image_url": {"url": data_urls[id(part)]}}
            for part in request.parts
        ]
        system = [{"role": "system", "content": request.system}] if request.system else []
        fields = {
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "seed": request.seed,
            "max_tokens": request.sampling.max_tokens,
        }
        kept = {name: value for name, value in fields.items() if name not in self._omit}
        if "max_tokens" in kept:
            kept[self._token_limit_field] = kept.pop("max_tokens")
        if request.want_logprobs:
            kept |= {"logprobs": True, "top_logprobs": NUM_ALTERNATIVES}
        messages = [*system, {"role": "user", "content": content}]
        return {"model": self._endpoint.model, "messages": messages, **kept, "extra_body": self._extra_body}


def data_url(image: Image.Image, image_format: ImageFormat = "png") -> str:
    """The image inside a URL, as chat endpoints take it."""
    return f"data:image/{image_format};base64,{base64.b64encode(encode_picture(image, image_format)).decode('ascii')}"


def _reply(completion: Any, model: str, seconds: float) -> ChatReply:
    choice, usage = completion.choices[0], completion.usage
    refusal = getattr(choice.message, "refusal", None)
    text = choice.message.content or refusal or ""
    return ChatReply(
        text=text,
        model=model,
        num_prompt_tokens=(usage.prompt_tokens or 0) if usage else 0,
        num_tokens=(usage.completion_tokens or 0) if usage else 0,
        seconds=seconds,
        truncated=choice.finish_reason == "length",
        refused=bool(refusal) and not choice.message.content,
        logprobs=tuple(
            TokenAlternatives(position.token, tuple((other.token, other.logprob) for other in position.top_logprobs))
            for position in (getattr(choice.logprobs, "content", None) or ())
        ),
    )
