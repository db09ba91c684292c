"""The training parts of gpu_check.py: steps of SFT and GCPO by their recipes, on random weights of real size."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import _gpu_models as models
import numpy as np
from _gpu_rows import GIB, ROOT, Say, device, peak_gib, row, seconds, sync


def build_pairs(folder: Path, count: int, tiny: bool) -> Any:
    """A run of that many pairs of random pictures."""
    import gcpo_step

    gcpo_step.SIZE = 72 if tiny else 512
    return gcpo_step.build_run(folder / "run", count)


def read_pairs(run: Any) -> Any:
    from editr1.stages import gcpo

    return gcpo.read_pairs(run)


def train_vlm(stage: str, size: str, recipe: str, say: Say, tiny: bool, sharded: bool) -> None:
    """Two steps of a stage by its recipe, the second timed, on fewer traces than the recipe's; all weights are then saved."""
    from transformers import TrainerCallback

    from editr1.config import load_recipe, section
    from editr1.stages import gcpo, sft
    from editr1.training.trainer import save

    class Marks(TrainerCallback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            sync()
            self.at.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            sync()
            self.at.append(time.perf_counter())

    name = f"{stage} {size} {'full, FSDP2' if sharded else 'lora'}"
    if sharded and not tiny:
        _one_process_fsdp()
    where = device()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pairs = 1 if stage == "gcpo" else 2
        run = build_pairs(folder, 2, tiny)
        checkpoint = models.serve_from_memory("tiny" if tiny else size, where, folder / "checkpoint")
        module = {"sft": sft, "gcpo": gcpo}[stage]
        config = section(load_recipe(ROOT / "recipes" / recipe), stage, module.Config)
        precision = {"precision": "float32"} if tiny else {}
        machine = dataclasses.replace(config.machine, trackers=(), progress=False, save_every=10**6, **precision)
        config = dataclasses.replace(config, model=str(checkpoint), steps=2, machine=machine)
        if stage == "gcpo":
            generation = dataclasses.replace(config.generation, max_tokens=8 if tiny else 48, engine="transformers")
            traces = 2 if tiny else 4
            config = dataclasses.replace(config, pairs_per_step=pairs, num_traces=traces, generation=generation)
            rows = gcpo.pair_rows(run, gcpo.read_pairs(run), config.prompt_id, config.steps * pairs, 0)
            trainer, processor = gcpo._trainer(config, run, rows)
            trainer.reward_funcs = [_Alternating(config.way)]  # random weights parse nowhere: a reward of its own makes a gradient
        else:
            config = dataclasses.replace(config, batch_size=machine.micro_batch * (1 if tiny else 2))
            if "lora" in name:
                config = dataclasses.replace(config, trained=dataclasses.replace(config.trained, lora_rank=64, lora_alpha=128.0))
            trainer, processor = sft._trainer(config, run, _Lessons(run, 4 if tiny else 160))
        trainer.args.save_strategy = "no"  # transformers saves at the last step too, with 30 GB of optimizer states
        marks = Marks()
        trainer.add_callback(marks)
        trainer.train()
        norms = [float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry]
        sound = bool(norms) and bool(np.isfinite(norms).all()) and min(norms) > 0
        say(row(f"{name}: first step, s", marks.at[1] - marks.at[0]))
        say(row(f"{name}: a step, s", marks.at[-1] - marks.at[-2], "gradient finite, not 0", sound, grad_norms=norms))
        if (peak := peak_gib()) is not None:
            say(row(f"{name}: peak, GiB", peak, "at most 80", peak <= 80))
        if sharded and stage == "sft":
            saved = seconds(lambda: save(trainer, processor, folder / "saved"))
            size = sum(file.stat().st_size for file in (folder / "saved").glob("*.safetensors"))
            numbers = sum(p.numel() for p in trainer.model.parameters())
            say(row(f"{name}: saved, s", saved, "bytes of all weights", size >= 2 * numbers, gib=round(size / GIB, 1)))


@dataclasses.dataclass(frozen=True)
class _Alternating:
    """A reward that tells the traces of a group apart."""

    method: Any

    def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [float(index % 2) for index in range(len(completions))]


class _Lessons:
    """Supervised rows over the pairs of a run: prompts of the stage, completions of a length."""

    def __init__(self, run: Any, words: int) -> None:
        self._run, self._pairs, self._words = run, read_pairs(run), words

    def __len__(self) -> int:
        return len(self._pairs)

    def lengths(self) -> list[int]:
        return [self._words] * len(self)

    def __getitem__(self, index: int) -> Any:
        from editr1.judge.prompts import render_score
        from editr1.training.rows import Lesson

        pair = self._pairs[index]
        pictures = (self._run.images.get(pair.task.source), self._run.images.get(pair.a.image))
        return Lesson(render_score("tv", *pictures, pair.task.instruction, pair.principles), "red " * self._words)


def _one_process_fsdp() -> None:
    """What `accelerate launch --config_file recipes/accelerate/verifier_fsdp2.yaml --num_processes 1` sets."""
    import yaml

    settings = yaml.safe_load((ROOT / "recipes" / "accelerate" / "verifier_fsdp2.yaml").read_text(encoding="utf-8"))
    plain = {name.upper(): str(value) for name, value in settings["fsdp_config"].items()}
    plain["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # weights are drawn on the card, there is nothing to load
    os.environ.update(plain)
    os.environ.update(
        {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": settings["mixed_precision"], "RANK": "0", "LOCAL_RANK": "0",
         "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    )  # fmt: skip
