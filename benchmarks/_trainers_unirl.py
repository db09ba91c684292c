"""UniRL's own reward service in front of ours; run by `trainers.py` with a Python 3.12 that has `unirl`, and without this package.

python _trainers_unirl.py ADDRESS RECIPE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from unirl.types.primitives import Images, Texts
from unirl.types.sample import Part, Sample
from unirl.types.sampling import DiffusionSamplingParams

PROMPTS, GROUP = ["moody", "make it red", "make it green", "make it blue"], 12


def main() -> None:
    address, recipe = sys.argv[1], yaml.safe_load(Path(sys.argv[2]).read_text(encoding="utf-8"))
    recipe["reward"]["backend"]["config"]["base_url"] = address
    service = instantiate(OmegaConf.create(recipe["reward"]))
    sources = Images.from_dense(torch.rand(len(PROMPTS), 3, 64, 48))
    root = Part.input([f"r{number}" for number in range(len(PROMPTS))], primitives={"text": Texts(PROMPTS), "image": sources})
    asked = Sample.request(root).fork(GROUP, sampling_params=DiffusionSamplingParams())
    filled = asked.with_filled_frontier(primitives={"image": Images.from_dense(torch.rand(len(PROMPTS) * GROUP, 3, 64, 48))})
    rewards = service.score_and_attach(filled).parts[-1].rewards.tolist()
    assert rewards == [7.5] * len(rewards), rewards
    number = len(rewards)
    said = f"`RewardService.score_and_attach` by our recipe: {number} of {number} samples scored, {GROUP} of them at the second try"
    print(json.dumps({"said": said}))


if __name__ == "__main__":
    main()
