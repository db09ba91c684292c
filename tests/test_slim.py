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


def test_slim_parts_and_every_command_load_no_torch() -> None:
    present = [name for name in SLIM if importlib.util.find_spec(name)]
    code = "import contextlib, importlib, io, sys\n" + "".join(f"importlib.import_module({name!r})\n" for name in present)
    code += (
        "from editr1.cli import build_parser, command_names\n"
        "for name in command_names():\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        build_parser().parse_args([name, '--help'])\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_only_the_command_that_was_named_is_imported() -> None:
    code = (
        "import contextlib, io, sys\nfrom editr1.cli import main\n"
        "for words in (['--help'], ['no-such-command'], ['tasks', '--help'], ['repair', '--help']):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main(words)\n"
        "print([m for m in sys.modules if m.startswith('editr1.commands.') and '._' not in m])"
    )
    assert run_python(code) == "['editr1.commands.loop', 'editr1.commands.runs']"
