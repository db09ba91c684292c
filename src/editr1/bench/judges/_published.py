"""Texts of published judges, read from their own files: a text told again in other words is another judge.

A file is Python that assigns strings, or has functions that return them. It is read as data (its syntax tree): no line of it runs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editr1.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Project:
    """Where the texts of a judge are published."""

    judge: str
    """Its id here, for messages."""
    files: tuple[str, ...]
    """The files that are read, below the root of the project's repository."""
    get: str
    """What to download and how, as a sentence."""
    package: str = ""
    """The Python package that has the files below its own folder, where there is one."""

    def open(self, prompts: str | None) -> list[Texts]:
        """The files, from the folder `prompts` or the installed package. Raises ConfigError that says what to get.

        prompts: a copy of the repository, a folder of the files alone, or the file itself where it is a single one.
        """
        if prompts is None:
            root = self._installed()
        elif not isinstance(prompts, str):
            raise ConfigError(f"judge {self.judge}: prompts is {prompts!r}, expected a folder. {self.get}")
        else:
            root = Path(prompts).expanduser()
            if root.is_file() and len(self.files) == 1:
                return [self._texts(root)]
        return [self._texts(self._find(root, name)) for name in self.files]

    def _installed(self) -> Path:
        spec = importlib.util.find_spec(self.package) if self.package else None
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            missing = f"the package {self.package} is not installed" if self.package else "its prompts are not part of this package"
            raise ConfigError(f"judge {self.judge}: {missing}. {self.get}")
        return Path(places[0])

    def _find(self, root: Path, name: str) -> Path:
        places = [root / name, root / Path(name).name]
        for place in places:
            if place.is_file():
                return place
        raise ConfigError(f"judge {self.judge}: {root} holds no {name}. {self.get}")

    def _texts(self, path: Path) -> Texts:
        try:
            source = path.read_bytes()
            tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"judge {self.judge}: {path} cannot be read as Python: {error}. {self.get}") from error
        return Texts(self.judge, path, tree, hashlib.sha256(source).hexdigest())


@dataclass(frozen=True, slots=True)
class Texts:
    """The strings of one file."""

    judge: str
    path: Path
    tree: ast.Module
    digest: str
    """SHA-256 of the file, in hex."""

    def text(self, name: str, **values: str) -> str:
        """The string `name`, or what the function `name` returns, with `values` where it names variables.

        Raises ConfigError where the file has no such string, or makes it by more than joining strings.
        """
        node = self._node(name)
        if node is None:
            raise ConfigError(f"judge {self.judge}: {self.path} has no text {name!r}; it is not the file that this judge came with")
        return self._read(node, values, name)

    def _node(self, name: str) -> ast.expr | None:
        found: ast.expr | None = None
        for statement in self.tree.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if isinstance(statement, ast.Assign | ast.AnnAssign) and any(isinstance(t, ast.Name) and t.id == name for t in targets):
                found = statement.value
            elif isinstance(statement, ast.FunctionDef) and statement.name == name:
                found = next((inner.value for inner in statement.body if isinstance(inner, ast.Return)), None)
        return found

    def _read(self, node: ast.expr, values: dict[str, str], name: str) -> str:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._read(left, values, name) + self._read(right, values, name)
            case ast.JoinedStr(values=pieces):
                return "".join(self._read(piece, values, name) for piece in pieces)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self._read(value, values, name)
            case ast.Name(id=variable) if variable in values:
                return values[variable]
            case _:
                raise ConfigError(f"judge {self.judge}: {self.path}:{node.lineno}: {name} is made by more than joining strings")


def digest_of(texts: Sequence[Texts]) -> str:
    """One name for the contents of several files: 16 hex digits."""
    return hashlib.sha256(" ".join(text.digest for text in texts).encode()).hexdigest()[:16]
