"""Train SFT-RRM: a VLM learns to write the traces that the inspector let pass, into 06_rrm_sft (paper, section 3.1).

    02_principles 03_candidates 04_traces 05_inspections  ->  06_rrm_sft

One row is (x_ref, x_edit, q, P) -> the trace that the selector kept. Only the trace is learnt, never the prompt.
For comparison the stage also learns from traces that nobody inspected, or from rationales of human pairs (`lessons`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editr1.config import Component, create
from editr1.errors import ConfigError
from editr1.memory import Memory
from editr1.store import Run, hold
from editr1.training import cost
from editr1.training.options import Checkpoint, Machine, Picture, Schedule, Trained
from editr1.training.rows import (
    RATIONALES,
    Difficulty,
    Lesson,
    SelectedTraces,
    Source,
    Target,
    lesson_row,
    mixed,
    read_rationales,
    read_selected,
)


@dataclass(frozen=True)
class Config:
    """Settings of the stage. Values without a source are ours; the paper publishes none for SFT."""

    model: str
    """Checkpoint directory or hub id of an image-text-to-text model. paper: Qwen2.5-VL 3B and 7B."""
    prompt_id: str = "tv"
    """The question; whoever asks the trained model finds it beside the weights (`judge.item`)."""
    target: Target = "trace"
    """What of the kept trace is learnt: the whole (T+V), `verdicts` (V), `reasoning` (T), or the `score` alone (no principles)."""
    lessons: Source = "inspected"
    """Whose traces are learnt: those that the inspector kept, `uninspected` ones (any that parsed, drawn by seed: what the inspector
    is worth), or the `rationales` of `07_rationales` that explain people's pairs (what GCPO is worth on the same pairs)."""
    difficulty: Difficulty | None = None
    """Only tasks of this half of the cold-start data; None = both (paper: 100k + 100k)."""
    max_pairs: int | None = None
    """Only for `rationales`: the first so many pairs, as `gcpo.max_pairs` counts them."""
    output: str = "06_rrm_sft"
    """Folder of the run directory; a second student of the same data (a scorer without principles) takes another one."""
    steps: int = 2000
    batch_size: int = 128
    """Rows a step, over all processes."""
    group_by_length: bool = True
    """Put rows of like length into a batch: less padding, the same rows an epoch."""
    schedule: Schedule = field(default_factory=Schedule)
    trained: Trained = field(default_factory=Trained)
    picture: Picture = field(default_factory=Picture)
    thinking: bool | None = None
    """`enable_thinking` of the chat template; None = its default."""
    max_tokens: int | None = None
    """Tokens of an answer at most, for whoever asks the trained model (`judge.item`); training itself cuts nothing."""
    machine: Machine = field(default_factory=Machine)
    replay: Component | None = None
    """Further lessons, so that what the model knew is not unlearnt: a factory (`package.module:name`) of a function
    index -> Lesson."""
    replay_every: int = 4
    """Every n-th batch comes from `replay`."""
    held_out_share: float = 0.0
    """Share of the tasks that training must not see, because their pairs measure it: the same as `pairs.held_out_share`; more, where
    GCPO is to learn on pictures that SFT never saw (`gcpo.unseen_share`)."""
    silent_steps: int = 10
    """Steps in a row without a gradient after which training stops with an error, as it does when no step has one; 0 = never."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.replay_every < 2:
            raise ValueError("steps and batch_size must be at least 1, replay_every at least 2")
        self.machine.accumulation(self.batch_size, processes=1)  # this recipe may be read in another stage's processes
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 1")
        if self.max_pairs is not None and (self.lessons != "rationales" or self.max_pairs < 1):
            raise ValueError("max_pairs is at least 1, and for lessons=rationales")


def run(config: Config, run_dir: Path) -> Checkpoint:
    """Trains the model and returns where it lies. Resumes a killed run; a finished one is not repeated.

    Raises ConfigError for a model that cannot be loaded, DataError for tables that are missing or do not fit.
    """
    config.machine.accumulation(config.batch_size)  # before anything is read
    store = Run.open(run_dir, create=False)
    if config.lessons == "rationales":
        rows = read_rationales(store, config.difficulty, config.max_pairs)
    else:
        rows = read_selected(store, config.held_out_share, config.difficulty, config.lessons == "inspected")
    shown = {"loss": "loss", "mean_token_accuracy": "token accuracy"}

    from editr1.training.trainer import lasting, train  # torch, transformers and trl take seconds to import

    def build(resume: str | None) -> tuple[Any, Any]:
        return _trainer(config, store, SelectedTraces(store, rows, config.prompt_id, config.target), resume)

    stage = "sft" if config.output == "06_rrm_sft" else f"sft/{config.output}"
    _held = hold(store.dir / config.output)  # until this function ends
    tables = ["07_pairs", RATIONALES] if config.lessons == "rationales" else ["03_candidates", "04_traces"]
    tables += ["05_inspections"] if config.lessons == "inspected" else []
    made_from = lasting(store, config, *tables, model=config.model)
    return train(store, stage, config.output, made_from, len(rows), shown, build, config.machine, config.silent_steps)


def memory(config: Config, run_dir: Path, card: float) -> Memory | None:
    """GiB that this launch needs of a card; None for a model whose sizes are not known here."""
    return _job(config).memory_here(config.model, card)


def _job(config: Config) -> cost.Job:
    return cost.Job(config.trained, config.picture, config.machine, config.steps * config.batch_size)


def plan(config: Config, run_dir: Path) -> list[str]:
    """What a dry run prints."""
    vision = "frozen" if config.trained.freeze_vision or config.trained.last_blocks else "trained"
    return [
        f"sft: {config.model}, {config.trained.scope}, vision tower {vision}, target {config.target} of prompt {config.prompt_id}",
        f"sft: {config.steps} steps of {config.batch_size} rows -> {Path(run_dir) / config.output}",
        *_job(config).lines("sft", config.model),
    ]


def _trainer(config: Config, store: Run, lessons: SelectedTraces, resume: str | None = None) -> tuple[Any, Any]:
    """TRL's trainer over the lessons in their order, and the processor."""
    from trl import SFTConfig, SFTTrainer

    from editr1.training.model import frozen_dtype, load_model, load_processor, lora_config
    from editr1.training.trainer import as_dataset, common_arguments, optimizers, weights_to_load
    from editr1.vlm.base import template_settings

    processor = load_processor(config.model, config.picture)
    model = load_model(weights_to_load(config.model, resume), config.trained, frozen_dtype(config.machine))
    lengths = lessons.lengths() if config.group_by_length else None
    order = mixed(lessons, _replay(config), config.replay_every, config.batch_size, config.steps, config.seed, lengths)
    arguments = common_arguments(store.dir / config.output, config.schedule, config.machine, config.steps, config.batch_size, config.seed)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**arguments, max_length=None, train_sampling_strategy="sequential"),
        train_dataset=as_dataset(len(order), lambda index: lesson_row(order[index], template_settings(config.thinking))),
        processing_class=processor,
        peft_config=lora_config(config.trained),
        optimizers=optimizers(model, config.schedule),
    )
    return trainer, processor


def _replay(config: Config) -> Callable[[int], Lesson] | None:
    if config.replay is None:
        return None
    if ":" not in config.replay.id:
        raise ConfigError(f"sft.replay: {config.replay.id!r} must have the form 'package.module:factory'")
    made = create("training", config.replay)
    if not callable(made):
        raise ConfigError(f"sft.replay: {config.replay.id!r} must return a function index -> Lesson, found {type(made).__name__}")
    return made
