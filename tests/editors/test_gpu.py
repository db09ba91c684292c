"""What a GPU can change: our loops against diffusers' own pipelines in bfloat16, resuming, gathering. On a CPU the same in float32.

pytest -m gpu tests/editors/test_gpu.py
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import test_adapters as adapters
import tiny_pipelines as tiny
import torch

from editr1.config import Component
from editr1.editors import kontext
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.flow.state import checkpoints, load_state, optimizer_tensors
from editr1.placement import Placement, local_device, prepare
from editr1.stages.edit_rl import make_trainer, train
from editr1.store import Run

pytestmark = pytest.mark.gpu
sys.path.insert(0, str(Path(__file__).parents[1] / "flow"))
CUDA = torch.cuda.is_available()
KIND = torch.bfloat16 if CUDA else torch.float32
small_sources = adapters.small_sources


@pytest.fixture(autouse=True)
def placed():
    prepare(Placement())


def on_device(made):
    """The adapter's editor and its pipeline in the device's dtype."""
    editor, pipe, call = made
    pipe.to(local_device(), KIND)
    editor.dtype = KIND  # which an editor reads once, when it is built
    if hasattr(pipe, "encode_prompt") and "words" in getattr(pipe.encode_prompt, "__name__", ""):
        words = pipe.encode_prompt
        pipe.encode_prompt = lambda *args, **kwargs: tuple(_moved(part) for part in words(*args, **kwargs))
    return editor, pipe, call


def _moved(part):
    if not isinstance(part, torch.Tensor):
        return part
    return part.to(local_device(), KIND) if part.is_floating_point() else part.to(local_device())


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
@pytest.mark.parametrize("name", adapters.NAMES)
def test_our_loop_is_the_pipelines_own_but_for_rounding(name, guided):
    editor, pipe, call = on_device(adapters.make(name, guided))
    x, plan = adapters.ours(editor, [adapters.picture(1)], ["make it red"], [7])
    latents = adapters.pipeline_noise(name, editor, plan, [7]).to(local_device(), KIND)
    theirs = pipe(
        image=adapters.picture(1), prompt="make it red", num_inference_steps=adapters.STEPS, **adapters.sizes(name),
        latents=latents, output_type="latent", **call,
    ).images  # fmt: skip
    ours = adapters.unpacked(name, editor, x, plan).float()
    assert torch.isfinite(ours).all()
    relative = float((ours - theirs.float()).norm() / theirs.float().norm())
    assert relative < (0.05 if CUDA else 1e-4), relative  # theirs rounds the latents to bfloat16 after every step


def settings(iterations):
    training = Training(weights="lora", rank=4, alpha=8, lr=1e-2, beta=0.01, gradient_checkpointing=True)
    return Config(
        Component("kontext"), Component("none:none"), height=tiny.SIDE, width=tiny.SIDE, keep_aspect=False, group_size=4, contexts=2,
        contexts_per_batch=1, iterations=iterations, save_every=1, gallery_every=0, training=training,
        sampling=Sampling(steps=4, window=2, last=3, same_start=True, storage="bfloat16"),
    )  # fmt: skip


def trained(run, iterations, resumed=False):
    import toy

    editor = kontext.KontextEditor(tiny.kontext(num_layers=2).to(local_device(), KIND), text_tokens=16)
    trainer = make_trainer(settings(iterations), editor, [toy.score_redness], run.dir)
    if resumed:
        load_state(trainer.state, checkpoints(run.dir / "09_editor" / "checkpoints")[-1])
    train(trainer, read_contexts(run, 0.0)[0], [], toy.score_redness, run)
    return trainer


def new_run(folder):
    import toy

    run = Run.open(folder)
    toy.write_tasks(run, 4)
    return run


def test_the_first_replay_is_the_rollout_and_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    straight, other = new_run(tmp_path / "straight"), new_run(tmp_path / "other")
    whole = trained(straight, 3)
    trained(other, 2)
    resumed = trained(other, 3, resumed=True)
    for ours, theirs in zip(*((t.state.policy.snapshot(), t.state.ema, optimizer_tensors(t.state)) for t in (whole, resumed)), strict=True):
        assert all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)
    points = [json.loads(line) for line in (straight.dir / "metrics.jsonl").read_text().splitlines()]
    assert points[0]["train/ratio_error_max"] < 1e-5
    assert {value.dtype for value in whole.state.policy.snapshot().values()} == {torch.float32}


def test_rows_of_all_processes_are_gathered_from_the_device(tmp_path):
    trainer = trained(new_run(tmp_path / "run"), 1)
    table = torch.arange(6.0).view(2, 3)
    assert torch.equal(trainer.gather(table), table)
    assert trainer.gather(table).device.type == "cpu"
    assert dataclasses.asdict(trainer.config.placement)["attention"] == ("flash", "efficient", "math")


def test_the_embedded_editor_edits_on_the_device_as_on_the_cpu():
    from editr1.editors.base import EditRequest
    from editr1.world.tasks import TaskSource
    from editr1.world.tiny_editor import build

    asked = [EditRequest(task.image, task.instruction, seed) for seed, task in enumerate(TaskSource(6, 4))]
    here, there = build(device="cpu"), build()
    assert there.device.type == local_device().type
    distances = [abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in zip(here.edit(asked), there.edit(asked), strict=True)]
    assert max(distances) < 2.0  # of 255: matrix products in TF32
