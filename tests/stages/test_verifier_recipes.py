"""Every recipe of SFT and GCPO builds, and its rows divide over the machines it names."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from editr1.config import load_recipe, section
from editr1.training.trainer import accumulation_steps

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted([*RECIPES.glob("paper/sft_*.yaml"), *RECIPES.glob("paper/gcpo_*.yaml"), *RECIPES.glob("qwen3_vl/*.yaml")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("world", [1, 8])
def test_the_recipe_builds_and_divides(path: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    recipe = load_recipe(path)
    (name,) = recipe.keys() - {"seed"}
    stage = importlib.import_module(f"editr1.stages.{name}")
    config = section(recipe, name, stage.Config)
    assert accumulation_steps(config.batch_size if name == "sft" else config.traces_per_step, config.machine) >= 1
    assert all(line.startswith(f"{name}: ") for line in stage.plan(config, Path("run")))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("accelerate/verifier_*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_launch_file(path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    keys = yaml.safe_load(path.read_text())
    config = ClusterConfig.from_yaml_file(yaml_file=str(path))
    assert config.num_processes == keys["num_processes"]
