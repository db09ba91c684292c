"""What must start at once loads no torch; `benchmarks/start_up.py` takes the time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

HEAVY = ("torch", "transformers", "diffusers", "trl", "datasets", "ray")
SLIM = (
    "editr1", "editr1.schema", "editr1.errors", "editr1.stats", "editr1.config", "editr1.store", "editr1.cli",
    "editr1.judge.prompts", "editr1.judge.parse", "editr1.judge.inspect", "editr1.report", "editr1.annotate",
)  # fmt: skip


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout.strip()


def test_slim_parts_load_no_torch() -> None:
    present = [name for name in SLIM if importlib.util.find_spec(name)]
    code = "import importlib, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in present)
    code += f"import editr1.cli; editr1.cli.build_parser()\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code) == "[]"
