"""A judge with a scalar head, as `gcpo.method: bradley_terry` trains it: no text, one number an edit.

value = 10 / (1 + exp(-s)), ours: s has no bounds; the order of edits stays, and near the ends differences shrink.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from editr1.errors import BackendError, ConfigError
from editr1.generation import template_settings
from editr1.judge.asking import Asking, asking
from editr1.judge.item import RewardItem
from editr1.judge.prompts import render_score
from editr1.placement import local_device
from editr1.schema import MAX_SCORE, Reward
from editr1.vlm.base import request_images, to_messages


class BradleyTerryJudge:
    """A loaded model with its head. Made by `build`. Deterministic: seeds change nothing."""

    def __init__(self, model: Any, processor: Any, how: Asking, batch_size: int) -> None:
        self.model = model
        self.processor = processor
        self.how = how
        self.batch_size = batch_size

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item. Raises BackendError when the memory does not suffice, ConfigError for an item without the principles that the
        prompt shows."""
        return [reward for i in range(0, len(items), self.batch_size) for reward in self._score(items[i : i + self.batch_size])]

    def _score(self, items: Sequence[RewardItem]) -> list[Reward]:
        import torch

        from editr1.training.pair_head import encode

        begin = time.perf_counter()
        asked = [render_score(self.how.prompt_id, i.source, i.edited, i.instruction, i.principles or ()) for i in items]
        images = [request_images(request) for request in asked]
        inputs = encode(self.processor, [to_messages(request) for request in asked], images, template_settings(self.how.thinking))
        try:
            with torch.inference_mode():
                scores = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        except torch.OutOfMemoryError as error:
            raise BackendError(f"bradley_terry: out of memory with batch_size={self.batch_size}; lower it") from error
        seconds = (time.perf_counter() - begin) / len(items)
        return [
            Reward(MAX_SCORE * value if known else None, int(known), 1, reason=None if known else "NOT_FINITE", seconds=seconds)
            for value, known in zip(torch.sigmoid(scores).tolist(), torch.isfinite(scores).tolist(), strict=True)
        ]


def build(checkpoint: str, prompt_id: str | None = None, batch_size: int = 16, device: str = "auto") -> BradleyTerryJudge:
    """The judge with its weights loaded. Raises ConfigError for a folder without a head.

    Args:
        checkpoint: folder that the stage `gcpo` wrote.
        prompt_id: the question; None = the one that it was trained with (`judge.asking`).
        batch_size: edits read together.
        device: `auto`, or any torch device.
    """
    import torch

    from editr1.training.model import load_model, load_processor
    from editr1.training.options import Trained
    from editr1.training.pair_head import add_head, read_head

    if read_head(checkpoint) is None:
        raise ConfigError(f"{checkpoint} holds no score_head.weight; train one with gcpo.method=bradley_terry, or ask it as judge rrm")
    model = add_head(load_model(checkpoint, Trained()), checkpoint)
    place = local_device() if device == "auto" else torch.device(device)
    return BradleyTerryJudge(model.to(place).eval(), load_processor(checkpoint), asking(checkpoint, prompt_id), batch_size)
