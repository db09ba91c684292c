"""The protocol of a vision-language model: a batch of requests in, a batch of replies out, in order.

A backend is one file in this folder with a function `build(**options) -> VLM`; outside code is named as
`"package.module:Factory"`. A reply is always text: whether it contains a judgement is for Phi to say.

Also what every engine of a verifier must agree on: the tokens that it may never write, when a reply has ended, and how replies share the
cache of their prompt. Shape legend: V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from PIL import Image

from editr1.errors import ConfigError
from editr1.schema import Principle
from editr1.text import whole_text, without_control_tokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn."""

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        """Raises ConfigError for what no model can draw by."""
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}, expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected a share above 0, at most 1")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}, expected at least 1")


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


NUM_ALTERNATIVES = 20  # what vLLM and the OpenAI API return at most


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


# --- what a verifier writes ---------------------------------------------------------------------------
# A model that samples a picture's stand-in dies in its next forward pass: no picture belongs to it. So these tokens have probability 0, and
# they have it everywhere: where replies are drawn (`vlm.local`, the trainers' engines) and where log-probabilities of replies are computed
# (`training.model`). A mask in one of the two places only would train another policy than the one that was sampled.

NEVER = -1e9
"""Added to the logit of a forbidden token: exp is 0 in every float type, and unlike -inf it leaves the entropy finite."""


def forbidden_tokens(model: Any, processor: Any) -> list[int]:
    """Ids that no reply may contain: stand-ins for pictures and every other control token that does not end a reply."""
    named = [value for name, value in vars(model.config).items() if re.search(r"token_(id|index)$", name) and isinstance(value, int)]
    size = vocabulary(model)
    found = {*processor.tokenizer.all_special_ids, *named} - set(end_tokens(model, processor))
    return sorted(token for token in found if 0 <= token < size)


def end_tokens(model: Any, processor: Any) -> list[int]:
    """Ids that end a reply, the model's own first."""
    ends = model.generation_config.eos_token_id
    return [token for token in (*(ends if isinstance(ends, list) else [ends]), processor.tokenizer.eos_token_id) if token is not None]


def vocabulary(model: Any) -> int:
    """Number of logits, from the config: a sharded output layer no longer tells it."""
    return int(model.config.get_text_config().vocab_size)


def token_mask(token_ids: Sequence[int], size: int, like: Tensor) -> Tensor:
    """What is added to logits `[..., V]` so that the tokens cannot occur: `[V]`, 0 or `NEVER`, with the type and device of `like`."""
    mask_V = like.new_zeros(size)
    mask_V[list(token_ids)] = NEVER
    return mask_V


def template_settings(thinking: bool | None) -> dict[str, bool]:
    """Arguments of a chat template, the same for the judge, its trainer and a server (`chat_template_kwargs`)."""
    return {} if thinking is None else {"enable_thinking": thinking}


def plain_generation(model: Any) -> Any:
    """A GenerationConfig that says when a reply ends and shows no taste in sampling: what every checkpoint of ours is saved with.

    A server (vLLM) applies the file to every request that does not say otherwise, and `generate` likewise. With a base model's own (top_k 1
    for Qwen2.5-VL-7B, repetition penalties for others) the K traces of an edit would be one trace K times.
    """
    from transformers import GenerationConfig

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(model.generation_config, name, None) for name in names}
    return GenerationConfig(do_sample=True, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, **ids)


# --- how replies share their prompt -------------------------------------------------------------------
# Decided by the layers of the model's config, not by the methods of its class: Qwen3.5 tells positions like Qwen2.5-VL, but three of four
# of its layers are linear attention, whose state belongs to one sequence of tokens.

Sharing = Literal["side_by_side", "copied", "none"]


def cache_argument(forward: Callable[..., Any]) -> str:
    """The keyword by which a model takes its cache: `cache` where transformers has renamed it, else `past_key_values`.

    >>> cache_argument(lambda input_ids, cache: None), cache_argument(lambda input_ids, past_key_values: None)
    ('cache', 'past_key_values')
    """
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def sharing(model: Any) -> Sharing:
    """How replies can share the reading of their prompt.

    `side_by_side`: keys and values of all tokens are kept in every layer, so that a mask alone tells replies apart in one sequence.
    `copied`: some layers keep a state instead; it is computed once and copied for every reply.
    `none`: windows, or no `get_rope_index` to tell at which position a reply begins.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    if not hasattr(getattr(model, "model", None), "get_rope_index"):
        return "none"
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if kinds <= {DynamicLayer}:
        return "side_by_side"
    return "copied" if kinds <= {DynamicLayer, *_linear_layers()} else "none"


def keep_no_further_state(cache: Any) -> None:
    """From here on linear layers read the cache and do not write it: writing in place would spoil what the backward pass needs."""
    for layer in cache.layers:
        if isinstance(layer, _linear_layers()):
            layer.update_recurrent_state = _unwritten


def _unwritten(state: Any, *_: Any, **__: Any) -> Any:
    return state


def _linear_layers() -> tuple[Any, ...]:
    from transformers import cache_utils

    found = getattr(cache_utils, "LinearAttentionLayer", None)  # older transformers know no hybrid models
    return () if found is None else (found,)
