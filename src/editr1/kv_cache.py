"""What a model remembers of the tokens it has read, and in which ways several replies to one prompt can share it.

Decided by the layers of the model's config, not by the methods of its class: Qwen3.5 tells positions like Qwen2.5-VL, but three of four
of its layers are linear attention, whose state belongs to one sequence of tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

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
