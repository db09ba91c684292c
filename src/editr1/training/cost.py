"""What training a verifier takes before it is started: memory of a card by part, hours, and GPU-hours. No weight is loaded.

Sizes come from the checkpoint's own config, or, for the models that the recipes name, from the table here: a hub is not asked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from editr1.errors import ConfigError
from editr1.memory import GIB, RATE, Layout, Memory, Transformer, activations, kv_cache, prefill, states, this_launch, training_hours
from editr1.training.options import Machine, Picture, Trained

PROMPT_TEXT = 700  # ours: tokens of the question with its principles
TRACE = 600  # ours: tokens of a trace, on average
_PIXELS = 1024**2  # ours: a picture where neither recipe nor checkpoint has a budget
_TOKENS_PER_SECOND = {"transformers": 739, "vllm": 2500}
"""Of a 7B model on one 80 GB card. transformers: measured on an H100, 32 rows; vLLM: ours, a cautious guess."""


@dataclass(frozen=True)
class Verifier:
    """Sizes of a vision-language model."""

    text: Transformer
    """Its `parameters` are those of the whole model."""
    vision: float
    """Parameters of the vision tower."""
    pixels_per_token: int


KNOWN = {
    "Qwen2.5-VL-3B": Verifier(Transformer(3.75e9, 36, 2048, kv_width=2 * 128, gated=11008 / 2048), 0.67e9, 28**2),
    "Qwen2.5-VL-7B": Verifier(Transformer(8.29e9, 28, 3584, kv_width=4 * 128, gated=18944 / 3584), 0.68e9, 28**2),
    "Qwen3-VL-4B": Verifier(Transformer(4.44e9, 36, 2560, kv_width=8 * 128, gated=9728 / 2560), 0.42e9, 32**2),
    "Qwen3-VL-8B": Verifier(Transformer(8.77e9, 36, 4096, kv_width=8 * 128, gated=3), 0.58e9, 32**2),
    "Qwen3.5-4B": Verifier(Transformer(4.66e9, 32, 2560, kv_width=4 * 256, cached_layers=8, gated=9216 / 2560), 0.33e9, 32**2),
    "Qwen3.5-9B": Verifier(Transformer(9.65e9, 32, 4096, kv_width=4 * 256, cached_layers=8, gated=3), 0.46e9, 32**2),
}


def sizes(model: str | Path) -> Verifier | None:
    """Sizes of a checkpoint folder or of a model in the table; None for anything else."""
    if not Path(model, "config.json").is_file():
        return next((verifier for name, verifier in KNOWN.items() if name in str(model)), None)
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(str(model))
    with torch.device("meta"):
        shell = AutoModelForImageTextToText.from_config(config)
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kinds = getattr(text, "layer_types", None) or ["full_attention"]
    cached = None if "linear_attention" not in kinds else len(kinds) - kinds.count("linear_attention")
    tower = sum(p.numel() for name, p in shell.named_parameters() if "visual" in name or "vision" in name)
    side = getattr(vision, "patch_size", 14) * getattr(vision, "spatial_merge_size", 2)
    total = sum(p.numel() for p in shell.parameters())
    width = getattr(text, "intermediate_size", 4 * text.hidden_size) / text.hidden_size
    shape = Transformer(total, text.num_hidden_layers, text.hidden_size, text.num_key_value_heads * head, cached, width)
    return Verifier(shape, tower, side**2)


@dataclass(frozen=True)
class Sampled:
    """How GCPO draws its traces."""

    engine: str
    at_once: int
    """Drawn together, over all processes."""
    max_tokens: int
    vllm_memory: float
    traces: int
    """Of the whole run."""


@dataclass(frozen=True)
class Job:
    """A training as far as memory and time go."""

    trained: Trained
    picture: Picture
    machine: Machine
    rows: int
    """Sequences that are learnt from in the whole run."""
    sampled: Sampled | None = None
    reference: bool = False
    """Whether TRL loads the model a second time, in float32, for a KL term."""

    def memory(self, verifier: Verifier, layout: Layout, card: float = 80.0) -> Memory:
        """GiB on one card of `card` GiB."""
        text, moving, sampled = verifier.text, trained_parameters(verifier, self.trained), self.sampled
        frozen = text.parameters if self.trained.lora_rank is not None else text.parameters - moving
        narrow = self.machine.precision == "bfloat16"
        found = states(frozen, moving, layout, frozen_bytes=2 if narrow else 4)
        prompt, number = prompt_tokens(verifier, self.picture), 2 if narrow else 4
        length = prompt + (sampled.max_tokens if sampled else 2 * TRACE)
        kept = activations(text, self.machine.micro_batch, length, self.machine.activation_checkpointing, number)
        second = states(text.parameters * self.reference, 0, layout, frozen_bytes=4).weights
        found = dataclasses.replace(found, activations=kept, weights=found.weights + second)
        if sampled is None or sampled.engine == "vllm_server":
            return found
        if sampled.engine == "vllm_colocate":
            return dataclasses.replace(found, engine=sampled.vllm_memory * card)
        whole = (text.parameters if layout.shards > 1 else moving * narrow) * 2 / GIB
        sequences = -(-sampled.at_once // layout.processes)
        cache, reading = kv_cache(text, sequences, length, number), prefill(text, sequences, prompt, length, number)
        return dataclasses.replace(found, kv_cache=cache, prefill=reading, copy=whole)

    def memory_here(self, model: str | Path, card: float) -> Memory | None:
        """`memory` of this launch; None for a model whose sizes are not known here. Raises ConfigError as `check_engine` does."""
        verifier = sizes(model)
        if verifier is None:
            return None
        self.check_engine(verifier, card)
        return self.memory(verifier, this_launch(), card)

    def check_engine(self, verifier: Verifier, card: float) -> None:
        """Raises ConfigError when the share of a card of `card` GiB does not hold a colocated engine: weights and one trace."""
        if self.sampled is None or self.sampled.engine != "vllm_colocate":
            return
        text, share = verifier.text, self.sampled.vllm_memory
        needed = 2 * text.parameters / GIB + kv_cache(text, 1, prompt_tokens(verifier, self.picture) + self.sampled.max_tokens)
        if needed > share * card:
            raise ConfigError(
                f"vllm_memory is {share}, of a card of {card:g} GiB {share * card:.1f}, and the colocated "
                f"vLLM needs {needed:.1f} for its own weights and one trace: raise it, or set engine to vllm_server or transformers"
            )

    def hours(self, verifier: Verifier, layout: Layout) -> float:
        """Hours of the whole run on cards of the H100's kind."""
        text, sampled = verifier.text, self.sampled
        tokens, moving = self.rows * (prompt_tokens(verifier, self.picture) + TRACE), trained_parameters(verifier, self.trained)
        learning = training_hours(text.parameters, moving, tokens, self.machine.activation_checkpointing, layout.processes)
        if sampled is None:
            return learning
        rate = _TOKENS_PER_SECOND["vllm" if sampled.engine.startswith("vllm") else "transformers"] * 8.29e9 / text.parameters
        return learning + sampled.traces * min(TRACE, sampled.max_tokens) / (rate * layout.processes) / 3600

    def lines(self, stage: str, model: str | Path) -> list[str]:
        """The dry run's lines, for this launch and, where that is one card, for eight."""
        layout, verifier = this_launch(), sizes(model)
        if verifier is None:
            return [f"{stage}: memory and time are not known: {model} is neither a folder here nor one of {', '.join(KNOWN)}"]
        told = []
        for each in [layout, *([Layout(8, sharded=self.trained.lora_rank is None)] if layout.processes == 1 else [])]:
            needed = self.hours(verifier, each)
            told += [
                f"{stage}: on {each.words}: {self.memory(verifier, each)}",
                f"{stage}: on {each.words}: about {needed:.1f} hours, {needed * each.processes:.0f} GPU-hours, "
                f"at {RATE / 1e12:.0f} TFLOP/s a card",
            ]
        return told


def trained_parameters(verifier: Verifier, trained: Trained) -> float:
    """How many move; adapters and last blocks to a tenth."""
    text = verifier.text
    language = text.parameters - verifier.vision
    if trained.lora_rank is not None:
        return text.layers * trained.lora_rank * 23 * text.hidden  # seven linear layers a block, the three of the MLP five times as wide
    if trained.last_blocks is not None:
        return language * trained.last_blocks / text.layers
    return language if trained.freeze_vision else text.parameters


def prompt_tokens(verifier: Verifier, picture: Picture) -> int:
    """Tokens of a question with its two pictures at their budget."""
    return PROMPT_TEXT + 2 * (picture.max_pixels or _PIXELS) // verifier.pixels_per_token
