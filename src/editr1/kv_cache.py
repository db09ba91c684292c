"""The keyword by which a model takes its cache of keys and values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def cache_argument(forward: Callable[..., Any]) -> str:
    """`cache` where transformers has renamed the keyword, else `past_key_values`: the old name warns at every call.

    >>> cache_argument(lambda input_ids, cache: None), cache_argument(lambda input_ids, past_key_values: None)
    ('cache', 'past_key_values')
    """
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
