"""The parts of gpu_check.py. Each builds what it needs, says what it saw by `say(row)`, and ends; its process dies with it.

A row: what was measured, its value, the goal that was stated before, and whether it holds (None = a figure without a goal).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _gpu_models as models
import numpy as np
import torch
from _gpu_rows import GIB, ROOT, Say, device, peak_gib, row, seconds, sync
from _gpu_training import build_pairs, read_pairs, train_vlm
from PIL import Image

CLIP_SHARE = 0.1  # the first ratio may be off by a tenth of the clip range
MATRIX_SHARE = 0.70  # of the card's measured bf16 matrix rate


def matrix_rate(say: Say, tiny: bool, _: float) -> None:
    """bf16 products of square matrices."""
    side = 256 if tiny else 8192
    where = device()
    a, b = (torch.randn(side, side, device=where, dtype=torch.bfloat16) for _ in range(2))
    seconds(lambda: a @ b, 3)
    rate = 2 * side**3 / seconds(lambda: a @ b, 20) / 1e12
    say(row("bf16 matrix rate, TFLOP/s", rate, rate=rate))


RECIPES = {
    "kontext": ("edit_rl_kontext_80gb.yaml", models.kontext, 80.0),
    "qwen_image_edit": ("edit_rl_qwen_image_edit_80gb.yaml", models.qwen, 80.0),
    "klein": ("edit_rl_klein_small_gpu.yaml", models.klein, 24.0),
}


class Counted:
    """Model FLOP of a transformer's forwards and their backwards, counted by the rows and tokens that went through."""

    def __init__(self, transformer: Any, checkpointing: bool) -> None:
        self.flop, self._size = 0.0, sum(p.numel() for p in transformer.parameters())
        self._backward = 2 if checkpointing else 1  # frozen weights: one pass for the activations, one more forward when recomputed
        transformer.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tokens = kwargs["hidden_states"].shape[1] + kwargs["encoder_hidden_states"].shape[1]
        passes = 1 + (self._backward if torch.is_grad_enabled() else 0)
        self.flop += 2.0 * self._size * tokens * kwargs["hidden_states"].shape[0] * passes


def editor_rl(name: str, say: Say, tiny: bool, rate: float) -> None:
    """Three iterations of the shipped recipe, one context each: ratio, finite figures, seconds, rate, peak."""
    from editr1.config import load_recipe, section
    from editr1.flow.config import Config
    from editr1.flow.contexts import Context
    from editr1.schema import EditTask
    from editr1.stages.edit_rl import make_trainer
    from editr1.store import Run

    recipe, build, budget = RECIPES[name]
    where = device()
    if where.type == "cuda":
        total = torch.cuda.get_device_properties(where).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget * GIB / total))
    begin = time.perf_counter()
    editor = build(where, tiny)
    sync()
    say(row(f"{name}: built, s", time.perf_counter() - begin))
    config = section(load_recipe(ROOT / "recipes" / recipe), "edit_rl", Config)
    side = {"height": 64, "width": 64} if tiny else {}
    config = dataclasses.replace(config, contexts=1, trackers=(), keep_aspect=False, **side)
    counted = Counted(editor.transformer, config.training.gradient_checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.open(Path(folder) / "run")
        pixels = np.random.default_rng(0).integers(0, 255, (config.height, config.width, 3), dtype=np.uint8)
        contexts = [Context(EditTask.make(run.images.put(Image.fromarray(pixels)), "edit it"), (), run)]
        trainer = make_trainer(config, editor, [_brightness], run.dir)
        for number in range(3):
            counted.flop = 0.0
            sync()
            begin = time.perf_counter()
            logs = _iteration(trainer, contexts, number, say if number == 0 else None, name)
            sync()
            _report_iteration(say, name, number, time.perf_counter() - begin, counted.flop, logs, rate, config.group_size)
        trainer.close()
    if (peak := peak_gib()) is not None:
        say(row(f"{name}: peak, GiB", peak, f"at most {budget:g}", peak <= budget))


def _brightness(edits: Any, seed: int) -> list[Any]:
    """A judge that costs nothing."""
    from editr1.schema import Reward

    return [Reward(float(np.asarray(image).mean()) / 25.5 + index / 100, 1, 1) for index, (_, image) in enumerate(edits)]


def _iteration(trainer: Any, contexts: list[Any], number: int, say: Say | None, name: str) -> dict[str, float]:
    """One iteration as stages/edit_rl.py runs it; `say` hears how far it is, so that a part that is cut tells where."""
    from editr1.flow.rewarding import reward_table
    from editr1.flow.trainer import iteration_window
    from editr1.flow.watch import Clock
    from editr1.objectives.advantages import group_advantages

    clock, paths = Clock(), []
    window = iteration_window(trainer.config, trainer.algorithm.needs, number)
    for plan, batch in trainer.batches(contexts, trainer.config.contexts_per_batch):
        begin = time.perf_counter()
        paths.append(trainer.sample(batch, plan, window, number, clock))
        sync()
        if say:
            say(row(f"{name}: first rollout, s", time.perf_counter() - begin))
        begin = time.perf_counter()
        trainer.submit(paths[-1], batch, number, clock)
        if say:
            say(row(f"{name}: first decoding, s", time.perf_counter() - begin))
    table = trainer.gather(reward_table(trainer.collectors[0].collect(), trainer.config.group_size))
    logs: dict[str, float] = trainer.update(paths, group_advantages(table), ~table.isnan(), number, check=number == 0)
    return logs


def _report_iteration(say: Say, name: str, number: int, spent: float, flop: float, logs: dict[str, float], rate: float, group: int) -> None:
    error, finite = logs["train/ratio_error_max"], bool(np.isfinite(list(logs.values())).all())
    if number == 0:
        say(row(f"{name}: first |ratio - 1|", error, "below clip / 10 = 1e-5", error < 1e-4 * CLIP_SHARE))
    say(row(f"{name}: iteration {number}, s", spent, "finite loss and gradient", finite, images_per_s=round(group / spent, 3)))
    if number and rate:
        rate_here = flop / spent / 1e12
        holds = rate_here / rate >= MATRIX_SHARE if torch.cuda.is_available() else None
        goal = f"at least {MATRIX_SHARE}"
        say(row(f"{name}: share of the matrix rate", rate_here / rate, goal, holds, tflop_per_s=round(rate_here, 1)))


def local_scoring(say: Say, tiny: bool, _: float) -> None:
    """K traces of an edit through `vlm/local` against transformers' own generate of the same rows."""
    import gcpo_step

    from editr1.judge.prompts import render_score
    from editr1.vlm.base import Sampling
    from editr1.vlm.local import LocalVLM

    where, tokens, edits, traces = device(), (8 if tiny else 96), (2 if tiny else 4), (2 if tiny else 8)
    model = models.vlm("tiny" if tiny else "7b", where, torch.float32 if tiny else torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        run = build_pairs(Path(folder), edits, tiny)
        vlm = LocalVLM(model, models.processor(), "random", batch_size=64)
        requests = [
            render_score("tv", run.images.get(pair.task.source), run.images.get(pair.a.image), pair.task.instruction, pair.principles,
                         sampling=Sampling(1.0, 1.0, tokens), seed=seed)
            for pair in read_pairs(run) for seed in range(traces)
        ]  # fmt: skip
        vlm.chat(requests[:traces])
        replies: list[Any] = []
        ours = seconds(lambda: replies.extend(vlm.chat(requests)))
        made = sum(reply.num_tokens for reply in replies)
        inputs = {name: value.to(where) for name, value in gcpo_step.encode(run, vlm.processor, edits, traces // 2).items()}

        def generate() -> Any:
            with torch.inference_mode():
                return model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, top_k=0)

        rows = len(generate())
        theirs = rows * tokens / seconds(generate)
    say(row("local scoring 7B, tokens/s", made / ours, edits=edits, traces=traces))
    say(row("generate of as many rows, tokens/s", theirs, rows=rows))
    say(row("local scoring over generate", made / ours / theirs, "at least 1.0", made / ours >= theirs if where.type == "cuda" else None))
    if (peak := peak_gib()) is not None:
        say(row("local scoring: peak, GiB", peak, "at most 80", peak <= 80))


def compile_gain(say: Say, tiny: bool, _: float) -> None:
    """Regional torch.compile of Kontext's blocks, fewer of them: forward alone, and forward with backward."""
    from editr1.placement import compile_blocks

    where = device()
    import tiny_pipelines

    net = tiny_pipelines.kontext().transformer if tiny else models.flux(where, 2, 4)
    rows, tokens, text = (1, 4, 4) if tiny else (12, 2048, 256)
    sizes, dtype = net.config, net.dtype
    inputs = {
        "hidden_states": torch.randn(rows, tokens, sizes.in_channels, device=where, dtype=dtype),
        "encoder_hidden_states": torch.randn(rows, text, sizes.joint_attention_dim, device=where, dtype=dtype),
        "pooled_projections": torch.randn(rows, sizes.pooled_projection_dim, device=where, dtype=dtype),
        "timestep": torch.full((rows,), 0.5, device=where, dtype=dtype), "guidance": torch.full((rows,), 2.5, device=where),
        "img_ids": torch.zeros(tokens, 3, device=where, dtype=dtype), "txt_ids": torch.zeros(text, 3, device=where, dtype=dtype),
    }  # fmt: skip
    x = inputs["hidden_states"].requires_grad_(True)

    def forward() -> None:
        with torch.no_grad():
            net(**inputs)

    def both() -> None:
        net(**inputs).sample.float().square().mean().backward()
        x.grad = None

    plain = []
    for work in (forward, both):
        work()
        plain.append(seconds(work, 3))
    compile_blocks(net)
    named = (("forward", forward, plain[0]), ("forward and backward", both, plain[1]))
    for what, work, before in named[:1] if tiny else named:  # on a CPU a compiled backward takes minutes
        first = seconds(work)
        after = seconds(work, 3)
        say(row(f"torch.compile, {what}: time over eager", after / before, "at most 1.0", after <= before, compile_s=round(first, 1)))


def gpu_tests(say: Say, tiny: bool, _: float) -> None:
    """`pytest -m gpu`: every adapter's loop against diffusers' own pipeline, resume, gather."""
    if importlib.util.find_spec("pytest") is None:
        say(row("pytest -m gpu", "pytest is not installed", "all pass"))
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", str(ROOT / "tests" / "editors" / "test_gpu.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-12:]
    say(row("pytest -m gpu", last[-1] if last else "no output", "all pass", done.returncode == 0, tail=last if done.returncode else []))


def _editor(name: str) -> Callable[[Say, bool, float], None]:
    return lambda say, tiny, rate: editor_rl(name, say, tiny, rate)


def _vlm(stage: str, size: str, recipe: str, sharded: bool = False) -> Callable[[Say, bool, float], None]:
    return lambda say, tiny, rate: train_vlm(stage, size, recipe, say, tiny, sharded)


PARTS: dict[str, tuple[float, Callable[[Say, bool, float], None]]] = {
    "matrix": (10, matrix_rate),
    "tests": (45, gpu_tests),
    "compile": (120, compile_gain),
    "qwen_image_edit": (75, _editor("qwen_image_edit")),
    "gcpo_7b_lora": (60, _vlm("gcpo", "7b", "paper/gcpo_qwen25vl_7b_lora.yaml")),
    "sft_3b_full": (50, _vlm("sft", "3b", "paper/sft_qwen25vl_3b.yaml", sharded=True)),
    "gcpo_3b_full": (45, _vlm("gcpo", "3b", "paper/gcpo_qwen25vl_3b.yaml", sharded=True)),
    "kontext": (75, _editor("kontext")),
    "sft_7b_lora": (30, _vlm("sft", "7b", "paper/sft_qwen25vl_7b.yaml")),
    "scoring": (40, local_scoring),
    "klein": (35, _editor("klein")),
}
"""name -> (most seconds, what runs). What docs/results/gpu.md does not show yet comes first, and fits 6 minutes even at its limits; what it
shows took 23 to 60 s a part there, and is left out, and said to be, where the minutes end."""
