"""How much memory of a card training takes, by part, and how long it takes: arithmetic on a model's sizes, before any weight is loaded.

A stage with `memory(config, run_dir, card) -> Memory | None` has its dry run print it, and `--gpu-memory 80GiB` refuse what does not fit.
Checked against measured peaks (FLUX.1-Kontext 47.5 and 61.9 GiB, Qwen-Image-Edit 49.2 GiB: within 15 %) and tensors of tiny models.

Sources: AdamW keeps two moments in float32 beside float32 weights and gradients, 16 bytes a trained parameter (arXiv 1910.02054,
section 3); a block keeps about 34 bytes a token and unit of width in 16-bit numbers, and its input alone, 2 bytes, when it is recomputed
in the backward pass (arXiv 2205.05198, section 4, without the attention map, which no kernel of today stores). Where the feed-forward
is gated, four tensors of its width are kept in place of two.
"""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass

from editr1.errors import ConfigError

GIB = 2**30
_ADAM = 8  # bytes a trained parameter
RATE = 1e14  # measured: products a second of SFT of Qwen2.5-VL-7B with LoRA on an H100, four rows of 1,745 tokens in 3.5 s


@dataclass(frozen=True)
class Transformer:
    """What of a transformer decides its memory."""

    parameters: float
    """Of the whole model."""
    layers: int
    hidden: int
    kv_width: int = 0
    """Key heads x width of a head: what one layer keeps of a token, for keys and again for values. 0 = nothing is generated."""
    cached_layers: int | None = None
    """Layers that keep keys and values of every token; None = all. Linear attention keeps a state of one size instead."""
    gated: float | None = None
    """Width of a gated feed-forward over `hidden`; None = a plain one, four times as wide."""

    @property
    def block(self) -> float:
        """Bytes a token and unit of width that one block keeps for its backward pass, in 16-bit numbers."""
        return 34 if self.gated is None else 18 + 8 * self.gated

    @property
    def reading(self) -> float:
        """The same that lives at one time without a backward pass: at the end of the feed-forward."""
        return 34 if self.gated is None else 6 + 6 * self.gated


@dataclass(frozen=True)
class Layout:
    """How the processes of a launch share the work."""

    processes: int = 1
    sharded: bool = False
    """Weights, gradients and optimizer states are split over the processes (FSDP2, ZeRO-3)."""

    @property
    def shards(self) -> int:
        return self.processes if self.sharded else 1

    @property
    def words(self) -> str:
        cards = "1 card" if self.processes == 1 else f"{self.processes} cards"
        return cards if self.shards == 1 else f"{cards}, sharded"


@dataclass(frozen=True)
class Memory:
    """GiB on one card, by part."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    kv_cache: float = 0.0
    prefill: float = 0.0
    """What reading all prompts at once takes beyond the full cache: one block's numbers."""
    copy: float = 0.0
    """Weights that are made whole or converted while traces are sampled."""
    engine: float = 0.0
    """A colocated vLLM: its own weights and cache."""
    judge: float = 0.0

    @property
    def total(self) -> float:
        """The peak: what is kept for a backward pass is gone while traces are sampled."""
        return sum(dataclasses.astuple(self)) - min(self.activations, self.kv_cache + self.prefill + self.copy)

    def __str__(self) -> str:
        sizes = {field.name.replace("_", " "): getattr(self, field.name) for field in dataclasses.fields(self)}
        parts = " + ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size)
        once = " (activations, or cache, prefill and copy, not both at once)" if self.activations and self.kv_cache else ""
        return f"{parts}{once}: peak {self.total:.1f} GiB a card"


def this_launch() -> Layout:
    """The layout that a launcher has announced in the environment; one process without a launcher."""
    sharded = any(os.environ.get(name, "").lower() == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))
    return Layout(int(os.environ.get("WORLD_SIZE", "1")), sharded)


def states(frozen: float, trained: float, layout: Layout, frozen_bytes: float = 2, trained_bytes: float = 4) -> Memory:
    """Weights, gradients and AdamW's states of so many parameters.

    Sharded weights are gathered block by block; the largest block is a few percent of a model and is not counted.
    """
    shards = layout.shards * GIB
    weights = (frozen * frozen_bytes + trained * trained_bytes) / shards
    return Memory(weights, gradients=trained * 4 / shards, optimizer=trained * _ADAM / shards)


def activations(model: Transformer, rows: int, tokens: int, checkpointing: bool, number_bytes: int = 2, waiting: int = 0) -> float:
    """GiB that a forward keeps for its backward pass; with `checkpointing` every block's input, and one block with its gradients.

    `waiting`: rows of other forwards that are kept meanwhile.
    """
    kept = model.layers * (number_bytes if checkpointing else model.block * number_bytes / 2)
    block = 2 * model.block * number_bytes / 2 if checkpointing else 0
    return tokens * model.hidden * ((rows + waiting) * kept + rows * block) / GIB


def kv_cache(model: Transformer, sequences: int, tokens: int, number_bytes: int = 2) -> float:
    """GiB of keys and values of so many sequences."""
    layers = model.layers if model.cached_layers is None else model.cached_layers
    return 2 * layers * model.kv_width * sequences * tokens * number_bytes / GIB


def prefill(model: Transformer, sequences: int, prompt: int, tokens: int, number_bytes: int = 2) -> float:
    """GiB that one block takes while it reads so many prompts at once, above the cache of all `tokens`, which is not full by then."""
    block = sequences * prompt * model.hidden * model.reading * number_bytes / 2 / GIB
    return max(0.0, block + kv_cache(model, sequences, prompt, number_bytes) - kv_cache(model, sequences, tokens, number_bytes))


def training_hours(parameters: float, trained: float, tokens: float, checkpointing: bool, processes: int) -> float:
    """Hours of so many tokens over so many cards: 2 products a parameter and token forwards, as many again for the gradient of what is
    read, for that of what is trained, and for recomputing."""
    products = tokens * (parameters * (4 + 2 * checkpointing) + 2 * trained)
    return products / (RATE * processes) / 3600


def gibibytes(text: str) -> float:
    """The GiB that `80GiB`, `80GB` or `80` names.

    >>> gibibytes("80GiB"), round(gibibytes("80 GB"), 1)
    (80.0, 74.5)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB|)\s*", text)
    if found is None:
        raise ConfigError(f"memory {text!r} is not understood; write it as 80GiB or 80GB")
    return float(found[1]) * (1e9 / GIB if found[2] == "GB" else 1.0)


def check(memory: Memory, card: float) -> None:
    """Raises ConfigError when a card of so many GiB does not hold it; 5 % stay free for fragments and the driver."""
    if memory.total > 0.95 * card:
        largest = max(dataclasses.fields(memory), key=lambda field: float(getattr(memory, field.name))).name
        raise ConfigError(
            f"this takes {memory}, more than {card:.0f} GiB hold; the largest part is {largest.replace('_', ' ')}. Shard it over more "
            "cards (recipes/accelerate; edit_rl.training.shard), train LoRA in the place of all weights (trained.lora_rank; "
            "edit_rl.training.weights), or lower micro_batch"
        )
