"""Settings of editor RL. The paper (section 4) states G = 24 and beta = .04 and no more; the rest is ours, with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from editr1.algorithms.base import Needs
from editr1.config import Component, at_least, create, positive
from editr1.flow.combinations import combinations
from editr1.objectives.advantages import AdvantageStd
from editr1.objectives.sde import KLKind, LogProbKind, StepKind, WindowKind
from editr1.placement import Placement


@dataclass(frozen=True)
class Sampling:
    """How an iteration's edits are drawn: which sampler, on which steps it is noisy."""

    steps: int = 10
    """N denoising steps. ours: 10 halve the Euler error of 6 at no training cost, since only the window is trained."""
    kind: StepKind = "flow_sde"
    """paper: Flow-GRPO's SDE. `ddim` leaves no grain and converges; `cps` leaves none and narrows the spread."""
    level: float = 0.9
    """a. ours: Flow-GRPO's value for Kontext; at least 0, at most 1 for cps and ddim."""
    log_prob: LogProbKind = "normal"
    """The full density; `squared_error` is Flow-CPS' own, with other units (and so other clip ranges)."""
    window: int = 2
    """Noisy, trained steps a rollout. ours: 2 of 10 halve the cost of an iteration against training all steps."""
    window_kind: WindowKind = "random"
    first: int = 0
    """First step that may be noisy."""
    last: int = 5
    """One past the last step that may be noisy. ours: the first half; noise on late steps stays visible as grain."""
    hold: int = 25
    """Iterations between moves of a progressive window."""
    same_start: bool = False
    """All members of a group start from one x_T, and are computed once until they part at the first noisy step, in training too. ours: off,
    it starves groups of diversity at small noise levels; the recipes of large editors sample at high ones and set it."""
    storage: Literal["float32", "bfloat16", "float16"] = "float32"
    """How latents of the window are kept until they are trained on; rounded before their density is taken."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "window", "hold")
        at_least(0, self, "level", "first")
        if self.kind in ("cps", "ddim") and self.level > 1:
            raise ValueError(
                f"level is {self.level}: the noise of {self.kind} would exceed what is left at the next step; expected at most 1"
            )


@dataclass(frozen=True)
class Training:
    """What is trained, and how far one rollout may move it."""

    algorithm: Component = field(default_factory=lambda: Component("grpo"))
    """A file of `algorithms`. paper: grpo."""
    weights: Literal["lora", "full"] = "lora"
    rank: int = 64
    alpha: int = 128
    lr: float = 1e-4
    """ours: three times below the field's LoRA rate; slower and far from collapse. Full fine-tuning: 1e-5."""
    lr_matrices: float | None = None
    """Muon's rate for weight matrices, `lr` stays AdamW's for the rest; None = AdamW for all. ours: the embedded editor gains sooner so."""
    warmup: int = 0
    """Iterations of linear warm-up. Adam's first steps move every weight by the full rate whatever the gradient's noise."""
    final_lr_share: float = 1.0
    """Both rates fall linearly from the end of the warm-up to this share at the last iteration; 1 = constant."""
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    kl: KLKind = "latent_dtfree"
    beta: float = 0.04
    """paper, section 4. A beta means nothing without its convention: see `kl`."""
    std: AdvantageStd = "group"
    """paper, section 3.3: std inside the group."""
    min_std: float = 0.0
    """Groups at or below this std (in points of tau) teach nothing."""
    updates_per_rollout: int = 1
    """Optimiser steps a rollout, each on its share of the groups. At 1 the ratio is exactly 1 and needs no replay. Above 1, noisy steps of
    batches of several groups are made by each update for all of these, unless `micro_batch` is one group."""
    micro_batch: int = 0
    """Rows of one forward and backward; 0 = as many as a forward of the rollout had, so that kernels round alike in both."""
    gradient_checkpointing: bool = False
    shard: bool = False
    """FSDP2: weights are spread over the processes instead of lying on each; in full fine-tuning their float32 masters, gradients, averages
    and moments as well. ours: off, 20 billion parameters in bf16 fit 80 GB, and gathering them costs time; smaller cards need it."""
    zero: Literal[2, 3] = 3
    """What `shard` cuts. 3: weights too, gathered block by block at each forward. 2: working weights stay whole between updates, gathered
    once for each; masters, gradients, averages and moments are cut. For full fine-tuning where the weights alone fit. Source: ZeRO,
    https://arxiv.org/abs/1910.02054."""
    ema_decay: float = 0.9
    """Upper bound of min((1 + n) / (10 + n), decay); 0 switches the EMA off and exports the raw weights."""

    def __post_init__(self) -> None:
        at_least(1, self, "rank", "alpha", "updates_per_rollout")
        positive(self, "max_grad_norm")
        at_least(0, self, "lr", "lr_matrices", "warmup", "final_lr_share", "weight_decay", "beta", "min_std", "micro_batch", "ema_decay")


@dataclass(frozen=True)
class Evaluation:
    """Noise-free sampling of held-out tasks with fixed seeds and the averaged weights."""

    every: int = 0
    """Iterations between evaluations; 0 = none."""
    tasks: int = 32
    steps: int = 28
    batch: int = 8
    reward: Component | None = None
    """A judge that is not the training judge, so that the curve shows reward hacking; None = the training judge."""
    choose: Literal["last", "best"] = "last"
    """Which weights are exported: those at the end, or those of the best evaluation."""
    patience: int = 0
    """Stop after this many evaluations without a new best; 0 = never."""
    hacking: int = 0
    """Stop when the held-out reward fell in this many evaluations in a row while the training reward rose; 0 = only warn (after 2)."""
    held_out: float = 0.1
    """Share of tasks, by a hash of their id, that training never sees."""

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "batch", *["tasks"] * (self.every > 0))
        at_least(0, self, "every", "patience", "hacking", "held_out")
        if self.every and not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: evaluations are of tasks held out from training; expected a share in (0, 1)")


@dataclass(frozen=True)
class Curation:
    """Which tasks and groups are trained on. ours: all of them; the paper says nothing."""

    first_pass: int = 0
    """Edits of each task before training, without noise; tasks that are all good or all bad then are left out. 0 = no first pass."""
    all_good: float = 9.5
    """Points of tau from which on an edit of the first pass counts as good."""
    all_bad: float = 0.5
    min_mean: float | None = None
    """Groups whose mean tau is not above this teach nothing: nothing in them is worth imitating. None = no floor."""
    max_mean: float | None = None
    """Groups whose mean tau is not below this teach nothing: the task is solved. None = no ceiling."""
    redraw: int = 0
    """How often an iteration's groups that teach nothing are drawn anew, from other tasks; each time costs their rollouts and rewards."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of the advantages by a task's kind; 1 where a kind is not named."""

    def __post_init__(self) -> None:
        at_least(0, self, "first_pass", "redraw")
        if self.all_bad >= self.all_good:
            raise ValueError(f"all_bad is {self.all_bad} and all_good {self.all_good}: every edit would be one of both")
        if self.min_mean is not None and self.max_mean is not None and self.min_mean >= self.max_mean:
            raise ValueError(f"no mean is above min_mean {self.min_mean} and below max_mean {self.max_mean}")


@dataclass(frozen=True)
class Limits:
    """When a run is not worth its electricity any more."""

    max_unscored: float = 0.2
    """Share of an iteration's edits without a score above which the run stops."""
    max_constant: int = 10
    """Iterations in a row in which no group teaches: rewards tie in all, or `min_std` and curation leave them out."""
    max_ratio_error: float | None = None
    """Largest |ratio - 1| of the first replay; None = what rounding of the editor's dtype can explain, negative = do not stop."""

    def __post_init__(self) -> None:
        at_least(1, self, "max_constant")
        at_least(0, self, "max_unscored")


@dataclass(frozen=True)
class WeightedReward:
    """A further judge."""

    judge: Component
    weight: float = 1.0
    """Against the main judge's 1. Each reward is normalised by itself first (`training.std`; `min_std` is in points of each), so weights do
    not depend on scales."""
    caution: float = 0.0
    """How much its disagreement with the main judge counts against an edit; 1 at weight 1 takes the smaller of both. Above 0 for any judge,
    raw rewards are combined, and all must be of one scale (two reward models: 0 to 10). ours: 0; what one judge is deceived by, a judge of
    another base seldom is."""

    def __post_init__(self) -> None:
        if self.caution < 0.0 or (self.caution > 0.0 and self.weight <= 0.0):
            raise ValueError(f"caution is {self.caution} at weight {self.weight}: expected at least 0, and a weight above 0 with it")


@dataclass(frozen=True)
class Rollout:
    """A server that samples in the place of the run's own processes. ours."""

    engine: Component
    """Kind `editors`: `images_api`, with its options `model`, `base_url` and, as `extra_body`, the guidance. Steps, size and seed of a
    request come from this recipe; it names the LoRA as vllm-omni reads it: `lora: {"name": ..., "local_path": ...}`."""
    push_every: int = 1
    """Iterations between pushes of the weights."""
    folder: str | None = None
    """Where adapters are written, by a path that is the server's too; None = 09_editor/adapters."""


@dataclass(frozen=True)
class Config:
    """`edit_rl`: Flow-GRPO of an editor with the RRM as its only reward (paper, section 3.3)."""

    editor: Component
    reward: Component
    """Kind `judges`: something with `.score(items, seed) -> list[Reward]`."""
    further_rewards: tuple[WeightedReward, ...] = ()
    """ours: none; the paper trains on the RRM alone."""
    source: Literal["rollout", "pairs"] = "rollout"
    """Where edits come from: the policy, judged as they come (paper), or people's pairs in `07_pairs`, without rollout and judge."""
    seed: int = 0
    height: int = 512
    """Pixels; the adapter snaps them to what the model can do."""
    width: int = 512
    keep_aspect: bool = True
    """Each target takes the shape of its source at height x width square pixels; False = all targets are height x width."""
    group_size: int = 24
    """G. paper, section 4."""
    contexts: int = 48
    """Groups an iteration, over all processes. ours: Flow-GRPO's advice for G = 24."""
    contexts_per_batch: int = 1
    """Groups sampled as one batch; their rewards are asked for while the next batch is sampled."""
    iterations: int = 300
    rollout: Rollout | None = None
    """None = the run's own processes sample."""
    rollout_ahead: bool = False
    """Each rollout is drawn before the update of the iteration before it, so that it is judged while that update runs; the ratio corrects
    for the one update between them. ours: off; it hides the time of a slow judge, and is a little off-policy."""
    keep_graphs: bool = False
    """The noisy steps of a rollout keep the graphs of their gradients for the update, which then makes no second forward of them. ours:
    off; the activations of all rows that a process trains an iteration lie in memory at once, in place of one forward's. For small
    editors, or few groups with gradient checkpointing. The check of the first ratio has nothing left to compare."""
    cache_encodings: bool = False
    """Encode every task once before training, keep that in 09_editor/encodings, and free the text encoders (Qwen-Image-Edit: 15 GB); a
    resumed run does not load them. ours: off, a task costs megabytes on disk (FLUX.1-Kontext: 4.4 at 512 text tokens)."""
    sampling: Sampling = field(default_factory=Sampling)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    curation: Curation = field(default_factory=Curation)
    limits: Limits = field(default_factory=Limits)
    save_every: int = 25
    keep_checkpoints: int = 2
    gallery_every: int = 25
    """Iterations between galleries of edits with their verdicts; 0 = none."""
    placement: Placement = field(default_factory=Placement)
    trackers: tuple[str, ...] = ()
    """accelerate trackers beside metrics.jsonl, such as tensorboard or wandb."""

    def __post_init__(self) -> None:
        at_least(1, self, "contexts", "contexts_per_batch", "height", "width", "keep_checkpoints")
        at_least(0, self, "iterations", "save_every", "gallery_every")
        needs: Needs = create("algorithms", self.training.algorithm).needs
        for wrong, line in combinations(self, needs):
            if wrong:
                raise ValueError(line)

    @property
    def on_policy(self) -> bool:
        """Whether the policy that is updated is exactly the one that sampled: its ratio is 1, and needs no replay."""
        return self.training.updates_per_rollout == 1 and not self.rollout_ahead
