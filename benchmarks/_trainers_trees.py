"""Checks inside trainers that are repositories and no packages: Flow-Factory, verl-omni, flow_grpo, from a folder of their trees."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import yaml
from _check_table import Row
from PIL import Image

RECIPES = Path(__file__).parents[1] / "recipes" / "integrations"
INSTRUCTIONS = ["moody" if number % 4 == 0 else "make it red" for number in range(48)]
SEEN = "48 of 48 edits scored, 12 of them at the second try"


def flow_factory(tree: Path, address: str) -> str:
    """Our recipe's rewards by their loader, and samples through their processor."""
    sys.path.insert(0, str(tree / "src"))
    from accelerate import Accelerator
    from flow_factory.hparams.reward_args import MultiRewardArguments, RewardArguments
    from flow_factory.rewards.loader import MultiRewardLoader
    from flow_factory.rewards.reward_processor import RewardProcessor
    from flow_factory.samples import I2ISample

    rows = yaml.safe_load((RECIPES / "flow_factory.yaml").read_text())["rewards"]
    configs = [RewardArguments.from_dict({**row, "server_url": address, "device": "cpu"}) for row in rows]
    accelerator = Accelerator(cpu=True)
    loader = MultiRewardLoader(MultiRewardArguments(reward_configs=configs), accelerator).load()
    processor = RewardProcessor(accelerator, loader.get_training_reward_models(), {c.name: c for c in configs}, verbose=False)
    samples = [
        I2ISample(image=torch.rand(3, 48, 64, dtype=torch.bfloat16), prompt=words, condition_images=[Image.new("RGB", (64, 48), "teal")])
        for words in INSTRUCTIONS
    ]
    found = processor.compute_rewards(samples)["editrrm"].tolist()
    assert found == [7.5] * 48, found
    return f"`MultiRewardLoader` finds the class by our recipe; `RewardProcessor` with bfloat16 samples: {SEEN}"


def verl_omni(tree: Path, address: str) -> str:
    """Our recipe over their configuration, their reward manager by verl's loader."""
    # Their package imports vllm_omni when it is imported itself; the reward managers need nothing of it.
    package = types.ModuleType("verl_omni")
    package.__path__ = [str(tree / "verl_omni")]
    sys.modules["verl_omni"] = package
    importlib.import_module("verl_omni.reward_loop.reward_manager.multi")  # registers itself
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    with initialize_config_dir(config_dir=str(tree / "verl_omni" / "trainer" / "config"), version_base=None):
        config = compose(config_name="diffusion_trainer")
    OmegaConf.set_struct(config, False)
    config = OmegaConf.merge(config, yaml.safe_load((RECIPES / "verl_omni.yaml").read_text()))
    config.reward.reward_functions.editrrm.server_url = address
    manager = load_reward_manager(config, MagicMock())
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(buffer, "PNG")

    def row(instruction: str) -> Any:
        extra = {"instruction": instruction, "source_image": buffer.getvalue()}
        others = {"data_source": ["edit"], "reward_model": [{"ground_truth": instruction}], "extra_info": [extra]}
        return DataProto.from_dict(tensors={"responses": torch.zeros(1, 3, 48, 64, dtype=torch.uint8)}, non_tensors=others)

    async def all_rows() -> list[dict[str, Any]]:
        return await asyncio.gather(*(manager.run_single(row(words)) for words in INSTRUCTIONS))

    found = [reply["reward_score"] for reply in asyncio.run(all_rows())]
    assert found == [7.5] * 48, found
    return f"`{type(manager).__name__}.run_single` by our recipe: {SEEN}"


def flow_grpo(tree: Path, address: str) -> str:
    """The two documented additions to their `multi_score`."""
    source = (tree / "flow_grpo" / "rewards.py").read_text()
    entry, branch = "score_functions = {", 'elif score_name == "image_similarity":'
    assert source.count(entry) == source.count(branch) == 1, "their rewards.py has changed"
    source = source.replace(entry, entry + '\n        "edit_rrm": edit_rrm_score,')
    indent = " " * (source.index(branch) - source.rindex("\n", 0, source.index(branch)) - 1)
    ours = f'elif score_name == "edit_rrm":\n{indent}    scores, rewards = score_fns[score_name](images, ref_images, prompts, metadata)'
    source = source.replace(branch, f"{ours}\n{indent}{branch}")
    from editr1.integrations.flow_grpo import URL_VARIABLE, edit_rrm_score

    os.environ[URL_VARIABLE] = address
    names: dict[str, Any] = {"edit_rrm_score": edit_rrm_score}
    exec(compile(source, "rewards.py", "exec"), names)
    score = names["multi_score"]("cpu", {"edit_rrm": 1.0})
    edits = torch.rand(48, 3, 48, 64).to(torch.bfloat16)
    details, _ = score(edits, INSTRUCTIONS, [{}] * 48, [Image.new("RGB", (64, 48), "teal")] * 48, only_strict=True)
    assert np.allclose(np.asarray(details["avg"], dtype=float), np.asarray(details["avg"][0], dtype=float)), details
    assert len(details["edit_rrm"]) == 48
    return f"`multi_score` with the documented entry and branch, bfloat16 edits: {SEEN}, reward {float(details['avg'][0]):g}"


CHECKS: tuple[tuple[str, str, Callable[[Path, str], str]], ...] = (
    ("Flow-Factory", "reward model by its loader and processor", flow_factory),
    ("verl-omni", "reward function in its manager", verl_omni),
    ("flow_grpo", "scorer in the dispatch of zhtmike's fork", flow_grpo),
)


def check_trees(folder: Path | None, address: str) -> list[Row]:
    """A row for each tree; `folder` holds checkouts by these names."""
    rows = []
    for name, check, work in CHECKS:
        tree = folder / name if folder else None
        if tree is None or not tree.is_dir():
            rows.append(Row(name, check, "on no package registry: give a folder with its tree (make trainers PEERS=DIR)", None))
            continue
        stated = folder / f"{name}.commit" if folder else None
        label = f"{name} {stated.read_text().strip()[:7]}" if stated and stated.exists() else name
        try:
            rows.append(Row(label, check, work(tree, address), True))
        except Exception as error:  # noqa: BLE001 - whatever another program raises is the result of its check
            rows.append(Row(label, check, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", False))
    return rows
