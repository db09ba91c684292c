"""Every recipe of SFT and GCPO builds, and its rows divide over the machines it names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from editr1.config import load_recipe, section

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(
    [
        *RECIPES.glob("paper/sft_*.yaml"),
        *RECIPES.glob("paper/gcpo_*.yaml"),
        *RECIPES.glob("qwen3_vl/*.yaml"),
        *RECIPES.glob("qwen35/*.yaml"),
        RECIPES / "qwen25vl_7b_rationales.yaml",
    ]
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("world", [1, 8])
def test_the_recipe_builds_and_divides(path: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    recipe = load_recipe(path)
    (name,) = recipe.keys() & {"sft", "gcpo"}
    stage = importlib.import_module(f"editr1.stages.{name}")
    config = section(recipe, name, stage.Config)
    assert config.machine.accumulation(config.batch_size if name == "sft" else config.rows) >= 1
    assert all(line.startswith(f"{name}: ") for line in stage.plan(config, Path("run")))


LAUNCH_FILES = sorted(RECIPES.glob("accelerate/verifier_*.yaml"))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, str]]:
    """What `accelerate launch --config_file` would hand to the processes, without starting any."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    def dry_run(path: Path) -> dict[str, str]:
        caught: list[dict[str, str]] = []
        monkeypatch.setattr(launch, "deepspeed_launcher", lambda args: caught.append(prepare_deepspeed_cmd_env(args)[1]))
        monkeypatch.setattr(launch, "multi_gpu_launcher", lambda args: caught.append(prepare_multi_gpu_env(args)))
        command = ["--config_file", str(path), "-m", "editr1.cli", "sft", "--config", "recipe.yaml", "--run", "run"]
        launch.launch_command(launch.launch_command_parser().parse_args(command))
        (environment,) = caught
        return environment

    return dry_run


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_accelerate_launches_with_the_file(path: Path, launched: Callable[[Path], dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharding arrives as it is written, by accelerate's own plug-ins; no GPU and no DeepSpeed is needed to see that."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

    keys = yaml.safe_load(path.read_text())
    assert ClusterConfig.from_yaml_file(yaml_file=str(path)).num_processes == keys["num_processes"]
    environment = launched(path)
    assert environment["ACCELERATE_MIXED_PRECISION"] == keys["mixed_precision"] == "bf16"
    for name, value in environment.items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    if keys["distributed_type"] == "FSDP":
        plugin = FullyShardedDataParallelPlugin()
        assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.activation_checkpointing) == (2, True, False)
    elif keys["distributed_type"] == "DEEPSPEED":
        zero = DeepSpeedPlugin().deepspeed_config["zero_optimization"]
        assert (zero["stage"], zero["stage3_gather_16bit_weights_on_model_save"]) == (3, True)
    else:
        assert keys["distributed_type"] == "MULTI_GPU"
        assert "ACCELERATE_USE_FSDP" not in environment


def test_rationales_and_gcpo_ask_the_same_of_the_same_model() -> None:
    from editr1.stages import gcpo, rationales

    recipe = load_recipe(RECIPES / "qwen25vl_7b_rationales.yaml")
    writer = section(recipe, "rationales", rationales.Config)
    rival = section(load_recipe(RECIPES / "paper" / "gcpo_qwen25vl_7b.yaml"), "gcpo", gcpo.Config)
    assert (writer.prompt_id, writer.num_traces, writer.temperature) == (rival.prompt_id, rival.num_traces, rival.generation.temperature)
    assert writer.max_tokens == rival.generation.max_tokens
