"""Any OpenAI-compatible `/v1/images/edits` endpoint as an editor: vllm-omni, OpenAI, LiteLLM and others.

    editor = build("Qwen/Qwen-Image-Edit", base_url="http://localhost:8000/v1", extra_body={"true_cfg_scale": 4.0})

One request an image (`n` above 1 is unreliable on some servers), each with its own seed, so that a lost answer can be asked for
again and means the same candidate. Servers ignore fields that they do not know without a word: Qwen models read `true_cfg_scale`,
FLUX models `guidance_scale`; the generate stage counts editors whose pictures do not change with the seed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from editr1.editors.base import Editor, EditRequest
from editr1.endpoint import CutReplyError, Endpoint, connect
from editr1.errors import ConfigError, DataError
from editr1.pictures import decode_image, encode_picture

_SIZE = re.compile(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}")


def build(
    model: str,
    base_url: str | None = None,
    api_key: str | None = None,
    max_concurrency: int = 4,
    timeout: float = 600.0,
    max_attempts: int = 6,
    size: str = "auto",
    response_format: str | None = None,
    send_seed: bool = True,
    extra_body: Mapping[str, Any] | None = None,
) -> Editor:
    """An editor behind an endpoint. Nothing is sent yet. Raises ConfigError for options that cannot work.

    Args:
        model: the model's id at the endpoint.
        base_url: address up to and including `/v1`; default is OPENAI_BASE_URL, else OpenAI.
        api_key: default is OPENAI_API_KEY; local servers need none.
        max_concurrency: requests in flight.
        timeout: seconds without an answer after which a request counts as lost.
        max_attempts: tries for an image before it counts as failed.
        size: "auto" (the server follows the source), "source" (say the source's size), or WIDTHxHEIGHT.
        response_format: "b64_json" for servers that would send a link otherwise.
        send_seed: False for endpoints that refuse the field (OpenAI's own); candidates then cannot be made again alike.
        extra_body: further form fields, such as num_inference_steps, guidance_scale, true_cfg_scale, negative_prompt.
    """
    if size not in ("auto", "source") and not _SIZE.fullmatch(size):
        raise ConfigError(f"size {size!r} is unknown; expected auto, source or WIDTHxHEIGHT such as 1024x1024")
    if response_format not in (None, "b64_json"):
        raise ConfigError(f"response_format {response_format!r} cannot be read; expected b64_json or nothing")
    if max_concurrency < 1:
        raise ConfigError("max_concurrency must be at least 1")
    for key in ("seed", "n", "prompt", "image", "size", "model"):
        if key in (extra_body or {}):
            raise ConfigError(f"extra_body must not hold {key!r}: this adapter sets it")
    fields = dict(extra_body or {}) | ({"response_format": response_format} if response_format else {})
    endpoint = connect(model, base_url, api_key, timeout, max_attempts)
    return ImagesAPI(endpoint, max_concurrency, size, send_seed, fields)


class ImagesAPI:
    """An images.edit endpoint behind the Editor protocol; made by `build`."""

    def __init__(self, endpoint: Endpoint, max_concurrency: int, size: str, send_seed: bool, fields: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self._max_concurrency = max_concurrency
        self._size = size
        self._send_seed = send_seed
        self._fields = fields

    @property
    def name(self) -> str:
        """The model's id at the endpoint."""
        return self._endpoint.model

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        """One image a request, in their order. Raises BackendError, or ContentRefusedError when the endpoint will not do an edit."""
        with ThreadPoolExecutor(max_workers=max(1, min(self._max_concurrency, len(requests)))) as pool:
            return list(pool.map(self._edit, requests))

    def _edit(self, request: EditRequest) -> Image.Image:
        source = encode_picture(request.source)
        size = f"{request.source.width}x{request.source.height}" if self._size == "source" else self._size
        seed = {"seed": request.seed} if self._send_seed else {}

        def once() -> Image.Image:
            reply = self._endpoint.client.images.edit(
                model=self._endpoint.model,
                image=("source.png", source, "image/png"),
                prompt=request.instruction,
                n=1,
                size=size,
                extra_body=self._fields | seed,
            )
            return _decode(reply, self._endpoint)

        return self._endpoint.call(once, request.seed)


def _decode(reply: Any, endpoint: Endpoint) -> Image.Image:
    data = getattr(reply, "data", None)
    if not data:
        raise CutReplyError("the answer holds no image")
    encoded = data[0].b64_json
    if encoded is None and data[0].url:
        raise ConfigError(f"{endpoint.model} at {endpoint.address} sends a link in place of the image; set response_format to b64_json")
    try:
        return decode_image(base64.b64decode(encoded or "", validate=True), "the edited image")
    except (binascii.Error, DataError) as error:
        raise CutReplyError(f"the answer's image is broken: {error}") from error
