"""Train RL-RRM: GCPO sharpens the reward model on human pairs (paper, section 3.2):  06_rrm_sft 07_pairs  ->  08_rrm_gcpo

The trainer is TRL's GRPOTrainer as it is: rows of a pair lie side by side, a group is the N traces of one image, and the coupling of the
two groups sits in the reward function alone (`training.pair_reward`). `method` names other ways to learn from the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from editr1.config import Component, create
from editr1.errors import ConfigError
from editr1.judge.item import asking
from editr1.memory import Memory
from editr1.schema import derive_seed
from editr1.store import Run, hold
from editr1.training import cost
from editr1.training.options import Checkpoint, Generation, HeldOut, Loss, Machine, Picture, RewardOptions, Schedule, Strata, Trained
from editr1.training.rows import PairRows, held_out_rows, pair_rows, read_pairs
from editr1.vlm.base import Sampling, template_settings


@dataclass(frozen=True)
class Config:
    """Settings of the stage. The paper gives the objective; sizes and rates are ours."""

    model: str = ""
    """Checkpoint to start from; empty = the run's own 06_rrm_sft."""
    prompt_id: str = "tv"
    """The question that SFT was trained with; another one is warned of."""
    output: str = "08_rrm_gcpo"
    method: Component = field(default_factory=lambda: Component("gcpo"))
    """A way of `pair_learning`. paper: gcpo."""
    loss: Loss = field(default_factory=Loss)
    steps: int = 300
    pairs_per_step: int = 16
    num_traces: int = 8
    """N, traces an image. paper: "small"."""
    max_pairs: int | None = None
    """Only the first so many pairs of the training split; None = all. paper: 10k, under 1 % of the SFT data."""
    unseen_share: float | None = None
    """Only pairs of tasks that SFT left out: the same as `sft.held_out_share`, which then exceeds `pairs.held_out_share`. None = all. ours:
    a judge sees pictures that it learnt from too clearly, and so has less to learn from their pairs (docs/results/evidence.md, E2)."""
    strata: Strata = field(default_factory=Strata)
    clip: float = 0.2
    """eps of the PPO clip. With one update a batch (`updates_per_batch` 1) the ratio is 1 and never clipped."""
    updates_per_batch: int = 1
    """Optimizer passes over one batch of traces."""
    share_prompts: bool = False
    """Read each distinct prompt once for all its traces, in sampling and in scoring: the same numbers up to rounding, for a
    fraction of the work. For the transformers engine without activation checkpointing, where a card holds the whole model to sample."""
    resample_flat: int = 0
    """Times that the traces of a pair without a gradient are drawn anew in the same step; see `training.shared_prefix`. Needs
    `share_prompts`. paper: no resampling."""
    reward: RewardOptions = field(default_factory=RewardOptions)
    generation: Generation = field(default_factory=Generation)
    schedule: Schedule = field(default_factory=lambda: Schedule(lr=1e-6))
    """ours: 1e-6, usual for RL of a 3B-8B model with all weights."""
    trained: Trained = field(default_factory=Trained)
    picture: Picture = field(default_factory=Picture)
    thinking: bool | None = None
    """`enable_thinking` of the chat template. None = as the checkpoint was trained (`judge.item`), else the template's default."""
    machine: Machine = field(default_factory=Machine)
    held_out: HeldOut = field(default_factory=HeldOut)
    silent_steps: int = 10
    """Steps in a row without a gradient, or a trace that parses, that stop the run with an error, as do all steps of a run; 0 = never."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_traces < 2:
            raise ValueError("num_traces must be at least 2: a group of one has no advantage")
        if min(self.steps, self.pairs_per_step, self.updates_per_batch) < 1:
            raise ValueError("steps, pairs_per_step and updates_per_batch must be at least 1")
        self.machine.accumulation(self.rows, processes=1)  # this recipe may be read in another stage's processes
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ValueError(f"max_pairs is {self.max_pairs}, expected at least 1")
        if self.share_prompts and (self.generation.engine != "transformers" or self.machine.activation_checkpointing):
            raise ValueError("share_prompts needs generation.engine=transformers and machine.activation_checkpointing=false")
        if self.strata.shares is not None and self.reward.same_tolerance is not None:
            raise ValueError("strata go by the gap to the preferred edit, which pairs called the same do not have")
        if self.resample_flat < 0 or (self.resample_flat and not self.share_prompts):
            raise ValueError("resample_flat is a number of further draws, and needs share_prompts=true")

    @property
    def way(self) -> Any:
        """The `pair_learning` Way: a Method, or a Head where it needs no traces."""
        return create("pair_learning", self.method)

    @property
    def rows(self) -> int:
        """Traces of a step, of both images of every pair; the images themselves where the method has no traces."""
        return 2 * self.pairs_per_step * (self.num_traces if self.way.needs.traces else 1)

    @property
    def num_batches(self) -> int:
        """Times that traces are drawn; the last batch may be left before all its updates."""
        return -(-self.steps // self.updates_per_batch)

    @property
    def kl(self) -> float:
        """Weight of the KL term."""
        return float(self.way.needs.kl if self.loss.kl is None else self.loss.kl)

    @property
    def stage(self) -> str:
        """The name of its curves."""
        return "gcpo" if self.output == "08_rrm_gcpo" else f"gcpo/{self.output}"

    def start(self, run_dir: Path) -> str | Path:
        """The checkpoint to start from."""
        return self.model or run_dir / "06_rrm_sft"


def run(config: Config, run_dir: Path) -> Checkpoint:
    """Trains the model and returns where it lies. Resumes a killed run; a finished one is not repeated.

    Raises ConfigError for a model that cannot be loaded, DataError for missing pairs, or an `unseen_share` that leaves none.
    """
    config.machine.accumulation(config.rows)  # before anything is read
    store = Run.open(run_dir, create=False)
    with_same = config.reward.same_tolerance is not None
    pairs = read_pairs(store, with_same, limit=config.max_pairs, unseen_share=config.unseen_share)
    rows = pair_rows(store, pairs, config.prompt_id, config.num_batches * config.pairs_per_step, config.seed)
    shown = {"pair_accuracy": "pair accuracy", "win_ratio": "win ratio", "parse_rate": "parsed"}
    traces, start = config.way.needs.traces, config.start(store.dir)
    if not traces and (with_same or config.held_out.every or config.trained.lora_rank is not None):
        raise ConfigError(f"gcpo.method={config.method.id} has no traces: no reward.same_tolerance, no held_out.every and no lora_rank")

    from editr1.training.pair_gaps import start_gaps, stratified
    from editr1.training.trainer import lasting, train  # torch, transformers and trl take seconds to import

    config = replace(config, thinking=asking(start, config.prompt_id, thinking=config.thinking).thinking)

    def build(resume: str | None) -> tuple[Any, Any]:
        order = rows.order
        if config.strata.shares is not None:
            cache = store.dir / config.output / "gaps.json"
            gaps = start_gaps(rows, cache, start, config.generation, config.strata.num_traces, config.thinking)
            order = stratified(gaps, len(order), config.strata, config.seed)
        return (_trainer if traces else _head_trainer)(config, store, replace(rows, order=order), resume)

    _held = hold(store.dir / config.output)  # until this function ends
    made_from = lasting(store, config, "07_pairs", model=start)
    return train(store, config.stage, config.output, made_from, len(pairs), shown, build, config.machine, config.silent_steps)


def memory(config: Config, run_dir: Path, card: float) -> Memory | None:
    """GiB that this launch needs of a card; None for a model whose sizes are not known here."""
    return _job(config).memory_here(config.start(run_dir), card)


def _job(config: Config) -> cost.Job:
    how, drawn, sampled = config.generation, config.rows, None
    if config.way.needs.traces:
        at_once = min(how.batch_size, drawn) if config.share_prompts else drawn
        sampled = cost.Sampled(how.engine, at_once, how.max_tokens, how.vllm_memory, config.num_batches * drawn)
    reference = bool(config.kl) and config.trained.lora_rank is None
    return cost.Job(config.trained, config.picture, config.machine, config.steps * drawn, sampled, reference)


def plan(config: Config, run_dir: Path) -> list[str]:
    """What a dry run prints."""
    model = config.start(run_dir)
    costs = _job(config).lines("gcpo", model)
    if not config.way.needs.traces:
        head = f"gcpo: {model}, {config.trained.scope} and a scalar head, learning by {config.method.id} without traces"
        return [head, f"gcpo: {config.steps} steps of {config.pairs_per_step} pairs x 2 images", *costs]
    clip = "never acts (one update a batch)" if config.updates_per_batch == 1 else f"1 +- {config.clip:g} on the ratio of a token"
    kl = f"KL x {config.kl:g} to the start" if config.kl else "no KL term"
    return [
        f"gcpo: {model}, {config.trained.scope}, learning by {config.method.id}",
        f"gcpo: {config.steps} steps of {config.pairs_per_step} pairs x 2 images x {config.num_traces} traces",
        f"gcpo: {config.num_batches * config.rows} traces of at most {config.generation.max_tokens} tokens; clip {clip}; {kl}",
        *costs,
    ]


def _trainer(config: Config, store: Run, rows: PairRows, resume: str | None = None) -> tuple[Any, Any]:
    """TRL's trainer over the adjacent rows of the pairs, and the processor."""
    from trl import GRPOConfig

    from editr1.training.model import frozen_dtype, load_model, load_processor, lora_config, mask_scores
    from editr1.training.pair_reward import PairReward
    from editr1.training.pair_trainer import PairTrainer, keep_on_policy, picture_budget, prepare_reference, start_from
    from editr1.training.shared_prefix import share_prefixes
    from editr1.training.trainer import as_dataset, common_arguments, optimizers, weights_to_load
    from editr1.vlm.base import forbidden_tokens

    path = config.start(store.dir)
    processor = load_processor(path, config.picture)
    processor.tokenizer.padding_side = "left"  # the trainer pads prompts on the left, and the processor's token types must agree
    model = load_model(weights_to_load(path, resume), config.trained, frozen_dtype(config.machine))
    start_from(model, path)
    forbidden = forbidden_tokens(model, processor)
    arguments = common_arguments(store.dir / config.output, config.schedule, config.machine, config.steps, config.rows, config.seed)
    how = config.generation
    sampling = Sampling(how.temperature, how.top_p, how.max_tokens)
    with picture_budget(config.picture):
        trainer = PairTrainer(
            model=model,
            reward_funcs=PairReward(config.reward, max_tokens=how.max_tokens, method=config.way),
            args=GRPOConfig(**arguments, **_objective(config), **_generation(config, forbidden)),
            train_dataset=as_dataset(len(rows), rows.__getitem__, rows_kept=2 * config.pairs_per_step),
            processing_class=processor,
            peft_config=lora_config(config.trained),
            optimizers=optimizers(model, config.schedule),
            rollout_func=_rollout(config, rows, processor, sampling) if config.share_prompts else None,
        )
    keep_on_policy(trainer, how.engine, processor)
    mask_scores(model, forbidden)
    if config.share_prompts and not share_prefixes(model):
        raise ConfigError(f"gcpo.share_prompts: {type(model).__name__} does not tell its positions; set it to false")
    prepare_reference(trainer, processor, config.share_prompts)
    if config.held_out.every:
        trainer.add_callback(_held_out(config, store, trainer, processor, sampling))
    return trainer, processor


def _held_out(config: Config, store: Run, trainer: Any, processor: Any, sampling: Sampling) -> Any:
    from editr1.training.pair_gaps import HeldOutAccuracy, not_right, start_gaps

    how, options, folder = config.generation, config.held_out, store.dir / config.output
    watched = held_out_rows(store, config.prompt_id, options.num_pairs)
    if options.hard:
        cache, start = folder / "held_out_gaps.json", config.start(store.dir)
        watched = not_right(watched, start_gaps(watched, cache, start, how, options.num_traces, config.thinking))
    return HeldOutAccuracy(store, watched, trainer, processor, sampling, how.batch_size, options, folder, config.stage)


def _head_trainer(config: Config, store: Run, rows: PairRows, resume: str | None = None) -> tuple[Any, Any]:
    """The trainer of a scalar head over the adjacent rows of the pairs, and the processor."""
    from editr1.training.model import add_head, frozen_dtype, load_model, load_processor
    from editr1.training.pair_trainer import head_trainer
    from editr1.training.trainer import as_dataset, common_arguments, optimizers, weights_to_load

    path = config.start(store.dir)
    weights = weights_to_load(path, resume)
    model = add_head(load_model(weights, config.trained, frozen_dtype(config.machine)), weights)
    arguments = common_arguments(store.dir / config.output, config.schedule, config.machine, config.steps, config.rows, config.seed)
    data, processor = as_dataset(len(rows), rows.__getitem__, rows_kept=2 * config.pairs_per_step), load_processor(path, config.picture)
    moved, template = optimizers(model, config.schedule), template_settings(config.thinking)
    return head_trainer(model, processor, data, config.way, arguments, moved, template), processor


def _rollout(config: Config, rows: PairRows, processor: Any, sampling: Sampling) -> Any:
    """Sampling that reads each prompt once, and draws flat pairs anew where asked for."""
    from editr1.training.shared_prefix import resampled, shared_rollout

    seeds = [config.seed, *(derive_seed(config.seed, "resample", number) for number in range(config.resample_flat))]
    draws = [shared_rollout(processor, sampling, config.generation.batch_size, seed, config.thinking) for seed in seeds]
    if len(draws) == 1:
        return draws[0]
    sizes = (config.num_traces, config.pairs_per_step)
    return resampled(draws, rows, processor.tokenizer, *sizes, config.reward, config.way, config.generation.max_tokens)


def _objective(config: Config) -> dict[str, Any]:
    """The objective in TRL's words; by default section 3.2's."""
    needs = config.way.needs
    scale = "group" if needs.scaled and needs.group == "image" else "none"
    return {
        "num_generations": config.num_traces,
        "num_iterations": config.updates_per_batch,
        "shuffle_dataset": False,  # rows of a pair must stay side by side; the order is shuffled pair by pair beforehand
        "beta": config.kl,  # paper: no KL term
        "scale_rewards": scale,  # paper: ratio - mean, no division by the deviation
        "multi_objective_aggregation": "sum_then_normalize",  # the other way divides by the deviation of the batch
        "loss_type": config.loss.type,
        "importance_sampling_level": config.loss.ratio,
        "epsilon": config.clip,
        "epsilon_high": config.clip if config.loss.clip_high is None else config.loss.clip_high,
        "chat_template_kwargs": template_settings(config.thinking),
    }


def _generation(config: Config, forbidden: list[int]) -> dict[str, Any]:
    how = config.generation
    settings: dict[str, Any] = {"temperature": how.temperature, "top_p": how.top_p, "max_completion_length": how.max_tokens}
    if how.engine == "transformers":
        return settings | {"generation_kwargs": {"suppress_tokens": forbidden}}  # the trainer forbids the picture token alone
    settings["generation_kwargs"] = {"logit_bias": dict.fromkeys(forbidden, -100.0)}
    settings |= {"use_vllm": True, "vllm_mode": how.engine.removeprefix("vllm_")}
    settings["vllm_importance_sampling_correction"] = how.importance_correction
    colocate = how.engine == "vllm_colocate"
    return settings | ({"vllm_gpu_memory_utilization": how.vllm_memory} if colocate else {"vllm_server_base_url": how.vllm_url})
