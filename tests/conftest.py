"""Makes the helpers that lie beside the tests importable (`from tiny_qwen import ...`)."""

import sys
from pathlib import Path

import editr1  # noqa: F401  (its torchvision hook must come before diffusers and transformers)

sys.path.append(str(Path(__file__).parent))
