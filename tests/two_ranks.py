"""Run by torchrun in `test_two_processes.py`: one GCPO batch on this rank's share of the rows; rank 0 writes what all ranks got."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from editr1.schema import Judgement, ParseFailure
from editr1.stages import gcpo
from editr1.store import Run
from editr1.training import pair_reward
from editr1.training.options import Machine

SCORES = (7.0, 5.0, None, 5.0, 6.0, 2.0, 4.0, 4.0, 4.0, 1.0, 9.0, 4.0)  # two pairs, both sides, three traces


def main(verifier: str, run_dir: str, output: str) -> None:
    """Traces are scored by their place in the whole batch, so that every layout of ranks judges the same traces."""
    run = Run.open(run_dir)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    config = gcpo.Config(
        model=verifier,
        prompt_id="compact_direct",
        steps=1,
        pairs_per_step=2,
        num_traces=3,
        generation=gcpo.Generation(max_tokens=4),
        machine=Machine(micro_batch=12 // world, activation_checkpointing=False, trackers=(), progress=False),
    )
    trainer, _ = gcpo._trainer(config, run, gcpo.pair_rows(run, gcpo.read_pairs(run), config.prompt_id, 2, 0))
    assert trainer.accelerator.num_processes == world, f"{trainer.accelerator.num_processes} processes, expected {world}"
    rank, share = trainer.accelerator.process_index, 12 // world
    mine = iter(SCORES[rank * share : (rank + 1) * share])

    def judged(*_: Any, **__: Any) -> Any:
        score = next(mine)
        return ParseFailure("NO_SCORE") if score is None else Judgement((), score)

    reward = trainer.reward_funcs[0]
    ratios: list[float] = []

    def keep(**kwargs: Any) -> list[float]:
        ratios.extend(reward(**kwargs))
        return ratios

    keep.method = reward.method
    trainer.reward_funcs[0] = keep
    trainer.model.train()
    rows = [trainer.train_dataset[i // 3] for i in range(rank * share, (rank + 1) * share)]
    with mock.patch.object(pair_reward, "parse", judged):
        scored = trainer._generate_and_score_completions(rows)
    found = {"ratios": trainer.accelerator.gather(torch.tensor(ratios)), "advantages": trainer.accelerator.gather(scored["advantages"])}
    found["pair_accuracy"] = torch.tensor(trainer._metrics["train"]["pair_accuracy"])
    if rank == 0:
        Path(output).write_text(json.dumps({name: values.tolist() for name, values in found.items()}))
    if world > 1:  # gloo's threads must end before the interpreter does: a rank that leaves first can abort the other
        trainer.accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
