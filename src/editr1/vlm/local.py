"""Any Hugging Face image-text-to-text checkpoint on this machine as a VLM: Qwen2.5-VL, Qwen3-VL, and others.

Every distinct picture of a call is processed once, every distinct prompt tokenised once. A reply is a function of (request, seed), whatever
else is in the batch, up to rounding, which depends on its shape. Shape legend: D prompts, L tokens (left padding), I pictures.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from editr1.errors import BackendError, ConfigError
from editr1.judge.item import asking
from editr1.pictures import to_rgb
from editr1.placement import place_of
from editr1.vlm._decoding import RowSampler, decode_copied, decode_generic, decode_side_by_side, token_alternatives
from editr1.vlm.base import (
    VLM,
    ChatReply,
    ChatRequest,
    Sharing,
    end_tokens,
    forbidden_tokens,
    plain_generation,
    request_images,
    sharing,
    template_settings,
    to_messages,
)

BATCH_SIZE = 16  # ours: a 7B model with 1,500 tokens of context a sequence fits 24 GB; tiny models take hundreds


def build(
    path: str,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    trust_remote_code: bool = False,
    thinking: bool | None = None,
) -> VLM:
    """A VLM that loads the checkpoint at once. Raises ConfigError when it cannot be loaded.

    Args:
        path: checkpoint folder, or the id of a model on the hub.
        device: `auto` takes this process' own GPU (the first without a launcher), else the CPU; or any torch device.
        dtype: `auto` is bfloat16 on a GPU and float32 on the CPU; or a torch dtype's name.
        batch_size: sequences generated together.
        trust_remote_code: allow code inside the checkpoint to run. Off: a checkpoint is data.
        thinking: `enable_thinking` of the chat template, for models that can think before they answer. None = as the checkpoint was
            trained (`judge.item`), else the template's own default.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    place = place_of(device)
    kind = (torch.bfloat16 if place.type == "cuda" else torch.float32) if dtype == "auto" else getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ConfigError(f"unknown dtype {dtype!r}; expected auto, float32, bfloat16 or float16")
    if Path(path).exists() and not Path(path, "config.json").is_file():
        raise ConfigError(f"{path} is no checkpoint folder: it holds no config.json")
    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=kind, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(f"cannot load a vision-language checkpoint from {path!r}: {first_line}") from error
    model.generation_config = plain_generation(model)  # a request says how it is drawn, a checkpoint's own penalties do not
    thinking = asking(path, thinking=thinking).thinking
    return LocalVLM(model.to(place).eval(), processor, name=Path(path).name, batch_size=batch_size, thinking=thinking)


class LocalVLM:
    """A loaded model and its processor behind the VLM protocol. Also wraps a model that is being trained."""

    def __init__(self, model: Any, processor: Any, name: str, batch_size: int = BATCH_SIZE, thinking: bool | None = None) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        self.model = model
        self.processor = processor
        self.name = name
        self._batch_size = batch_size
        self._template = template_settings(thinking)

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One reply a request, in their order. Raises BackendError when the memory does not suffice."""
        if not requests:
            return []
        shared = self._sharing()
        prompts = distinct_prompts(self.processor, requests, self._template)
        encoder = (ProcessorEncoder if shared == "none" else PatchEncoder)(self.processor, prompts)
        replies: dict[int, ChatReply] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for batch in _batches(prompts, encoder.lengths, self._batch_size):
                    replies.update(self._answer(requests, batch, encoder, shared))
        except torch.OutOfMemoryError as error:
            raise BackendError(f"{self.name}: out of memory with batch_size={self._batch_size}; lower it") from error
        finally:
            self.model.train(was_training)
        return [replies[index] for index in range(len(requests))]

    def _sharing(self) -> Sharing:
        """How replies share their prompt, `none` also for pictures that `PatchEncoder` does not know."""
        return sharing(self.model) if hasattr(getattr(self.processor, "image_processor", None), "merge_size") else "none"

    def _answer(
        self, requests: Sequence[ChatRequest], batch: dict[int, list[int]], encoder: Encoder, shared: Sharing
    ) -> dict[int, ChatReply]:
        """Replies to one batch, given as {prompt: the requests that ask it}."""
        begin = time.perf_counter()
        device, tokenizer = self.model.device, self.processor.tokenizer
        rows = [index for asking in batch.values() for index in asking]
        prompt_of = [prompt for prompt, asking in batch.items() for _ in asking]
        sampler = RowSampler(
            [requests[index] for index in rows],
            suppressed=forbidden_tokens(self.model, self.processor),
            eos=end_tokens(self.model, self.processor),
            pad=tokenizer.pad_token_id,
            device=device,
        )
        shown = prompt_of if shared == "none" else list(batch)
        inputs = encoder.batch(shown, device)
        if shared == "none":
            decode_generic(self.model, inputs, sampler)
        else:
            decode = decode_side_by_side if shared == "side_by_side" and device.type == "cpu" else decode_copied
            decode(self.model, inputs, [len(asking) for asking in batch.values()], sampler)
        seconds = (time.perf_counter() - begin) / len(rows)
        read = dict(zip(shown, inputs["attention_mask"].sum(1).tolist(), strict=True))
        texts = tokenizer.batch_decode([tokens[: len(tokens) - ended] for tokens, ended in zip(sampler.tokens, sampler.ended, strict=True)])
        return {
            index: ChatReply(
                text=text.strip(),
                model=self.name,
                num_prompt_tokens=read[prompt],
                num_tokens=len(tokens),
                seconds=seconds,
                truncated=not ended,
                logprobs=token_alternatives(tokenizer, top),
                token_ids=tuple(tokens),
                prompt_token_ids=encoder.ids[prompt],
            )
            for index, prompt, text, tokens, ended, top in zip(
                rows, prompt_of, texts, sampler.tokens, sampler.ended, sampler.top, strict=True
            )
        }


def _batches(prompts: Prompts, lengths: Sequence[int], batch_size: int) -> list[dict[int, list[int]]]:
    """{prompt: requests} of at most `batch_size` requests, prompts of like length together, so that little is padding."""
    in_order = [
        (prompt, request)
        for prompt in sorted(range(len(prompts.prompts)), key=lengths.__getitem__)
        for request in prompts.prompts[prompt].requests
    ]
    batches: list[dict[int, list[int]]] = []
    for start in range(0, len(in_order), batch_size):
        batches.append({})
        for prompt, request in in_order[start : start + batch_size]:
            batches[-1].setdefault(prompt, []).append(request)
    return batches


# --- requests to model inputs -------------------------------------------------------------------------


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


class PatchEncoder:
    """Inputs of Qwen-VL-like models (one placeholder a picture, patches of all in one tensor): a picture seen again costs an index."""

    def __init__(self, processor: Any, prompts: Prompts) -> None:
        self._pad, self._image_token_id = processor.tokenizer.pad_token_id, processor.image_token_id
        self._prompts = prompts.prompts
        tokens_I: list[int] = []
        if prompts.images:
            encoded = processor.image_processor(images=list(prompts.images), return_tensors="pt")
            self._grids_I3 = encoded["image_grid_thw"]
            patches_I = self._grids_I3.prod(-1)
            self._pixels: tuple[torch.Tensor, ...] = torch.split(encoded["pixel_values"], patches_I.tolist())
            tokens_I = (patches_I // processor.image_processor.merge_size**2).tolist()
        texts = []
        for prompt in self._prompts:
            # One split per prompt: the placeholders stand in the order of the pictures.
            pieces = prompt.text.split(processor.image_token)
            if len(pieces) != len(prompt.images) + 1:
                raise ConfigError(f"the chat template shows {len(pieces) - 1} pictures of {len(prompt.images)}")
            shown = (processor.image_token * tokens_I[index] for index in prompt.images)
            texts.append(pieces[0] + "".join(picture + piece for picture, piece in zip(shown, pieces[1:], strict=True)))
        self.ids = [tuple(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]]
        """The tokens of each prompt, pictures included."""
        self.lengths = [len(ids) for ids in self.ids]

    def batch(self, chosen: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
        """Model inputs [D, L] of the chosen prompts."""
        rows = [torch.tensor(self.ids[index]) for index in chosen]
        ids_DL = pad_sequence(rows, batch_first=True, padding_value=self._pad, padding_side="left")
        mask_DL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
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
