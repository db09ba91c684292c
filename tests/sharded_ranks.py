"""Run by torchrun in `test_sharded.py`: one GCPO step with shared prompts on this rank's rows, then held-out scoring. Rank 0 writes it.

With several processes every weight is sharded by torch's own `fully_shard`, wrapped as accelerate wraps a model on GPUs (its CPU path
falls back to DDP without a word).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from editr1.schema import Judgement
from editr1.stages import gcpo
from editr1.store import Run
from editr1.training import pair_reward
from editr1.training.options import HeldOut, Machine
from editr1.training.pair_gaps import HeldOutAccuracy
from editr1.training.rows import PairRows
from editr1.vlm.base import Sampling


def judged(text: str, *_: Any, **__: Any) -> Judgement:
    """A score that the trace alone decides, so that every layout judges it alike."""
    return Judgement((), sum(text.encode()) % 100 / 10)


def shard(model: Any) -> None:
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    decoder, head, words = model.get_decoder(), model.get_output_embeddings(), model.get_input_embeddings()
    for layer in decoder.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    tail = [decoder.norm, words, head] if words.weight is head.weight else [decoder.norm, head]
    fully_shard(tail, mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh)


def main(verifier: str, run_dir: str, output: str) -> None:
    run, world = Run.open(run_dir), int(os.environ.get("WORLD_SIZE", "1"))
    machine = Machine(micro_batch=12 // world, activation_checkpointing=False, trackers=(), progress=False)
    how = gcpo.Generation(max_tokens=6)
    config = gcpo.Config(
        verifier, "compact_direct", steps=1, pairs_per_step=2, num_traces=3, share_prompts=True, generation=how, machine=machine
    )
    pairs = gcpo.read_pairs(run)
    rows = gcpo.pair_rows(run, pairs, config.prompt_id, 2, 0)
    trainer, processor = gcpo._trainer(config, run, rows)
    rank, share = trainer.accelerator.process_index, 12 // world
    if world > 1:
        shard(trainer.model)
        assert all(isinstance(p, DTensor) for p in trainer.model.parameters())
    trainer.model.train()
    optimizer = torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad], lr=1e-3)
    local = [trainer.train_dataset[i // 3] for i in range(rank * share, (rank + 1) * share)]
    with mock.patch.object(pair_reward, "parse", judged):
        scored = trainer._generate_and_score_completions(local)
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer._compute_loss(trainer.model, scored)
        loss.backward()
        gradients = {name: whole(p.grad) for name, p in trainer.model.named_parameters() if p.grad is not None}
        optimizer.step()
        watched = PairRows(run, pairs, list(range(len(pairs))), config.prompt_id)
        look = HeldOutAccuracy(run, watched, trainer, processor, Sampling(0.0, 1.0, 6), 8, HeldOut(1, 2, 2), Path(output).parent)
        figures = look.measure()
    found = {
        "loss": trainer.accelerator.gather(loss.detach()[None]).mean().item(),
        "traces": trainer.accelerator.gather(scored["completion_mask"].sum(1)).tolist(),
        "gradients": {name: gradient.flatten().tolist() for name, gradient in gradients.items()},
        "weights": {name: whole(p).flatten().tolist() for name, p in trainer.model.named_parameters() if p.requires_grad},
        "held_out": figures,
    }
    if rank == 0:
        Path(output).write_text(json.dumps(found))
    if world > 1:
        trainer.accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


if __name__ == "__main__":
    main(*sys.argv[1:])
