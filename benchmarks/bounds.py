"""The lowest versions that pyproject.toml names, installed, and what a quick part of the tests says of them: `make bounds`.

    make bounds                                             # an environment of its own, .venv-bounds, then this file there
    make bounds TORCH="torch==2.9.0 torchvision==0.24.0"    # the lowest torch too: on Linux its builds there are CUDA's, 3 GB

Writes Markdown, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from editr1.store import commit

ROOT = Path(__file__).parents[1]
TESTS = ("test_cli.py", "test_config.py", "judge", "store", "vlm/test_local.py", "stages/test_sft.py", "stages/test_gcpo.py")
TESTS += ("training", "editors/test_adapters.py", "flow/test_training.py")


def _of_torch(tested: dict[str, str]) -> list[str]:
    """What the page says where torch is not the lowest."""
    ((declared, version),) = ((text, version) for text, version in tested.items() if text.startswith("torch>="))
    if version.startswith(re.split("[>=,]+", declared)[1]):
        return []
    return ["torch and torchvision are what the installer picks: their lowest builds are gigabytes of CUDA on a machine without a GPU."]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    rows = [(text, metadata.version(re.split("[<>=]", text)[0])) for text in declared]
    print(*(f"{text:<28} {version}" for text, version in rows), sep="\n", flush=True)
    command = [sys.executable, "-m", "pytest", *(f"tests/{name}" for name in TESTS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        lines = [print(line, end="", flush=True) or line.strip() for line in tests.stdout]
    closing = lines[-1] if lines else ""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", closing)}
    result = {"what": "tests at the lowest declared versions that fail", "n": counts.get("passed", 0), "goal": "0", "commit": commit()}
    result |= {"value": counts.get("failed", 0) + counts.get("errors", 0) + counts.get("error", 0), "holds": tests.returncode == 0}
    if args.out:
        page = [
            "# The lowest versions",
            "",
            f"Written by `make bounds` (`benchmarks/bounds.py`) at `{commit()[:12]}`, Python {platform.python_version()}.",
            *_of_torch(dict(rows)),
            "",
            f"{', '.join(f'`tests/{name}`' for name in TESTS)}: **{re.sub(r'[= ]*$|^[= ]*', '', closing)}**",
            "",
            "| declared | tested |",
            "|---|---|",
            *(f"| `{text}` | {version} |" for text, version in rows),
        ]
        args.out.write_text("\n".join([*page, "", "```json", json.dumps(result), "```", ""]), encoding="utf-8")
    print(json.dumps(result))
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())
