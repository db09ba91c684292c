"""What a verifier writes: the tokens that it may never write, as one mask on its logits, when a reply has ended, and how replies share the
cache of their prompt.

A model that samples a picture's stand-in dies in its next forward pass: no picture belongs to it. So these tokens have probability 0, and
they have it everywhere: where replies are drawn (`vlm.local`, the trainers' engines) and where log-probabilities of replies are computed
(`training.model`). A mask in one of the two places only would train another policy than the one that was sampled.

How a prompt is shared is decided by the layers of the model's config, not by the methods of its class: Qwen3.5 tells positions like
Qwen2.5-VL, but three of four of its layers are linear attention, whose state belongs to one sequence of tokens.

Shape legend: V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

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
