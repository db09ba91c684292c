"""Makes `tiny_pipelines` importable for the test files of this folder."""

import sys
from pathlib import Path

import editr1  # noqa: F401  (its torchvision hook must come before diffusers)
from public_data import public_data, published

__all__ = ["public_data", "published"]

sys.path.insert(0, str(Path(__file__).parent))
