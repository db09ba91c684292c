"""Who may import whom, read from the syntax tree: imports inside functions count too.

    0 schema errors stats                             3 vlm/* editors/* sources/* world/* judge/rrm flow
                                                        bench/judges/base measure
    1 vlm/base editors/base bench/base sources/base   4 stages/* bench/* serve audit
      placement
    2 config store endpoint judge/* objectives/*    5 report annotate integrations study; commands above them, cli above all

`records` knows no noun and lies below them all. Imports go to smaller numbers. Parts of one folder may import each other where
the folder is one thing (`store`, `judge`, `world`, ...); where it holds alternatives or steps (`stages`, `editors`, ...) they may
share only `base` and `_private` parts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import editr1

ROOT = Path(editr1.__file__).parent

# The longest matching prefix decides.
LAYERS = {
    "text": -3, "records": -2,
    "schema": 0, "edits": -1, "errors": 0, "stats": 0, "placement": 1, "memory": 1, "optimizers": 1,
    "vlm.base": 1, "editors.base": 1, "bench.base": 1, "sources.base": 1, "algorithms.base": 1, "algorithms": 3,
    "pair_learning.base": 1, "pair_learning": 3,
    "pictures": 1, "_containers": 0, "_server_errors": 0, "wire": 1,
    "config": 2, "endpoint": 2, "store": 2, "judge": 2, "objectives": 2,
    "example": 3,
    "judge.rrm": 3, "bench.judges.base": 3, "measure": 3, "flow": 3, "training": 3, "vlm": 3, "editors": 3, "sources": 3, "world": 3,
    "measure.judging": 4,
    "stages": 4, "bench": 4, "serve": 4, "audit": 4,
    "report": 5, "annotate": 5, "integrations": 5, "study": 5, "commands": 6, "cli": 7,
}  # fmt: skip
ALTERNATIVES = {"algorithms", "pair_learning", "stages", "vlm", "editors", "sources", "commands", "integrations"}
ADAPTERS = {
    "algorithms",
    "pair_learning",
    "vlm",
    "editors",
    "sources",
    "world",
}  # layer 4 meets them only through config.create() and the protocols


def layer(module: str) -> int:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LAYERS:
            return LAYERS[".".join(parts[:length])]
    raise AssertionError(f"module {module} has no layer: add it to LAYERS in {__file__}")


def modules() -> list[str]:
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(ROOT.rglob("*.py")))
    return [name.removesuffix(".__init__") for name in names if name != "__init__"]


def imports(module: str) -> Iterator[str]:
    """The modules of this package that a module imports, without the leading `editr1.`."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("editr1.") for alias in node.names if alias.name.startswith("editr1."))
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{module} uses a relative import; write editr1....")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "editr1":
            base = (node.module or "").removeprefix("editr1").removeprefix(".")
            yield from filter(None, (_target(base, alias.name) for alias in node.names))


def _target(base: str, name: str) -> str:
    full = f"{base}.{name}" if base else name
    path = ROOT.joinpath(*full.split("."))
    return full if path.is_dir() or path.with_suffix(".py").exists() else base


def forbidden(module: str, target: str) -> str | None:
    """Why `module` may not import `target`, or None."""
    folder, target_folder = module.split(".")[0], target.split(".")[0]
    part = target.rpartition(".")[2]
    if "oracle" in target.split(".") and folder != "world":
        return "the oracle is reachable from recipes and tests only"
    if folder == target_folder:
        shared = folder not in ALTERNATIVES or target == folder or part == "base" or part.startswith("_")
        return None if shared else f"files of {folder} do not import each other"
    if layer(target) >= layer(module):
        return f"layer {layer(module)} may not import layer {layer(target)}"
    if layer(module) == 4 and target_folder in ADAPTERS and part != "base":
        return "meet adapters through config.create() and the protocols"
    return None


@pytest.mark.parametrize("module", modules())
def test_imports_go_to_lower_layers_only(module: str) -> None:
    reasons = [f"{module} imports {target}: {reason}" for target in imports(module) if (reason := forbidden(module, target))]
    assert not reasons


def test_the_rule_bites() -> None:
    assert forbidden("schema", "store")
    assert forbidden("stages.score", "stages.tasks")
    assert forbidden("stages.score", "vlm.openai_api")
    assert forbidden("report.page", "world.oracle")
    assert forbidden("editors.kontext", "editors.qwen_edit")
    assert not forbidden("stages.score", "judge.rrm")
    assert not forbidden("editors.kontext", "editors.base")
    assert not forbidden("world.tasks", "world.scene")
