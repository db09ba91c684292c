"""Reading a prompt once for all its traces changes no number: log-probabilities, entropies and gradients are the same."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from editr1.training import shared_prefix
from editr1.vlm.base import ChatReply, ChatRequest, Sampling
from tiny_qwen import build_tiny_qwen
from tiny_run import build_tiny_verifier
from tiny_vlms import tiny_qwen35


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


def inputs(processor: Any) -> dict[str, Any]:
    """Two prompts of different lengths and one of equal text with another picture, three traces each, shuffled."""
    rng = random.Random(1)
    pictures = [Image.frombytes("RGB", (72, 72), rng.randbytes(3 * 72 * 72)) for _ in range(4)]
    asked = [("edit: add a red circle\n", 1), ("edit: add a red circle\n", 2), ("edit: redraw the scene in flat style and add a A\n", 3)]
    rows = [asked[i] for i in (0, 1, 2, 1, 0, 2, 2, 0, 1)]
    messages = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": t}, {"type": "image"}]}] for t, _ in rows]
    texts = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images = [[pictures[0], pictures[i]] for _, i in rows]
    prompts = dict(processor(text=texts, images=images, return_tensors="pt", padding=True, padding_side="left"))
    torch.manual_seed(0)
    traces = torch.randint(20, 60, (len(rows), 7))
    alive = (torch.arange(7) < torch.tensor([7, 4, 6, 7, 5, 3, 7, 7, 2])[:, None]).long()
    prompt_ids = prompts["input_ids"]
    mask = torch.cat([prompts["attention_mask"], alive], 1)
    ids = torch.cat([prompt_ids, traces], 1)
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, : prompt_ids.shape[1]] = -100
    types = torch.cat([prompts["mm_token_type_ids"], torch.zeros_like(traces)], 1)
    rest = {name: prompts[name] for name in ("pixel_values", "image_grid_thw")}
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "mm_token_type_ids": types, **rest}


def of_the_verifier(path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)


def of_qwen35(path: Path) -> tuple[Any, Any]:
    """Three layers of linear attention: what they keep of a prompt is a state, and it is copied."""
    pytest.importorskip("transformers.models.qwen3_5")
    from transformers import AutoProcessor

    return tiny_qwen35(AutoProcessor.from_pretrained(path).tokenizer)


# Linear attention is computed in float32 whatever the weights are.
@pytest.mark.parametrize(("make", "tiny", "close"), [(of_the_verifier, False, 1e-6), (of_qwen35, True, 3e-4)])
def test_shared_prompts_give_the_same_numbers_and_gradients(
    verifier: Path, tmp_path: Path, make: Callable[[Path], tuple[Any, Any]], tiny: bool, close: float
) -> None:
    from trl.trainer.utils import add_fused_lm_head

    from editr1.training.shared_prefix import share_prefixes

    path = build_tiny_qwen(tmp_path / "tokens") if tiny else verifier
    batch = inputs(make(path)[1])
    results = []
    for shared in (False, True):
        model = make(path)[0].double().train()
        add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        if shared:
            assert share_prefixes(model)
        seen = []
        model.model.language_model.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.last_hidden_state.shape[:2]))
        out = model(**batch, fused_lm_head=True)
        (out.log_probs * torch.linspace(-1, 1, out.log_probs.numel()).view_as(out.log_probs)).sum().backward()
        results.append((out, {name: p.grad for name, p in model.named_parameters()}, seen))
    (plain, plain_grads, _), (shared_out, shared_grads, seen) = results
    assert seen[0][0] == 3  # three distinct prompts were read, not nine
    torch.testing.assert_close(shared_out.log_probs, plain.log_probs, rtol=close, atol=close)
    torch.testing.assert_close(shared_out.entropy, plain.entropy, rtol=close, atol=close)
    for name, gradient in plain_grads.items():
        if gradient is not None:
            scale = float(gradient.abs().max())
            torch.testing.assert_close(shared_grads[name], gradient, rtol=10 * close, atol=close * max(scale, 1.0), msg=name)


def test_every_trace_of_a_step_has_a_seed_of_its_own_on_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where processes draw different numbers of flat pairs anew."""
    seeds: list[int] = []

    class Told:
        def __init__(self, *_: Any) -> None: ...

        def chat(self, requests: list[ChatRequest]) -> list[ChatReply]:
            seeds.extend(request.seed for request in requests)
            return [ChatReply("", "m", token_ids=(1,), prompt_token_ids=(1,)) for _ in requests]

    monkeypatch.setattr(shared_prefix, "load", lambda *_: Told)
    monkeypatch.setattr(shared_prefix, "whole_model", contextlib.nullcontext)
    prompt = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    draw = shared_prefix.shared_rollout(None, Sampling(), 8, seed=0)
    for rank, (num, at_most) in ((0, (8, None)), (1, (8, None)), (0, (6, 8)), (1, (2, 8))):
        trainer = SimpleNamespace(accelerator=SimpleNamespace(process_index=rank), state=SimpleNamespace(global_step=at_most or 0))
        draw([prompt] * num, trainer, at_most)
    assert len(set(seeds)) == len(seeds) == 24
