"""Makes the helpers that lie beside the tests importable (`from tiny_qwen import ...`)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
