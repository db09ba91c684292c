"""Two processes compute what one computes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import toy
from editr1.config import Component
from editr1.errors import ConfigError
from editr1.flow.config import Config, Sampling, Training
from editr1.placement import Placement, repeated_blocks
from editr1.stages import edit_rl
from editr1.store import Run

RECIPES = Path(__file__).parents[2] / "recipes" / "accelerate"
SCRIPT = Path(__file__).parent / "two_processes.py"


# nft divides by the size of an error, which carries rounding of three iterations further
TOLERANCES = {"batch-grpo": 1e-5, "group-nft": 1e-4, "group-sharded": 1e-5, "group-full": 1e-5, "group-zero2": 1e-5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which one process and two have trained in every way."""
    root = tmp_path_factory.mktemp("processes")
    for world in ("1", "2"):
        for way in TOLERANCES:
            toy.write_tasks(Run.open(root / f"{way}_{world}"))
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", world, "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([sys.executable, *launcher, str(SCRIPT), str(root), world, *TOLERANCES], check=True, env=environment, timeout=300)
    return root


@pytest.mark.parametrize(("way", "tolerance"), TOLERANCES.items(), ids=TOLERANCES)
def test_two_processes_give_the_update_of_one(trained, way, tolerance):
    ends = {}
    for world in (1, 2):
        run = Run.open(trained / f"{way}_{world}")
        points = [json.loads(line) for line in (run.dir / "metrics.jsonl").read_text().splitlines()]
        assert len(points) == 3  # only the main process logs
        ends[world] = [load_file(run.dir / f"end_{world}_{rank}.safetensors") for rank in range(world)], points
    (one,), points_one = ends[1]
    two, points_two = ends[2]
    size = max(float(value.abs().max()) for value in one.values())
    assert size > 1e-3  # sums of gradients: something was learnt
    for name, value in one.items():
        assert torch.equal(two[0][name], two[1][name])  # processes stay in step
        torch.testing.assert_close(two[0][name], value, atol=tolerance * size, rtol=1e-5)
    for figure in ("reward/mean", "evaluation/reward", "train/grad_norm"):
        assert points_one[-1][figure] == pytest.approx(points_two[-1][figure], rel=1e-3)
    for kept in ("checkpoints/000003/*.safetensors", "lora/*.safetensors", "transformer/*.safetensors", "best.safetensors"):
        files = [sorted((trained / f"{way}_{world}" / "09_editor").glob(kept)) for world in (1, 2)]
        assert [path.name for path in files[0]] == [path.name for path in files[1]]
        for alone, together in zip(*([load_file(path) for path in paths] for paths in files), strict=True):
            assert alone.keys() == together.keys()
            for name, value in alone.items():
                torch.testing.assert_close(together[name], value, atol=tolerance * max(1.0, size), rtol=1e-4)


def test_zero_2_gathers_weights_when_they_change_and_zero_3_at_every_forward(trained):
    gathers = {way: int((trained / f"group-{way}_2" / "gathers.txt").read_text()) for way in ("full", "zero2")}
    assert 0 < 2 * gathers["zero2"] < gathers["full"]  # the reference of the KL term is swapped in and out


@pytest.mark.parametrize("launcher", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_would_shard_nothing_is_refused(launcher, monkeypatch, tmp_path):
    accelerator = SimpleNamespace(distributed_type=SimpleNamespace(value=launcher))
    monkeypatch.setattr(edit_rl, "make_accelerator", lambda *_, **__: accelerator)
    config = Config(Component("toy:build"), Component("toy:RednessJudge"))
    with pytest.raises(ConfigError, match=r"training\.shard"):
        edit_rl.start(config, tmp_path)
    accelerator.distributed_type.value = "MULTI_GPU"
    assert edit_rl.start(config, tmp_path) is accelerator


def test_every_block_of_the_transformer_is_spread_by_itself():
    assert [type(block).__name__ for block in repeated_blocks(toy.ToyEditor().transformer)] == [
        "FluxTransformerBlock", "FluxSingleTransformerBlock",
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_accelerate_reads_its_recipes(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 2


def on_any_device(device=None):
    """An editor that is told where to load."""
    editor = toy.ToyEditor()
    editor.loaded_on = device
    return editor


def test_processes_come_first_then_judges_then_the_editor(tmp_path, monkeypatch):
    """A judge or an editor that is made before the process group lands on the first card, with those of all other processes."""
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run)
    order = []
    make = edit_rl.create

    def create(kind, component, **fixed):
        if kind in ("judges", "editors"):
            order.append(kind)
        return make(kind, component, **fixed)

    begin = edit_rl.make_accelerator
    monkeypatch.setattr(edit_rl, "make_accelerator", lambda *args, **options: order.append("processes") or begin(*args, **options))
    monkeypatch.setattr(edit_rl, "create", create)
    config = Config(
        Component("toy:build"), Component("toy:RednessJudge"), group_size=4, contexts=4, iterations=1, gallery_every=0,
        sampling=Sampling(steps=4, kind="cps", level=0.5, window=2, last=3), training=Training(rank=2, alpha=2, beta=0.0),
    )  # fmt: skip
    assert edit_rl.run(config, run.dir).iterations == 1
    assert order == ["processes", "judges", "editors"]


@pytest.mark.parametrize("wanted", [True, False])
def test_blocks_are_compiled_where_a_recipe_asks_for_it(wanted, monkeypatch, tmp_path):
    compiled = []
    monkeypatch.setattr(edit_rl, "compile_blocks", compiled.append)
    editor = toy.ToyEditor()
    config = Config(Component("toy:build"), Component("toy:RednessJudge"), placement=Placement(compile=wanted), trackers=())
    edit_rl.make_trainer(config, editor, [toy.score_redness], tmp_path).close()
    assert compiled == ([editor.transformer] if wanted else [])


@pytest.mark.parametrize(("shard", "where"), [(True, "cpu"), (False, None)])
def test_what_will_be_sharded_is_loaded_on_the_cpu(shard, where, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    editor = Component("test_processes:on_any_device")
    config = Config(editor, Component("toy:RednessJudge"), training=Training(shard=shard))
    assert edit_rl.load_editor(config, None, []).loaded_on == where


def test_processes_that_see_different_checkpoints_are_refused(tmp_path):
    trainer = SimpleNamespace(state=SimpleNamespace(iteration=3), gather=lambda own: torch.tensor([3, 0]))
    with pytest.raises(ConfigError, match="file system that all share"):
        edit_rl.resume(trainer, tmp_path)
