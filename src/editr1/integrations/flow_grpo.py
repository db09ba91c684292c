"""flow_grpo and its forks: a scorer for `multi_score`, in front of `editr1 serve` and without pickle.

Their dispatch is a dict and a chain of `if` in their own file, so two places there are needed: the entry, and a branch of its own, for
the branch that passes reference pictures passes no prompts:

    "edit_rrm": edit_rrm_score,                          # in score_functions
    if score_name == "edit_rrm":                         # before `if score_name == "image_similarity":`, which becomes `elif`
        scores, rewards = score_fns[score_name](images, ref_images, prompts, metadata)

Images may be tensors of any float type in [0, 1], bf16 included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editr1.errors import ConfigError, DataError
from editr1.integrations._client import Edit, RewardClient, to_picture, to_source

URL_VARIABLE = "EDITR1_URL"
TOKEN_VARIABLE = "EDITR1_TOKEN"

Scorer = Callable[..., tuple[NDArray[np.float32], dict[str, Any]]]


def edit_rrm_score(device: Any = None, server_url: str | None = None) -> Scorer:
    """A function `(images, ref_images, prompts, metadata) -> (scores in [0, 10], {})`.

    `device` is theirs and not used. The address comes from `server_url` or the variable EDITR1_URL, the token from EDITR1_TOKEN.
    The function raises UnscoredError where an edit stays unscored.
    """
    url = server_url or os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(f"set {URL_VARIABLE} to the address of a running `editr1 serve`, such as http://127.0.0.1:8090")
    return _Scorer(RewardClient(url, os.environ.get(TOKEN_VARIABLE)))


@dataclass(frozen=True)
class _Scorer:
    """No closure, so that it can be sent to a process of its own."""

    client: RewardClient

    def __call__(
        self, images: Sequence[Any], ref_images: Sequence[Any] = (), prompts: Sequence[str] = (), metadata: Any = None, **_: Any
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        if len(prompts) == 0 or isinstance(prompts[0], Mapping):
            raise ConfigError("flow_grpo's own branches pass no prompts, or no ref_images: add the branch that this module's head shows")
        if not len(images) == len(ref_images) == len(prompts):
            raise DataError(f"{len(ref_images)} ref_images, {len(images)} images, {len(prompts)} prompts: expected equal numbers")
        edits = [Edit(to_source(s), to_picture(e), p) for s, e, p in zip(ref_images, images, prompts, strict=True)]
        return np.array([found.value for found in self.client.score(edits)], dtype=np.float32), {}
