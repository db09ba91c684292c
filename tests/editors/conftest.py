"""Makes `tiny_pipelines` importable for the test files of this folder."""

import sys
from pathlib import Path

import editr1  # noqa: F401  (its torchvision hook must come before diffusers)

sys.path.insert(0, str(Path(__file__).parent))
