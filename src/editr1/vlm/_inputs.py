"""From requests to what a model reads: distinct prompts of distinct pictures, and the beginnings that several prompts share.

Every distinct picture of a call is processed once, every distinct prompt tokenised once. Shape legend: D prompts, E beginnings, L tokens
(left padding), I pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from editr1.errors import ConfigError
from editr1.pictures import to_rgb
from editr1.vlm._decoding import Shown
from editr1.vlm.base import ChatRequest, request_images, to_messages


@dataclass(frozen=True, slots=True)
class Prompt:
    """One distinct prompt of a call, and who asked it."""

    text: str
    """Chat template applied; pictures still one placeholder each."""
    images: tuple[int, ...]
    """Indices into the call's distinct pictures."""
    requests: tuple[int, ...]
    """Indices of the requests that ask exactly this; they differ by seed and sampling."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """All distinct prompts of one call with their distinct pictures, as the models see them."""

    prompts: tuple[Prompt, ...]
    images: tuple[Image.Image, ...]


def distinct_prompts(processor: Any, requests: Sequence[ChatRequest], template: Mapping[str, bool] = MappingProxyType({})) -> Prompts:
    """The requests without repetitions, in order of first appearance. template: further arguments of the chat template."""
    pool = _ImagePool()
    askers: dict[tuple[object, ...], list[int]] = {}
    for index, request in enumerate(requests):
        key = (request.system, *(part if isinstance(part, str) else pool.index(part) for part in request.parts))
        askers.setdefault(key, []).append(index)
    prompts = []
    for indices in askers.values():
        request = requests[indices[0]]
        messages = to_messages(request, processor.tokenizer.all_special_tokens)
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **template)
        prompts.append(Prompt(text, tuple(map(pool.index, request_images(request))), tuple(indices)))
    return Prompts(tuple(prompts), tuple(pool.images))


class _ImagePool:
    """Numbers pictures by content. Objects seen before are recognised without reading their pixels again."""

    def __init__(self) -> None:
        self.images: list[Image.Image] = []
        self._by_object: dict[int, int] = {}  # safe while the requests hold the pictures, which is the whole call
        self._by_content: dict[tuple[object, ...], int] = {}

    def index(self, image: Image.Image) -> int:
        if id(image) not in self._by_object:
            shown = to_rgb(image)
            content = (shown.size, hashlib.blake2b(shown.tobytes(), digest_size=16).digest())
            number = self._by_content.setdefault(content, len(self.images))
            if number == len(self.images):
                self.images.append(shown)
            self._by_object[id(image)] = number
        return self._by_object[id(image)]


Part = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens, and the pictures among them."""

_SHARED_BY = 3  # ours: prompts a beginning from which two forwards pay


class PatchEncoder:
    """Inputs of Qwen-VL-like models (one placeholder a picture, patches of all in one tensor): a picture seen again costs an index."""

    def __init__(self, processor: Any, prompts: Prompts) -> None:
        self._pad, self._image_token_id = processor.tokenizer.pad_token_id, processor.image_token_id
        self._prompts = prompts.prompts
        self._tokens_I: list[int] = []
        if prompts.images:
            encoded = processor.image_processor(images=list(prompts.images), return_tensors="pt")
            self._grids_I3 = encoded["image_grid_thw"]
            patches_I = self._grids_I3.prod(-1)
            self._pixels: tuple[torch.Tensor, ...] = torch.split(encoded["pixel_values"], patches_I.tolist())
            self._tokens_I = (patches_I // processor.image_processor.merge_size**2).tolist()
        texts = []
        for prompt in self._prompts:
            # One split per prompt: the placeholders stand in the order of the pictures.
            pieces = prompt.text.split(processor.image_token)
            if len(pieces) != len(prompt.images) + 1:
                raise ConfigError(f"the chat template shows {len(pieces) - 1} pictures of {len(prompt.images)}")
            shown = (processor.image_token * self._tokens_I[index] for index in prompt.images)
            texts.append(pieces[0] + "".join(picture + piece for picture, piece in zip(shown, pieces[1:], strict=True)))
        self.ids = [tuple(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        """The tokens of each prompt, pictures included."""
        self.lengths = [len(ids) for ids in self.ids]

    def show(self, chosen: Sequence[int], device: torch.device, apart: bool) -> Shown:
        """The chosen prompts. apart: those that are the same up to their last picture are read once until there, where that pays."""
        parts = [self._parts(index) for index in chosen]
        beginnings = {beginning: number for number, beginning in enumerate(dict.fromkeys(beginning for beginning, _ in parts))}
        if not apart or ((), ()) in beginnings or len(parts) < _SHARED_BY * len(beginnings):
            whole = self._inputs([(self.ids[index], self._prompts[index].images) for index in chosen], device)
            return Shown(whole, whole)
        owner_D = torch.tensor([beginnings[beginning] for beginning, _ in parts], device=device)
        first, rests = self._inputs(list(beginnings), device), self._inputs([rest for _, rest in parts], device)
        whole = {
            name: torch.cat([first[name][owner_D], rests[name]], dim=1)
            for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        }  # fmt: skip
        whole["image_grid_thw"] = self._grids_I3[[image for index in chosen for image in self._prompts[index].images]].to(device)
        return Shown(whole, rests, first, owner_D)

    def _parts(self, index: int) -> tuple[Part, Part]:
        """The prompt before and from its last picture on; all of it is rest where it shows none before."""
        ids, images = self.ids[index], self._prompts[index].images
        if len(images) < 2:
            return ((), ()), (ids, images)
        end = len(ids) - ids[::-1].index(self._image_token_id)
        cut = end - self._tokens_I[images[-1]]
        return (ids[:cut], images[:-1]), (ids[cut:], images[-1:])

    def _inputs(self, parts: Sequence[Part], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs [D, L], padded on the left."""
        rows = [torch.tensor(ids) for ids, _ in parts]
        ids_DL = pad_sequence(rows, batch_first=True, padding_value=self._pad, padding_side="left")
        mask_DL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        inputs = {"input_ids": ids_DL, "attention_mask": mask_DL}
        images = [image for _, shown in parts for image in shown]
        if images:
            inputs["mm_token_type_ids"] = (ids_DL == self._image_token_id).int()
            inputs["pixel_values"] = torch.cat([self._pixels[image] for image in images])
            inputs["image_grid_thw"] = self._grids_I3[images]
        return {name: value.to(device) for name, value in inputs.items()}


class ProcessorEncoder:
    """Inputs of any other model, through its own processor."""

    def __init__(self, processor: Any, prompts: Prompts) -> None:
        self._processor = processor
        self._prompts = prompts
        processor.tokenizer.padding_side = "left"
        self.ids: list[tuple[int, ...]] = [()] * len(prompts.prompts)
        """Not known before the processor has seen a batch."""
        self.lengths = [len(prompt.text) for prompt in prompts.prompts]
        """Characters, which sort like tokens."""

    def batch(self, chosen: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs [D, L] of the chosen prompts."""
        prompts = [self._prompts.prompts[index] for index in chosen]
        images = [[self._prompts.images[image] for image in prompt.images] for prompt in prompts]
        text = [prompt.text for prompt in prompts]
        shown = images if any(images) else None
        inputs = self._processor(images=shown, text=text, padding=True, return_tensors="pt", add_special_tokens=False).to(device)
        return dict(inputs)


Encoder = PatchEncoder | ProcessorEncoder
