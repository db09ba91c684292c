"""Run by torchrun from test_processes.py: trains the toy in several ways and writes what each process ends with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

import editr1  # noqa: F401  (its torchvision hook must come before diffusers)
import toy
from editr1.config import Component
from editr1.flow.config import Config, Evaluation, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.policy import gathered
from editr1.flow.state import checkpoints, load_state
from editr1.stages.edit_rl import finish, make_trainer, train
from editr1.store import Run


def settings(std, algorithm):
    shard = algorithm in ("sharded", "full", "zero2")  # grpo with the frozen weights, or all of them, spread over the processes
    zero = 2 if algorithm == "zero2" else 3
    weights = "full" if algorithm in ("full", "zero2") else "lora"
    algorithm = "grpo" if shard else algorithm
    training = Training(
        weights=weights, rank=4, alpha=8, lr=1.0, beta=0.01, std=std, algorithm=Component(algorithm), shard=shard, zero=zero
    )  # fmt: skip
    return Config(
        Component("toy:build"), Component("toy:RednessJudge"), group_size=4, contexts=4, iterations=3, save_every=0,
        contexts_per_batch=1 if shard else 2,
        sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), training=training,
        evaluation=Evaluation(every=3, tasks=3, steps=2, held_out=0.4), gallery_every=0,
    )  # fmt: skip


class Gathers(TorchDispatchMode):
    """Counts how often weights are gathered from all processes."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.c10d._allgather_base_.default
        return function(*args, **(kwargs or {}))


def learn(run_dir, std, algorithm):
    """Returns the accelerator, for what comes after the last way."""
    run = Run.open(run_dir)
    config = settings(std, algorithm)
    trainer = make_trainer(config, toy.ToyEditor(), [toy.score_redness], run.dir / "09_editor")
    # plain steps: Adam divides by a gradient's own size, so that an element near 0 turns rounding into per cents of a step
    trainer.state.optimizer = torch.optim.SGD(trainer.state.policy.params.values(), lr=1.0)
    start = gathered(trainer.state.policy.snapshot())
    tasks, held = read_contexts(run, config.evaluation.held_out)
    with Gathers() as gathers:
        train(trainer, tasks, held[:3], toy.score_redness, run)
    (run.dir / "gathers.txt").write_text(str(gathers.count))
    accelerator = trainer.accelerator
    moved = {name: value - start[name] for name, value in gathered(trainer.state.policy.params).items()}
    save_file(moved, run.dir / f"end_{accelerator.num_processes}_{accelerator.process_index}.safetensors")
    finish(trainer, run.dir / "09_editor")
    state, (*_, last) = trainer.state, checkpoints(run.dir / "09_editor" / "checkpoints")
    ended = [gathered(weights) for weights in (state.policy.snapshot(), state.ema or {})]
    state.policy.load({name: torch.zeros_like(value) for name, value in ended[0].items()})
    load_state(state, last)  # whole tensors, cut again
    for weights, wanted in zip((state.policy.params, state.ema or {}), ended, strict=True):
        assert all(torch.equal(value, wanted[name]) for name, value in gathered(weights).items())
    return accelerator


def main(root, world, *ways):
    """Each way, such as `group-nft`, in a run of its own: one start of the processes for all of them."""
    torch.set_num_threads(1)
    for way in ways:
        accelerator = learn(f"{root}/{way}_{world}", *way.split("-"))
    if accelerator.num_processes > 1:  # gloo's threads must end before the interpreter does
        accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
