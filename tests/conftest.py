"""Makes the helpers that lie beside the tests importable (`from tiny_qwen import ...`), `research` too, and property tests repeatable."""

import sys
from pathlib import Path

from hypothesis import settings

import editr1  # noqa: F401  (its torchvision hook must come before diffusers and transformers)

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]

# the same examples every time: a change is not blamed for what a new random one finds. `--hypothesis-profile=default` looks for new ones
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
