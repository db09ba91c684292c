"""Turns chat requests into model inputs: every distinct picture is processed once, every distinct prompt tokenised once.

Two ways: Qwen-VL-like models (one placeholder token a picture, patches of all pictures in one tensor) are encoded here, so that
repeated pictures cost an index; any other model goes through its own processor.

Shape legend: D prompts, L tokens (left padding), P patches of all pictures of a batch, C values of a patch.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image

from editr1.errors import ConfigError
from editr1.pictures import to_rgb
from editr1.text import without_control_tokens
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
    """All distinct prompts of one call with their distinct pictures."""

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
        request = _without_control_tokens(requests[indices[0]], processor.tokenizer.all_special_tokens)
        text = processor.apply_chat_template(to_messages(request), add_generation_prompt=True, tokenize=False, **template)
        prompts.append(Prompt(text, tuple(pool.index(image) for image in request_images(request)), tuple(indices)))
    return Prompts(tuple(prompts), tuple(pool.images))


def _without_control_tokens(request: ChatRequest, special: Sequence[str]) -> ChatRequest:
    """The request with control tokens in its text broken up: an instruction must not end a turn or show a picture."""

    def plain(text: str) -> str:
        return without_control_tokens(text, special)

    parts = tuple(plain(part) if isinstance(part, str) else part for part in request.parts)
    return dataclasses.replace(request, parts=parts, system=plain(request.system))


class _ImagePool:
    """Numbers pictures by content. Objects seen before are recognised without reading their pixels again."""

    def __init__(self) -> None:
        self.images: list[Image.Image] = []
        self._by_object: dict[int, int] = {}  # safe while the requests hold the pictures, which is the whole call
        self._by_content: dict[tuple[object, ...], int] = {}

    def index(self, image: Image.Image) -> int:
        known = self._by_object.get(id(image))
        if known is not None:
            return known
        shown = to_rgb(image)
        content = (shown.size, hashlib.blake2b(shown.tobytes(), digest_size=16).digest())
        number = self._by_content.setdefault(content, len(self.images))
        if number == len(self.images):
            self.images.append(shown)
        self._by_object[id(image)] = number
        return number


class PatchEncoder:
    """Inputs of Qwen-VL-like models."""

    def __init__(self, processor: Any, prompts: Prompts) -> None:
        self._tokenizer = processor.tokenizer
        self._image_token_id = processor.image_token_id
        merge = processor.image_processor.merge_size**2
        if prompts.images:
            encoded = processor.image_processor(images=list(prompts.images), return_tensors="pt")
            grids_I3 = encoded["image_grid_thw"]
            num_patches = grids_I3.prod(-1)
            self._pixels: tuple[torch.Tensor, ...] = torch.split(encoded["pixel_values"], num_patches.tolist())
            self._grids_I3 = grids_I3
        token = processor.image_token
        self._prompts = prompts.prompts
        texts = []
        for prompt in self._prompts:
            # One split per prompt: the placeholders stand in the order of the pictures.
            pieces = prompt.text.split(token)
            if len(pieces) != len(prompt.images) + 1:
                raise ConfigError(f"the chat template shows {len(pieces) - 1} pictures of {len(prompt.images)}")
            counts = [int(num_patches[index]) // merge for index in prompt.images]
            texts.append(pieces[0] + "".join(token * count + piece for count, piece in zip(counts, pieces[1:], strict=True)))
        self.ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]

    def length(self, prompt: int) -> int:
        """Tokens of a prompt, pictures included."""
        return len(self.ids[prompt])

    def token_ids(self, prompt: int) -> tuple[int, ...]:
        """The tokens of a prompt, pictures included."""
        return tuple(self.ids[prompt])

    def batch(self, chosen: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs [D, L] of the chosen prompts."""
        longest = max(len(self.ids[index]) for index in chosen)
        pad = self._tokenizer.pad_token_id
        ids_DL = torch.tensor([[pad] * (longest - len(self.ids[index])) + self.ids[index] for index in chosen])
        mask_DL = torch.tensor([[0] * (longest - len(self.ids[index])) + [1] * len(self.ids[index]) for index in chosen])
        inputs = {"input_ids": ids_DL, "attention_mask": mask_DL}
        images = [image for index in chosen for image in self._prompts[index].images]
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
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        self._lengths = [len(prompt.text) for prompt in prompts.prompts]

    def length(self, prompt: int) -> int:
        """A stand-in that sorts like the number of tokens: characters of the text."""
        return self._lengths[prompt]

    def token_ids(self, prompt: int) -> tuple[int, ...]:
        """Not known before the processor has seen a batch."""
        return ()

    def batch(self, chosen: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs [D, L] of the chosen prompts."""
        prompts = [self._prompts.prompts[index] for index in chosen]
        images = [[self._prompts.images[image] for image in prompt.images] for prompt in prompts]
        text = [prompt.text for prompt in prompts]
        shown = images if any(images) else None
        return self._processor(images=shown, text=text, padding=True, return_tensors="pt", add_special_tokens=False).to(device)
