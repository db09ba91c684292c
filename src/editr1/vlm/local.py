"""Any Hugging Face image-text-to-text checkpoint on this machine as a VLM: Qwen2.5-VL, Qwen3-VL, and others.

A reply is a function of (request, seed), whatever else is in the batch, up to rounding, which depends on its shape.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from editr1.errors import BackendError, ConfigError
from editr1.judge.item import asking
from editr1.placement import place_of
from editr1.vlm._decoding import RowSampler, decode_copied, decode_generic, decode_side_by_side, token_alternatives
from editr1.vlm._inputs import Encoder, PatchEncoder, ProcessorEncoder, Prompts, distinct_prompts
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sharing, end_tokens, forbidden_tokens, plain_generation, sharing, template_settings

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
        # a reply with alternatives names 20 tokens a position: each token of the vocabulary is put into text once
        self._text_of = cache(lambda token: processor.tokenizer.decode([token]))

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
        if isinstance(encoder, ProcessorEncoder):
            asked, inputs = prompt_of, encoder.batch(prompt_of, device)
            decode_generic(self.model, inputs, sampler)
        else:
            # a layer with a state of its own would take the padding between a beginning and its rest for text
            asked, shown = list(batch), encoder.show(list(batch), device, apart=shared == "side_by_side")
            inputs = shown.whole
            decode = decode_side_by_side if shared == "side_by_side" and device.type == "cpu" else decode_copied
            decode(self.model, shown, [len(asking) for asking in batch.values()], sampler)
        seconds = (time.perf_counter() - begin) / len(rows)
        read = dict(zip(asked, inputs["attention_mask"].sum(1).tolist(), strict=True))
        texts = tokenizer.batch_decode([tokens[: len(tokens) - ended] for tokens, ended in zip(sampler.tokens, sampler.ended, strict=True)])
        return {
            index: ChatReply(
                text=text.strip(),
                model=self.name,
                num_prompt_tokens=read[prompt],
                num_tokens=len(tokens),
                seconds=seconds,
                truncated=not ended,
                logprobs=token_alternatives(self._text_of, top),
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
