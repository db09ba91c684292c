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
import email.utils
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import openai
import tenacity
from PIL import Image

from editr1.errors import BackendError, ConfigError
from editr1.schema import derive_seed
from editr1.vlm.base import VLM, ChatReply, ChatRequest, TokenAlternatives

OPENAI_URL = "https://api.openai.com/v1"
NUM_ALTERNATIVES = 20  # what the OpenAI API and vLLM return at most

_LONGEST_PAUSE = 60.0  # seconds; ours
_LONGEST_RETRY_AFTER = 300.0  # seconds; ours: a server that asks for more is down for the purpose of a run
_REFUSALS = ("content_filter", "content_policy_violation", "invalid_prompt", "context_length_exceeded")
_FIELDS = ("temperature", "top_p", "seed", "max_tokens")


def build(
    model: str,
    base_url: str | None = None,
    api_key: str | None = None,
    max_concurrency: int = 8,
    timeout: float = 300.0,
    max_attempts: int = 6,
    image_format: str = "png",
    token_limit_field: str = "max_tokens",
    omit: Sequence[str] = (),
    extra_body: Mapping[str, Any] | None = None,
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
        extra_body: further fields, such as vLLM's `chat_template_kwargs`.
    """
    address = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"base_url {address!r} is no address; expected something like http://localhost:8000/v1")
    if image_format not in ("png", "jpeg"):
        raise ConfigError(f"image_format {image_format!r} is unknown; expected png or jpeg")
    if wrong := set(omit) - set(_FIELDS):
        raise ConfigError(f"omit names {sorted(wrong)[0]!r}; expected some of {', '.join(_FIELDS)}")
    if max_concurrency < 1 or max_attempts < 1 or timeout <= 0:
        raise ConfigError("max_concurrency and max_attempts must be at least 1, timeout above 0")
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key and address.startswith(OPENAI_URL):
        raise ConfigError(f"{address} needs an API key: set OPENAI_API_KEY, or give base_url for a server of your own")
    client = openai.OpenAI(base_url=address, api_key=key or "none", timeout=timeout, max_retries=0)
    fixed = dict(extra_body or {})
    return OpenAIVLM(client, model, address, max_concurrency, max_attempts, image_format, token_limit_field, tuple(omit), fixed)


class _CutReplyError(Exception):
    """The endpoint's answer is no complete chat completion."""


_RETRIED = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError, openai.ConflictError, _CutReplyError)


class OpenAIVLM:
    """An endpoint behind the VLM protocol; made by `build`."""

    def __init__(
        self,
        client: openai.OpenAI,
        model: str,
        address: str,
        max_concurrency: int,
        max_attempts: int,
        image_format: str,
        token_limit_field: str,
        omit: tuple[str, ...],
        extra_body: dict[str, Any],
    ) -> None:
        self._client = client
        self._model = model
        self._address = address
        self._max_concurrency = max_concurrency
        self._max_attempts = max_attempts
        self._image_format = image_format
        self._token_limit_field = token_limit_field
        self._omit = omit
        self._extra_body = extra_body

    @property
    def name(self) -> str:
        """The model's id at the endpoint."""
        return self._model

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
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._max_attempts),
            retry=tenacity.retry_if_exception_type(_RETRIED),
            wait=lambda state: _pause(state, request.seed),
            reraise=True,
        )
        begin = time.perf_counter()
        try:
            completion = retrying(self._once, body)
        except openai.APIStatusError as error:
            refusal = _refusal(error)
            if refusal is None:
                raise BackendError(self._complaint(error)) from error
            return ChatReply(f"(refused by the endpoint: {refusal})", self._model, seconds=time.perf_counter() - begin)
        except (openai.APIConnectionError, _CutReplyError) as error:
            raise BackendError(self._complaint(error)) from error
        return _reply(completion, self._model, time.perf_counter() - begin)

    def _once(self, body: Mapping[str, Any]) -> Any:
        try:
            completion = self._client.chat.completions.create(**body)
        except (json.JSONDecodeError, openai.APIResponseValidationError) as error:
            raise _CutReplyError("the answer's JSON is cut or broken") from error
        if not getattr(completion, "choices", None) or completion.choices[0].message is None:
            raise _CutReplyError("the answer holds no choices")
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
        return {"model": self._model, "messages": messages, **kept, "extra_body": self._extra_body}

    def _complaint(self, error: Exception) -> str:
        where = f"{self._model} at {self._address}"
        if isinstance(error, openai.APITimeoutError):
            return f"{where}: no answer in time, {self._max_attempts} times; raise timeout or lower max_concurrency"
        if isinstance(error, openai.APIConnectionError):
            cause = str(error.__cause__ or error)
            return f"{where}: cannot connect, {self._max_attempts} times ({cause}); is the server running?"
        if isinstance(error, openai.NotFoundError):
            return f"{where}: not found (404: {_message(error)}); does the address end in /v1, and is the model served there?"
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return f"{where}: refused the API key ({_message(error)}); set OPENAI_API_KEY or the option api_key"
        if isinstance(error, openai.APIStatusError):
            tries = f", {self._max_attempts} times" if isinstance(error, _RETRIED) else ""
            return f"{where}: status {error.status_code}{tries} ({_message(error)})"
        return f"{where}: {error}, {self._max_attempts} times"


def data_url(image: Image.Image, image_format: str = "png") -> str:
    """The image inside a URL, as chat endpoints take it."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, image_format.upper(), **({"quality": 95} if image_format == "jpeg" else {}))
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _reply(completion: Any, model: str, seconds: float) -> ChatReply:
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.content or getattr(choice.message, "refusal", None) or ""
    return ChatReply(
        text=text,
        model=model,
        num_prompt_tokens=(usage.prompt_tokens or 0) if usage else 0,
        num_tokens=(usage.completion_tokens or 0) if usage else 0,
        seconds=seconds,
        truncated=choice.finish_reason == "length",
        logprobs=tuple(
            TokenAlternatives(position.token, tuple((other.token, other.logprob) for other in position.top_logprobs))
            for position in (getattr(choice.logprobs, "content", None) or ())
        ),
    )


def _pause(state: tenacity.RetryCallState, seed: int) -> float:
    """Seconds until the next try: what the server asks for, else doubling with a spread that the request's seed decides."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, openai.APIStatusError) and (asked := retry_after(error.response.headers.get("retry-after"))) is not None:
        return min(asked, _LONGEST_RETRY_AFTER)
    spread = 0.5 + derive_seed(seed, state.attempt_number) / 2**32  # in [0.5, 1): waiting clients must not come back at once
    return min(2.0 ** (state.attempt_number - 1), _LONGEST_PAUSE) * spread


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; it holds seconds or a date. None when absent or unreadable.

    >>> retry_after("1.5"), retry_after("soon")
    (1.5, None)
    """
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _refusal(error: openai.APIStatusError) -> str | None:
    """Why the endpoint will not judge this content; None when the request failed for another reason."""
    if error.status_code not in (400, 413):
        return None
    stated = f"{error.code or ''} {error.type or ''} {_message(error)}".lower()
    long_prompt = "context length" in stated or "too many tokens" in stated or "max_model_len" in stated
    return _message(error) if long_prompt or any(code in stated for code in _REFUSALS) else None


def _message(error: openai.APIStatusError) -> str:
    return " ".join(str(error.message).split())[:300]
