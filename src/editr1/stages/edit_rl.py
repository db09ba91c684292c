"""Train an editor by Flow-GRPO with the RRM as its only reward, into 09_editor (paper, section 4).

02_principles + an editor + a judge -> 09_editor (LoRA or transformer, checkpoints, gallery). `train` below is the algorithm; its
steps live in `editr1.flow`, its equations in `editr1.objectives`.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

from editr1.algorithms.base import Needs
from editr1.config import create, load, to_plain
from editr1.errors import ConfigError
from editr1.flow.config import Config
from editr1.flow.contexts import Context, EncodingCache, check_enough, fitting, read_contexts, share_of_process, without_encoders
from editr1.flow.curation import Drawn, answer, ask, curated, due, evaluate, first_pass, note_best, note_principles, redraw, write_gallery
from editr1.flow.plan import VELOCITY_BETA, describe_plan, memory_of
from editr1.flow.policy import Policy, export, make_optimizer, spread
from editr1.flow.rewarding import RewardCollector, Score, all_constant, check_unscored, judge_logs, reward_table
from editr1.flow.rollout import engine_of
from editr1.flow.state import State, checkpoints, load_state, save_state, save_weights
from editr1.flow.trainer import Trainer, teacher_of
from editr1.flow.watch import Clock, Symptoms, check_constant, hacked, warning_of
from editr1.judge.item import RewardItem, check_alive
from editr1.memory import Memory
from editr1.placement import compile_blocks, make_accelerator
from editr1.schema import Reward
from editr1.store import Run, hold

__all__ = ["Config", "EditRLResult", "memory", "plan", "run"]

FOLDER = "09_editor"
MAY_CHANGE = frozenset({
    "iterations", "evaluation", "limits", "save_every", "keep_checkpoints", "gallery_every", "keep_graphs", "cache_encodings", "placement",
    "trackers",
})  # fmt: skip
"""Settings that may differ between two halves of a run: what a step teaches does not depend on them (on `iterations` where rates fall)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EditRLResult:
    """What came out."""

    iterations: int
    """Finished, those before a resume included."""
    exported: Path
    """`lora` or `transformer` folder, with the averaged (or best) weights."""
    best: float | None
    """Best held-out evaluation in points of tau; None when none was asked for."""
    seconds: float
    """Time of this call; 0 when all iterations had been made before."""

    def __str__(self) -> str:
        best = "" if self.best is None else f", best held-out reward {self.best:.2f}"
        return f"{self.iterations} iterations in {self.seconds:.0f} s{best} -> {self.exported}"


def plan(config: Config, run_dir: Path) -> list[str]:
    """What the run will cost, before any weight is loaded."""
    return describe_plan(config)


def memory(config: Config, run_dir: Path, card: float | None = None) -> Memory | None:
    """GiB a card by part; None for editors that state no footprint."""
    return memory_of(config)


def run(config: Config, run_dir: Path) -> EditRLResult:
    """Trains, resuming from the newest checkpoint in the run directory.

    Raises UnscoredError when the judge fails too often, NoSignalError when it sees no differences, BackendError when the first replay
    does not reproduce the rollout or a gradient is not finite, ConfigError and DataError for wrong settings and inputs.
    """
    run_ = Run.open(run_dir, {"edit_rl": to_plain(config)})
    tasks, held_out = read_contexts(run_, config.evaluation.held_out if config.evaluation.every else 0.0, config.source == "pairs")
    check_enough(tasks, held_out, config)
    folder = run_.dir / FOLDER
    _held = hold(folder)  # until this function ends
    run_.claim(FOLDER, "edit_rl", lasting(config, run_))
    accelerator = start(config, folder)  # before editor and judges: it decides this process' device
    share_of_process(range(config.contexts), 0, accelerator.num_processes)  # raises before weights are loaded
    components = [config.reward, *(further.judge for further in config.further_rewards), *filter(None, [config.evaluation.reward])]
    judges = [create("judges", component) for component in components]
    check_alive(*judges)
    scores = [judge_function(judge) for judge in judges]
    judge = scores.pop() if config.evaluation.reward else scores[0]
    encodings = EncodingCache(folder / "encodings", config) if config.cache_encodings else None
    needed = [*tasks, *held_out[: config.evaluation.tasks]]
    trainer = make_trainer(config, load_editor(config, encodings, needed), scores, folder, encodings, accelerator)
    if encodings is not None:
        encode_ahead(trainer, encodings, needed)
    resume(trainer, folder / "checkpoints")
    begun = trainer.state.iteration < config.iterations
    started = time.monotonic()
    try:
        train(trainer, tasks, held_out[: config.evaluation.tasks], judge, run_)
    finally:
        trainer.close()
    result = finish(trainer, folder, time.monotonic() - started if begun else 0.0)
    accelerator.end_training()
    return result


def lasting(config: Config, run_: Run) -> dict[str, Any]:
    """The settings and inputs that the weights depend on."""
    kept = {key: value for key, value in to_plain(config).items() if key not in MAY_CHANGE}
    kept["held_out"] = config.evaluation.held_out if config.evaluation.every else 0.0
    if config.training.final_lr_share != 1.0:  # the rates of a step then depend on how many come after it
        kept["iterations"] = config.iterations
    return run_.made_from(kept, "07_pairs" if config.source == "pairs" else "02_principles")


def start(config: Config, folder: Path) -> Any:
    """The processes of the run. Raises ConfigError for launchers that would shard a model which nobody hands them."""
    accelerator = make_accelerator(config.placement, log_with=list(config.trackers) or None, project_dir=folder)
    kind = str(accelerator.distributed_type.value)
    if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise ConfigError(
            f"accelerate was started for {kind}, which editor RL does not use: launch with recipes/accelerate/8_gpus.yaml, and set "
            "edit_rl.training.shard to spread the weights over the processes (FSDP2)"
        )
    if config.trackers:
        accelerator.init_trackers("edit_rl")
    return accelerator


def resume(trainer: Trainer, checkpoints_: Path) -> None:
    """Continues from the newest checkpoint, all processes from the same. Raises ConfigError where they see different ones."""
    if done := checkpoints(checkpoints_):
        load_state(trainer.state, done[-1])
    seen = trainer.gather(torch.tensor([trainer.state.iteration])).tolist()
    if len(set(seen)) > 1:
        raise ConfigError(f"processes see checkpoints of iterations {seen}: put the run directory on a file system that all share")


def train(trainer: Trainer, tasks: Sequence[Context], held_out: Sequence[Context], judge: Score, run_: Run) -> None:
    """The algorithm box: sample groups, score them, compare inside groups, move the policy."""
    config, state = trainer.config, trainer.state
    main = trainer.accelerator.is_main_process
    if config.curation.first_pass:
        tasks, left = first_pass(trainer, tasks, trainer.collectors[0].score, run_.dir / FOLDER)
        logger.info("edit-rl: the first pass kept %d tasks, %d were all good, %d all bad", *map(int, left.values()))
    first, signs = state.iteration, Symptoms(run_, state.iteration)
    ahead: Drawn | None = None
    for iteration in tqdm(range(first, config.iterations), "edit-rl", config.iterations, unit="it", initial=first, disable=not main):
        if config.evaluation.patience and state.num_without_best >= config.evaluation.patience:
            break
        if config.evaluation.hacking and hacked(signs.points, config.evaluation.hacking):
            logger.warning(warning_of("stopped", f"held-out rewards fell {config.evaluation.hacking} times while the training reward rose"))
            break
        clock = Clock()
        staleness = trainer.push(iteration, clock)
        drawn = ahead or ask(trainer, trainer.own_contexts(tasks, iteration), iteration, clock, state.behind)
        if config.rollout_ahead and iteration + 1 < config.iterations:
            ahead = ask(trainer, trainer.own_contexts(tasks, iteration + 1), iteration + 1, clock)
        answer(trainer, drawn, clock)
        redrawn = trainer.gather(torch.tensor([redraw(trainer, drawn, tasks, iteration, clock)])).sum()

        tables_KCG = torch.stack([trainer.gather(reward_table(judged, config.group_size)) for judged in drawn.rewards])
        for table_CG, judged in zip(tables_KCG, drawn.rewards, strict=True):
            check_unscored(table_CG, config.limits.max_unscored, judged)
        advantages_CG = curated(trainer, trainer.advantages(tables_KCG), tables_KCG[0], drawn)
        trainer.keep_sampler()
        with clock.phase("update"):
            check = iteration == first and (first == 0 or not config.rollout_ahead)  # else its rollout is one update behind
            logs = trainer.update(drawn.trajectories, advantages_CG, ~tables_KCG.isnan().any(0), iteration, check=check)
        state.iteration = iteration + 1
        state.num_constant = state.num_constant + 1 if all_constant(advantages_CG) else 0

        logs |= staleness | judge_logs(tables_KCG, drawn.rewards) | {"train/abs_advantage": float(advantages_CG.abs().mean())}
        logs |= state.policy.drift() | {
            "curation/silent_groups": float((advantages_CG == 0).all(1).float().mean()),
            "curation/redrawn": float(redrawn),
        }
        if due(config.evaluation.every, state.iteration) and held_out:
            with clock.phase("evaluate"):
                trainer.rest()
                logs |= evaluate(trainer, held_out, judge, run_)
            if note_best(trainer, logs["evaluation/reward"]):
                save_weights(state, run_.dir / FOLDER / "best.safetensors", main)
        signs.add(logs)
        if main:
            record(trainer, run_, iteration, logs, clock, drawn.edits, drawn.rewards[0])
            signs.tell()
        if due(config.save_every, state.iteration):
            save_state(state, run_.dir / FOLDER / "checkpoints", config.keep_checkpoints, main)
        if trainer.teacher is None:  # a student hears no judge, however little that sees
            check_constant(state.num_constant, config.limits.max_constant)


def load_editor(config: Config, encodings: EncodingCache | None, needed: Sequence[Context]) -> Any:
    """The editor; without its text encoders when every task that is needed has been encoded before.

    What will be sharded is loaded on the CPU, so that no card ever holds all of it.
    """
    component = config.editor
    if encodings is not None and not encodings.missing(needed):
        component = without_encoders(component)
    elif encodings is not None:
        without_encoders(component)  # refuses editors that cannot release them, before an hour of encoding
    if config.training.shard and "device" in inspect.signature(load("editors", component.id)).parameters:
        component = dataclasses.replace(component, options={**component.options, "device": "cpu"})
    return fitting(create("editors", component), needed, config)


def encode_ahead(trainer: Trainer, encodings: EncodingCache, needed: Sequence[Context]) -> None:
    """Encodes what is missing, shared out over processes, and frees the text encoders."""
    accelerator = trainer.accelerator
    encodings.fill(trainer.editor, needed, rank=accelerator.process_index, world=accelerator.num_processes)
    accelerator.wait_for_everyone()
    cast(Any, trainer.editor).release_encoders()  # editors that `without_encoders` accepts have it


def make_trainer(
    config: Config, editor: Any, scores: Sequence[Score], folder: Path, encodings: EncodingCache | None = None, accelerator: Any = None
) -> Trainer:
    """Policy, optimiser and averages at iteration 0; `scores`: the main judge and further ones; trackers write into `folder`."""
    training = config.training
    accelerator = accelerator or start(config, folder)
    algorithm = create("algorithms", training.algorithm)
    needs: Needs = algorithm.needs
    cut = partial(spread, editor, accelerator, training.zero == 2) if training.shard else None
    policy = Policy(editor, training, config.seed, needs.reference or training.beta > 0, cut)
    if config.placement.compile:
        compile_blocks(policy.transformer)
    optimizer = make_optimizer(policy, training)
    state = State(
        policy,
        optimizer,
        ema=policy.snapshot() if training.ema_decay > 0 else None,
        old=policy.snapshot() if needs.old_decay is not None else None,
        behind=policy.snapshot() if config.rollout_ahead else None,
    )
    collectors = tuple(RewardCollector(score) for score in scores)
    if training.beta > 0 and not needs.noisy and training.kl != "velocity" and accelerator.is_main_process:
        logger.warning("edit-rl: %s has no noisy steps that %s could weigh: %s", training.algorithm.id, training.kl, VELOCITY_BETA)
    teacher, engine = teacher_of(config, needs, editor), engine_of(config, folder)
    return Trainer(config, algorithm, editor, state, collectors, accelerator, encodings, teacher, engine)


def judge_function(judge: Any) -> Score:
    """A judge as a function of edits. The judge sees source, edit, instruction and principles, never the editor."""

    def score(edits: Sequence[tuple[Context, Image.Image]], seed: int) -> Sequence[Reward]:
        items = [
            RewardItem(c.source(), image, c.task.instruction, c.principles, id=f"{c.id}/{index}") for index, (c, image) in enumerate(edits)
        ]
        return judge.score(items, seed)

    return score


def record(
    trainer: Trainer, run_: Run, iteration: int, logs: dict[str, float], clock: Clock,
    edits: Sequence[tuple[Context, Image.Image]], rewards: Sequence[Reward],
) -> None:  # fmt: skip
    """Logs that answer: is it training, what does it cost, what do the edits look like."""
    seconds = clock.read()
    logs |= seconds | {"cost/images_per_second": trainer.config.contexts * trainer.config.group_size / seconds["seconds/total"]}
    logs |= {"cost/reward_share": seconds.get("seconds/wait_for_rewards", 0.0) / seconds["seconds/total"]}
    if torch.cuda.is_available():
        logs["cost/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    note_principles(run_.dir / FOLDER, iteration, rewards)
    known = {name: value for name, value in logs.items() if math.isfinite(value)}
    run_.log("edit_rl", iteration, known)
    trainer.accelerator.log(known, step=iteration)
    if due(trainer.config.gallery_every, iteration + 1):
        write_gallery(run_, edits, rewards, Path(f"training_{iteration + 1:06d}.jsonl"))


def finish(trainer: Trainer, folder: Path, seconds: float = 0.0) -> EditRLResult:
    """Saves the last state and exports the weights that were asked for."""
    state, config = trainer.state, trainer.config
    main = trainer.accelerator.is_main_process
    save_state(state, folder / "checkpoints", config.keep_checkpoints, main)
    trainer.accelerator.wait_for_everyone()  # the best evaluation's file, for all that read it
    best = folder / "best.safetensors"
    if config.evaluation.choose == "best" and not best.exists():
        logger.warning("edit-rl: no evaluation has a score, so the last weights are exported in the place of the best")
    weights = load_file(best) if config.evaluation.choose == "best" and best.exists() else state.ema
    exported = export(state.policy, weights, folder, main)
    trainer.accelerator.wait_for_everyone()
    return EditRLResult(state.iteration, exported, state.best, seconds)
