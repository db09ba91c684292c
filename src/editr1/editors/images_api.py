"""Any OpenAI-compatible `/v1/images/edits` endpoint as an editor: vllm-omni, OpenAI, LiteLLM and others.

    editor = build("Qwen/Qwen-Image-Edit", base_url="http://localhost:8000/v1", extra_body={"true_cfg_scale": 4.0})

One request an image (`n` above 1 is unreliable on some servers), each with its own seed, so that a lost answer can be asked for
again and means the same candidate. Servers ignore fields that they do not know without a word: Qwen models read `true_cfg_scale`,
FLUX models `guidance_scale`; the generate stage counts editors whose pictures do not change with the seed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from editr1.editors.base import Editor, EditRequest
from editr1.endpoint import CutReplyError, Endpoint, connect
from editr1.errors import ConfigError, DataError
from editr1.pictures import decode_image, encode_picture
from editr1.schema import pictures_of
from editr1.text import shown

_SIZE = re.compile(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}")


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


@dataclass(frozen=True)
class ImagesAPI:
    """An images.edit endpoint behind the Editor protocol; made by `build`."""

    _endpoint: Endpoint
    _max_concurrency: int
    _size: str
    _send_seed: bool
    _fields: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's id at the endpoint."""
        return self._endpoint.model

    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        """One image a request, in their order. Raises BackendError, or ContentRefusedError when the endpoint will not do an edit."""
        with ThreadPoolExecutor(max_workers=max(1, min(self._max_concurrency, len(requests)))) as pool:
            return list(pool.map(self._edit, requests))

    def _edit(self, request: EditRequest) -> Image.Image:
        sources = pictures_of(request.source)
        size = f"{sources[0].width}x{sources[0].height}" if self._size == "source" else self._size
        seed = {"seed": request.seed} if self._send_seed else {}

        fields = {"model": self._endpoint.model, "prompt": request.instruction, "n": 1, "size": size, **self._fields, **seed}
        form = {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in fields.items()}
        name = "image" if len(sources) == 1 else "image[]"
        files = [(name, ("source.png", encode_picture(source), "image/png")) for source in sources]
        return self._endpoint.post("/images/edits", self._decode, request.seed, data=form, files=files)

    def _decode(self, answer: dict[str, Any]) -> Image.Image:
        rows = answer.get("data")
        row = rows[0] if isinstance(rows, list) and rows else None
        if not isinstance(row, dict):
            raise CutReplyError("the answer holds no image")
        encoded, link = row.get("b64_json"), row.get("url")
        if encoded is None and link and not str(link).startswith("data:"):
            where = f"{self._endpoint.model} at {shown(self._endpoint.address)}"
            raise ConfigError(f"{where} sends a link in place of the image; set response_format to b64_json")
        found = link if encoded is None else encoded
        payload = found if isinstance(found, str) else ""
        payload = payload.partition(",")[2] if payload.startswith("data:") else payload
        try:
            return decode_image(base64.b64decode("".join(payload.split()), validate=True), "the edited image")
        except (ValueError, DataError) as error:
            raise CutReplyError(f"the answer's image is broken: {error}") from error
