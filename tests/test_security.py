"""What must not be in the tree, read from the syntax: code from data, code from the network, secrets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import editr1

ROOT = Path(editr1.__file__).parent
MAY_PICKLE = {"serve/dialects.py"}  # reads plain values only, see its docstring and tests
LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{30,}"
    r"|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abpr]-[0-9A-Za-z-]{20,}"
)


def findings(code: str) -> Iterator[str]:
    """Everything in a module that could run what it reads."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (f"line {node.lineno}: imports {alias.name}" for alias in node.names if alias.name.split(".")[0] in LOADERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LOADERS:
            yield f"line {node.lineno}: imports {node.module}"
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    builtin = isinstance(node.func, ast.Name)
    if builtin and name in ("eval", "exec", "compile", "__import__"):
        yield f"line {node.lineno}: calls {name}"
    if _is(keywords.get("trust_remote_code"), True):
        yield f"line {node.lineno}: trusts remote code"
    if _is(keywords.get("shell"), True) or ast.unparse(node.func) in ("os.system", "os.popen"):
        yield f"line {node.lineno}: runs a shell"
    if _is(keywords.get("allow_pickle"), True):
        yield f"line {node.lineno}: numpy reads pickles"
    if ast.unparse(node.func) in ("torch.load", "yaml.load", "yaml.unsafe_load") and not _is(keywords.get("weights_only"), True):
        yield f"line {node.lineno}: {ast.unparse(node.func)} runs what it reads"


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_runs_what_it_reads(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() not in MAY_PICKLE:
        assert list(findings(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import loads", "eval('1')", "model(trust_remote_code=True)", "torch.load(path)",
        "subprocess.run('x', shell=True)", "np.load(p, allow_pickle=True)", "import os\nos.system('x')", "yaml.load(text)",
    ],
)  # fmt: skip
def test_the_rule_bites(code: str) -> None:
    assert list(findings(code))


@pytest.mark.parametrize(
    "code", ["model.eval()", "torch.load(path, weights_only=True)", "re.compile('x')", "build(trust_remote_code=flag)"]
)
def test_the_rule_knows_its_neighbours(code: str) -> None:
    assert list(findings(code)) == []


def test_no_secret_lies_in_the_tree() -> None:
    tree = ROOT.parents[1]
    files = [path for folder in ("src", "tests", "docs", "recipes", "benchmarks") for path in (tree / folder).rglob("*")]
    texts = [path for path in files if path.suffix in (".py", ".md", ".yaml", ".json", ".toml", ".html", ".js", ".sh")]
    assert [str(path) for path in texts if SECRETS.search(path.read_text(encoding="utf-8", errors="replace"))] == []
