"""Any Hugging Face image-text-to-text checkpoint on this machine as a VLM: Qwen2.5-VL, Qwen3-VL, and others.

    vlm = build("checkpoints/rrm", device="cuda", batch_size=16)

Seeds: a reply is a function of (request, seed), whatever else is in the batch, up to the rounding of matrix products,
which depends on the shape of the batch; two runs with the same batches give the same text.

Picture tokens cannot be generated: a model that samples one fails at the next step, since no picture belongs to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editr1.errors import BackendError, ConfigError
from editr1.generation import Sharing, end_tokens, forbidden_tokens, plain_generation, sharing, template_settings
from editr1.judge.asking import asking
from editr1.placement import local_device, prepare_unless_chosen
from editr1.vlm.base import VLM, ChatReply, ChatRequest

if TYPE_CHECKING:
    from editr1.vlm._encoding import Prompts

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
            trained (`judge.asking`), else the template's own default.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    prepare_unless_chosen()
    place = _device(device)
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
        self.model = model
        self.processor = processor
        self._name = name
        self._batch_size = batch_size
        self._template = template_settings(thinking)

    @property
    def name(self) -> str:
        """The checkpoint folder's name."""
        return self._name

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """One reply a request, in their order. Raises BackendError when the memory does not suffice."""
        import torch

        from editr1.vlm._encoding import PatchEncoder, ProcessorEncoder, distinct_prompts

        if not requests:
            return []
        prompts = distinct_prompts(self.processor, requests, self._template)
        shared = self._sharing() != "none"
        encoder = PatchEncoder(self.processor, prompts) if shared else ProcessorEncoder(self.processor, prompts)
        replies: dict[int, ChatReply] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for batch in _batches(prompts, encoder, self._batch_size):
                    replies.update(self._answer(requests, batch, encoder, shared))
        except torch.OutOfMemoryError as error:
            raise BackendError(f"{self._name}: out of memory with batch_size={self._batch_size}; lower it") from error
        finally:
            self.model.train(was_training)
        return [replies[index] for index in range(len(requests))]

    def _answer(self, requests: Sequence[ChatRequest], batch: dict[int, list[int]], encoder: Any, shared: bool) -> dict[int, ChatReply]:
        """Replies to one batch, given as {prompt: the requests that ask it}."""
        from editr1.vlm._decoding import RowSampler, decode_copied, decode_generic, decode_side_by_side, token_alternatives

        begin = time.perf_counter()
        device = self.model.device
        rows = [index for asking in batch.values() for index in asking]
        tokenizer = self.processor.tokenizer
        sampler = RowSampler(
            [requests[index] for index in rows],
            suppressed=forbidden_tokens(self.model, self.processor),
            eos=end_tokens(self.model, self.processor),
            pad=tokenizer.pad_token_id,
            device=device,
        )
        if shared:
            copies = [len(asking) for asking in batch.values()]
            aside = self._sharing() == "side_by_side" and device.type == "cpu"
            decode = decode_side_by_side if aside else decode_copied
            decode(self.model, encoder.batch(list(batch), device), copies, sampler)
        else:
            decode_generic(self.model, encoder.batch([prompt for prompt, asking in batch.items() for _ in asking], device), sampler)
        seconds = (time.perf_counter() - begin) / len(rows)
        texts = tokenizer.batch_decode([tokens[: len(tokens) - ended] for tokens, ended in zip(sampler.tokens, sampler.ended, strict=True)])
        prompt_of = [prompt for prompt, asking in batch.items() for _ in asking]
        return {
            index: ChatReply(
                text=text.strip(),
                model=self._name,
                num_prompt_tokens=encoder.length(prompt),
                num_tokens=len(tokens),
                seconds=seconds,
                truncated=not ended,
                logprobs=token_alternatives(tokenizer, top),
                token_ids=tuple(tokens),
                prompt_token_ids=encoder.token_ids(prompt),
            )
            for index, prompt, text, tokens, ended, top in zip(
                rows, prompt_of, texts, sampler.tokens, sampler.ended, sampler.top, strict=True
            )
        }

    def _sharing(self) -> Sharing:
        """How replies share their prompt, `none` also for pictures that `PatchEncoder` does not know."""
        known = hasattr(getattr(self.processor, "image_processor", None), "merge_size")
        return sharing(self.model) if known else "none"


def _batches(prompts: Prompts, encoder: Any, batch_size: int) -> list[dict[int, list[int]]]:
    """{prompt: requests} of at most `batch_size` requests, prompts of like length together, so that little is padding."""
    batches: list[dict[int, list[int]]] = []
    room = 0
    for prompt in sorted(range(len(prompts.prompts)), key=encoder.length):
        for request in prompts.prompts[prompt].requests:
            if room == 0:
                batches.append({})
                room = batch_size
            batches[-1].setdefault(prompt, []).append(request)
            room -= 1
    return batches


def _device(device: str) -> Any:
    import torch

    if device == "auto":
        return local_device()
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N") from error
