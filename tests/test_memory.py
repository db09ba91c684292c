"""The arithmetic of memory against peaks that were measured on a GPU and against tensors of tiny models."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from editr1.errors import ConfigError
from editr1.memory import GIB, Layout, Memory, Transformer, activations, check, kv_cache, prefill, states, this_launch
from tiny_run import build_tiny_verifier

KONTEXT = Transformer(11.9e9, layers=57, hidden=3072)
T5, CLIP_AND_VAE = 4.76e9, 0.21e9
QWEN_IMAGE = Transformer(20.4e9, layers=60, hidden=3072)
TEXT = 512  # tokens of the text beside the patches


def lora(model: Transformer, rank: int) -> float:
    """Parameters of adapters on four square projections a layer."""
    return model.layers * 4 * 2 * rank * model.hidden


# Measured on one H100, torch 2.11, bfloat16, gradient checkpointing: the peak of an iteration.
@pytest.mark.parametrize(
    ("model", "others", "rank", "rows", "patches", "peak"),
    [
        (KONTEXT, T5 + CLIP_AND_VAE, 32, 12, 2 * 32 * 32, 47.5),
        (KONTEXT, T5 + CLIP_AND_VAE, 64, 24, 2 * 32 * 32, 61.9),
        (QWEN_IMAGE, 0.13e9, 32, 8, 2 * 24 * 24, 49.2),
    ],
    ids=["kontext-12", "kontext-24", "qwen-image-edit-8"],
)
def test_measured_peaks_are_told_within_15_percent(
    model: Transformer, others: float, rank: int, rows: int, patches: int, peak: float
) -> None:
    kept = states(model.parameters + others, lora(model, rank), Layout())
    told = kept.total + activations(model, rows, patches + TEXT, checkpointing=True)
    assert told == pytest.approx(peak, rel=0.15)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


def size(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_states_are_those_of_adamw(verifier: Path) -> None:
    from editr1.training.model import load_model
    from editr1.training.options import Trained

    model = load_model(verifier, Trained())
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving)
    model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    for parameter in moving:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    trained = sum(p.numel() for p in moving)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    told = states(frozen, trained, Layout(), frozen_bytes=4)
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    real = (size(*model.parameters()), size(*(p.grad for p in moving)), size(*moments))
    assert (told.weights * GIB, told.gradients * GIB, told.optimizer * GIB) == pytest.approx(real)
    assert states(frozen, trained, Layout(8, sharded=True)).total == pytest.approx(states(frozen, trained, Layout()).total / 8)
    assert states(frozen, trained, Layout(8)).total == states(frozen, trained, Layout()).total  # DDP: whole on every card


def tiny(layers: int) -> tuple[Any, Transformer]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128, intermediate_size=688, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, vocab_size=64
    )
    return LlamaForCausalLM(config).train(), Transformer(0, layers, 128, kv_width=2 * 32, gated=688 / 128)


def kept_bytes(layers: int, checkpointing: bool) -> int:
    """Bytes of the tensors that a forward of 2 rows of 64 tokens keeps for its backward pass, weights aside."""
    model, _ = tiny(layers)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 64, (2, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(input_ids=ids, use_cache=False).logits  # noqa: F841 (holds the graph, so that no storage is used twice)
    return sum(kept.values())


@pytest.mark.parametrize("checkpointing", [True, False])
def test_what_a_block_keeps_is_what_the_formula_says(checkpointing: bool) -> None:
    real = (kept_bytes(6, checkpointing) - kept_bytes(2, checkpointing)) / GIB
    told = [activations(tiny(n)[1], 2, 64, checkpointing, number_bytes=4) for n in (6, 2)]
    assert told[0] - told[1] == pytest.approx(real, rel=0.15)


def test_the_cache_is_what_the_model_keeps() -> None:
    model, shape = tiny(3)
    cache = model(input_ids=torch.randint(0, 64, (5, 7)), use_cache=True).past_key_values
    assert kv_cache(shape, 5, 7, number_bytes=4) * GIB == size(*(t for layer in cache.layers for t in (layer.keys, layer.values)))
    assert kv_cache(Transformer(0, 32, 8, kv_width=16, cached_layers=8), 5, 7) == kv_cache(Transformer(0, 8, 8, kv_width=16), 5, 7)


class Peak(TorchDispatchMode):
    """The most bytes of new tensors that live at one time, those of the `model` aside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen = {id(p.untyped_storage()) for p in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and id(storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(id(storage))
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, id(storage), storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def test_reading_all_prompts_at_once_takes_what_the_formula_says() -> None:
    model, shape = tiny(2)
    with torch.no_grad(), Peak(model.eval()) as peak:
        cache = model(input_ids=torch.randint(0, 64, (8, 64)), use_cache=True, logits_to_keep=1).past_key_values
    assert cache is not None
    told = kv_cache(shape, 8, 64, number_bytes=4) + prefill(shape, 8, 64, 64, number_bytes=4)
    assert told * GIB == pytest.approx(peak.most, rel=0.15)


def test_a_card_that_is_too_small_is_refused_with_its_largest_part() -> None:
    check(Memory(weights=40, activations=30), 80)
    with pytest.raises(ConfigError, match=r"largest part is optimizer.*lora_rank"):
        check(states(0, 7.6e9, Layout()), 80)
    check(states(0.7e9, 7.6e9, Layout(8, sharded=True)), 80)


def test_the_launch_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_launch() == Layout()
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert this_launch() == Layout(8)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert (this_launch(), this_launch().words) == (Layout(8, sharded=True), "8 cards, sharded")
