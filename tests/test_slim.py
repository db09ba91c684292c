"""What must start at once: `import editr1` and the parts that people use without a GPU load no torch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

HEAVY = ("torch", "transformers", "diffusers", "trl", "datasets", "ray")
SLIM = (
    "editr1", "editr1.schema", "editr1.errors", "editr1.stats", "editr1.config", "editr1.store", "editr1.cli",
    "editr1.judge.prompts", "editr1.judge.parse", "editr1.judge.choose", "editr1.report", "editr1.annotate",
)  # fmt: skip


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout.strip()


def test_slim_parts_load_no_torch() -> None:
    present = [name for name in SLIM if importlib.util.find_spec(name)]
    code = "import importlib, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in present)
    code += f"import editr1.cli; editr1.cli.build_parser()\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_import_takes_less_than_a_third_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import editr1; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.3
