"""Settings that the stages `sft` and `gcpo` share. No torch here: recipes are checked before anything heavy is imported.

The paper publishes no learning rates, batch sizes or group sizes for the reward model; the defaults are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from editr1.errors import ConfigError
from editr1.memory import this_launch
from editr1.placement import Placement

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj", "gate_up_proj")
LINEAR_ATTENTION = ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")


@dataclass(frozen=True)
class Trained:
    """Which weights move."""

    freeze_vision: bool = True
    """ours: scoring needs new words about what is seen, not new eyes, and a frozen tower saves memory."""
    last_blocks: int | None = None
    """Train only the last n blocks of the language model with its final norm and output layer. None = all blocks. ours: in a small
    model the noise of RL's gradient spreads over every weight it may move; its signal is clearest where the score is read off."""
    lora_rank: int | None = None
    """None = full fine-tuning. With LoRA the saved checkpoint is the merged model."""
    lora_alpha: float = 32.0
    lora_layers: tuple[str, ...] = (*ATTENTION, *MLP, *LINEAR_ATTENTION)
    """Names of the linear layers of the language model that carry adapters. ours: all; three of four in Qwen3.5 are linear attention."""
    lora_dropout: float = 0.0
    """ours: 0; dropout would make GCPO's policy differ between sampling and training."""

    def __post_init__(self) -> None:
        if self.last_blocks is not None and self.last_blocks < 1:
            raise ValueError(f"last_blocks is {self.last_blocks}, expected at least 1, or null for all blocks")
        if self.last_blocks is not None and self.lora_rank is not None:
            raise ValueError("last_blocks trains whole weights and lora_rank adapters; set one of them")
        if not self.lora_layers:
            raise ValueError("lora_layers names no layer")

    @property
    def scope(self) -> str:
        """What moves, in words."""
        if self.lora_rank is not None:
            return f"LoRA rank {self.lora_rank}"
        return "all weights" if self.last_blocks is None else f"the last {self.last_blocks} blocks and the output layer"


@dataclass(frozen=True)
class Picture:
    """Pixel budget of one image. None = the checkpoint's own."""

    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True)
class Schedule:
    """Optimizer and learning rate: linear warm-up, then a cosine down to a share of the peak."""

    lr: float = 1e-5
    """ours: usual for full fine-tuning of a 3B-8B model; about 1e-4 with LoRA."""
    lr_matrices: float | None = None
    """Learning rate of Muon on the matrices inside the blocks, AdamW keeps the rest. None = AdamW for all."""
    warmup_steps: int = 20
    final_lr_share: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or (self.lr_matrices is not None and self.lr_matrices <= 0):
            raise ValueError("learning rates must be positive")
        if not 0 <= self.final_lr_share <= 1:
            raise ValueError(f"final_lr_share is a share in [0, 1], found {self.final_lr_share}")


@dataclass(frozen=True)
class Machine:
    """How the computation is laid out. Nothing here changes what is computed, but for rounding."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 = products in bfloat16. What is trained stays float32, for AdamW at 1e-5 moves a bfloat16 weight in one step of six only.
    On a GPU what is frozen is bfloat16, and so is everything while traces are sampled."""
    micro_batch: int = 4
    """Rows a process handles at once; gradients of a step are accumulated."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass: about a fifth slower, far less memory."""
    workers: int = 0
    """Processes that read pictures ahead, for SFT with the processor's work; 0 = the training process itself."""
    placement: Placement = field(default_factory=Placement)
    """Attention kernels, TF32 and patience; `placement.compile` is for editors, since texts come in every length."""
    save_every: int = 100
    """Steps between checkpoints to resume from."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Where curves go beside `metrics.jsonl`: tensorboard, wandb, trackio; empty for none."""
    progress: bool = True

    def __post_init__(self) -> None:
        if self.micro_batch < 1 or self.save_every < 1 or self.workers < 0:
            raise ValueError("micro_batch and save_every must be at least 1, workers not negative")
        if self.placement.compile:
            raise ValueError("machine.placement.compile has no use here: texts come in every length, and each would be compiled anew")

    def accumulation(self, rows: int, processes: int | None = None) -> int:
        """Micro-batches that `rows` of a step divide into; processes: None = those of this launch. Raises ConfigError when they do not."""
        processes = this_launch().processes if processes is None else processes
        if rows % (self.micro_batch * processes):
            raise ConfigError(
                f"{rows} rows a step do not divide into {processes} process{'es' * (processes > 1)} x machine.micro_batch "
                f"{self.micro_batch}; make them a multiple of {self.micro_batch * processes}, or change machine.micro_batch"
            )
        return rows // (self.micro_batch * processes)


@dataclass(frozen=True)
class Generation:
    """How traces are sampled."""

    engine: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    temperature: float = 1.0
    """ours: 1, so that the sampled and the trained policy are the same distribution."""
    top_p: float = 1.0
    max_tokens: int = 1024
    batch_size: int = 256
    """Traces that `share_prompts` samples together."""
    vllm_memory: float = 0.3
    """Share of a GPU's memory that a colocated vLLM takes."""
    vllm_url: str = ""
    """Base URL of a vLLM server; docs/how_to/train_a_verifier.md has its command."""
    importance_correction: bool = False
    """Weigh every trace by its probability under the trainer over that under vLLM (TRL's correction). paper: no such weight. The ratio is
    logged as `engine_ratio` in any case, and a mean outside .5 to 2 stops the run."""

    def __post_init__(self) -> None:
        if self.engine == "vllm_server" and not self.vllm_url.startswith(("http://", "https://")):
            raise ValueError(f"engine vllm_server needs vllm_url, such as http://127.0.0.1:8000; found {self.vllm_url!r}")


@dataclass(frozen=True)
class RewardOptions:
    """What a trace earns beside what `gcpo.method` gives it. With the defaults nothing; every other value changes the objective."""

    same_tolerance: float | None = None
    """Use pairs that people call "same": a trace earns the share of the other image's traces within this many score points.
    paper: such pairs are left out."""
    skip_flat_groups: bool = False
    """Scale the ratios by groups / groups with a gradient, so that the loss is a mean over the groups that teach something.
    paper: mean over all groups. `gcpo.resample_flat` draws them anew instead."""
    length_penalty: float = 0.0
    """Subtracted from the ratio per 1,000 generated tokens. paper: none; its traces grow longer with training."""

    def __post_init__(self) -> None:
        if min(self.length_penalty, self.same_tolerance or 0.0) < 0:
            raise ValueError("length_penalty and same_tolerance must not be negative")


@dataclass(frozen=True)
class Loss:
    """What TRL makes of advantages; the same choices for every `gcpo.method`. With the defaults the loss of the paper."""

    type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo", "sapo"] = "grpo"
    """TRL's `loss_type`. paper: grpo, the mean over the tokens of a trace, then over traces. dapo and bnpo: mean over tokens, so long
    traces weigh more; dr_grpo: sum over tokens by a constant; cispo: the ratio is clipped and not its gradient."""
    ratio: Literal["token", "sequence"] = "token"
    """TRL's `importance_sampling_level`. paper: token. sequence: one ratio a trace (GSPO, arXiv 2507.18071), for losses grpo and luspo."""
    clip_high: float | None = None
    """TRL's `epsilon_high`; None = `gcpo.clip`. paper: one eps for both sides. cispo: the largest ratio less 1."""
    kl: float | None = None
    """TRL's `beta`: weight of the KL term to the checkpoint that training starts from. None = what the method asks for. paper: none."""

    def __post_init__(self) -> None:
        if self.ratio == "sequence" and self.type not in ("grpo", "luspo"):
            raise ValueError(f"ratio=sequence needs type grpo or luspo: {self.type} would weigh a trace by its length")
        if self.type == "luspo" and self.ratio != "sequence":
            raise ValueError("type=luspo needs ratio=sequence")
        if min(self.clip_high or 0.0, self.kl or 0.0) < 0:
            raise ValueError("clip_high and kl must not be negative")


@dataclass(frozen=True)
class HeldOut:
    """How GCPO is watched on the pairs that `pairs.held_out_share` keeps from it. The best checkpoint so far lies in `best/`."""

    every: int = 0
    """Steps between two looks; 0 = never."""
    num_pairs: int = 200
    num_traces: int = 4
    """K: the score of an image is the mean over its parsed traces."""
    hard: bool = False
    """Only pairs that the checkpoint at the start does not get right (wrong, tied or unread by the mean of K traces): what learning must
    change. They are chosen for being wrong, so that even a start drawn anew is above 0 on them; what is lost elsewhere does not show."""

    def __post_init__(self) -> None:
        if self.every < 0 or self.num_pairs < 1 or self.num_traces < 1:
            raise ValueError("every must not be negative, num_pairs and num_traces at least 1")


@dataclass(frozen=True)
class Strata:
    """Pairs drawn by how clearly the checkpoint at the start tells them apart (TRM, arXiv 2609.37372, mixes easy, medium and hard ones)."""

    shares: tuple[float, ...] | None = None
    """Of hard, medium and easy pairs among those that are shown; they sum to 1. None = pairs as they come (paper)."""
    edges: tuple[float, ...] = (0.0, 1.0)
    """Score points: a pair is hard up to the first (0: wrong or tied), easy above the second. ours; the source names none."""
    num_traces: int = 4
    """K: the gap of a pair is that of the means over K read traces; a pair with an unread side is hard."""

    def __post_init__(self) -> None:
        if self.shares is not None and (len(self.shares) != 3 or min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6):
            raise ValueError(f"shares are {self.shares}, expected three (hard, medium, easy) that sum to 1")
        if len(self.edges) != 2 or not self.edges[0] <= self.edges[1]:
            raise ValueError(f"edges are {self.edges}, expected two in rising order")
        if self.num_traces < 1:
            raise ValueError(f"num_traces is {self.num_traces}, expected at least 1")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a training stage returns."""

    path: str
    """Directory that `from_pretrained` reads."""
    steps: int
    rows: int
    """Rows that training drew from: quadruples, or pairs."""
    seconds: float
    """Training time of this call; 0 when the stage had finished before."""

    def __str__(self) -> str:
        return f"{self.steps} steps on {self.rows} rows in {self.seconds:.0f} s -> {self.path}"
