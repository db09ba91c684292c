"""Computes log-probabilities of traces with each distinct prompt read once, gradients included.

The N traces of an image share a prompt of two pictures and all principles, often longer than the traces themselves. The trainer
scores them as N separate sequences. Here what the model keeps of the prompt is computed once, indexed for every trace that follows
it, and the gradients of all its traces meet again in it. The numbers are the same up to rounding.

    prompt 0 --> cache 0 --+--> trace 0        hidden state of the prompt's last token predicts the trace's first
                           +--> trace 1
    prompt 1 --> cache 1 -----> trace 2

Shape legend: B sequences, D distinct prompts, P tokens of a prompt (left padding), T tokens of a trace (right padding), H width.
"""

from __future__ import annotations

import hashlib
import types
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from editr1.generation import cache_argument, keep_no_further_state, sharing


class SharedPrefix:
    """Installed on a model that TRL has given its fused output layer: `share_prefixes(model)`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.backbone = model.base_model
        self.prompt_length = 0
        """P while a scoring call is under way, else 0."""
        self._score, self._read = model.forward, self.backbone.forward
        model.forward = types.MethodType(self.forward, model)
        self.backbone.forward = types.MethodType(self.read, self.backbone)

    def forward(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's forward; in scoring calls it notes where the traces begin."""
        labels_BL = kwargs.get("labels")
        if kwargs.get("fused_lm_head") and isinstance(labels_BL, Tensor) and not args:
            self.prompt_length = int((labels_BL != -100).any(dim=0).int().argmax())
        try:
            return self._score(*args, **kwargs)
        finally:
            self.prompt_length = 0

    def read(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        """The backbone's forward; in scoring calls every distinct prompt is read once."""
        length = self.prompt_length
        if not length or "pixel_values" not in kwargs:
            return self._read(*args, **kwargs)
        groups = distinct(kwargs, length, self.model.config.image_token_id, self._patches_per_token())
        if len(groups.chosen) == len(groups.owner_B):
            return self._read(*args, **kwargs)
        return self._read_shared(kwargs, length, groups)

    def _read_shared(self, kwargs: dict[str, Any], length: int, groups: Groups) -> Any:
        ids_BL, mask_BL = kwargs["input_ids"], kwargs["attention_mask"]
        prompts: dict[str, Tensor] = {
            "input_ids": ids_BL[groups.chosen, :length],
            "attention_mask": mask_BL[groups.chosen, :length],
            "mm_token_type_ids": kwargs["mm_token_type_ids"][groups.chosen, :length],
            "image_grid_thw": groups.grids,
        }
        positions, delta_D1 = self.backbone.get_rope_index(**prompts)
        cache = DynamicCache(config=self.model.config)
        remembering: dict[str, Any] = {cache_argument(self._read): cache, "use_cache": True}
        read = self._read(**prompts, pixel_values=groups.pixels, position_ids=positions, **remembering)
        cache.reorder_cache(groups.owner_B)
        keep_no_further_state(cache)
        # A trace goes on where its prompt ends: padding is no position, and a picture takes fewer positions than tokens.
        position_BT = mask_BL.cumsum(dim=1)[:, length:] - 1 + delta_D1[groups.owner_B]
        position_3BT = position_BT.expand(3, -1, -1)
        out = self._read(input_ids=ids_BL[:, length:], attention_mask=mask_BL, position_ids=position_3BT, **remembering)
        prompt_BPH = read.last_hidden_state[groups.owner_B]
        out.last_hidden_state = torch.cat([prompt_BPH, out.last_hidden_state], dim=1)
        out.past_key_values = None
        return out

    def _patches_per_token(self) -> int:
        return self.model.config.vision_config.spatial_merge_size**2


class Groups:
    """Which sequences share a prompt, and the pictures of the distinct ones."""

    def __init__(self, chosen: list[int], owner_B: Tensor, pixels: Tensor, grids: Tensor) -> None:
        self.chosen, self.owner_B, self.pixels, self.grids = chosen, owner_B, pixels, grids


def distinct(inputs: dict[str, Tensor], length: int, image_token: int, patches_per_token: int) -> Groups:
    """Groups sequences by the tokens *and the pictures* of their prompts: two edits of a task differ in a picture only."""
    ids_BP = inputs["input_ids"][:, :length]
    grids_I3 = inputs["image_grid_thw"]
    patches_B = ((ids_BP == image_token).sum(dim=1) * patches_per_token).tolist()
    pixels_B = torch.split(inputs["pixel_values"], patches_B)
    grids_B = torch.split(grids_I3, _pictures_of(grids_I3.prod(dim=1).tolist(), patches_B))
    numbers: dict[bytes, int] = {}
    chosen: list[int] = []
    owner = []
    for row, (ids, pixels) in enumerate(zip(ids_BP, pixels_B, strict=True)):
        digest = hashlib.blake2b(ids.cpu().numpy().tobytes() + pixels.detach().float().cpu().numpy().tobytes()).digest()
        if digest not in numbers:
            numbers[digest] = len(chosen)
            chosen.append(row)
        owner.append(numbers[digest])
    owner_B = torch.tensor(owner, device=ids_BP.device)
    return Groups(chosen, owner_B, torch.cat([pixels_B[row] for row in chosen]), torch.cat([grids_B[row] for row in chosen]))


def _pictures_of(patches_I: list[int], patches_B: list[int]) -> list[int]:
    """Number of pictures of each sequence, from the patches of each picture and of each sequence."""
    counts, pictures = [], iter(patches_I)
    for total in patches_B:
        count = 0
        while total > 0:
            total -= next(pictures)
            count += 1
        assert total == 0, "a picture belongs to one sequence"
        counts.append(count)
    return counts


def share_prefixes(model: Any) -> bool:
    """Installs `SharedPrefix` where the model's layers let prompts be shared; False where every trace is read with its own prompt."""
    if sharing(model) == "none":
        return False
    SharedPrefix(model)
    return True
