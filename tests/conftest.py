"""One thread a process, the longest files first, helpers beside the tests and `research` importable, property tests repeatable."""

import os
import sys
from pathlib import Path

# before torch is loaded, for the processes that tests start too: tiny models are faster on one thread, and two workers share two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
# on a card known answers are float32's: read by cuBLAS, and so above what a recipe's `placement.tf32` asks torch for
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

from hypothesis import settings

import editr1  # noqa: F401  (its torchvision hook must come before diffusers and transformers)

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

# the same examples every time: a change is not blamed for what a new random one finds. `--hypothesis-profile=default` looks for new ones
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

LONGEST = (
    "test_browser.py",
    "test_study.py",
    "test_processes.py",
    "test_demo.py",
    "test_sharded.py",
    "test_two_processes.py",
    "test_ray.py",
    "test_gcpo.py",
    "test_sft.py",
    "test_learning.py",
    "test_world.py",
    "test_kill.py",
    "test_flow_grpo.py",
    "test_gpu_check.py",
    "test_verify.py",
)


def pytest_collection_modifyitems(config, items):
    """With several workers a long file that comes last is waited for by all."""
    if hasattr(config, "workerinput"):
        order = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))
