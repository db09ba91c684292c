"""The files behind the settings of a stage: checkpoints and prompts by their contents, since a path says nothing of what lies there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from editr1.store._files import read_json, write_json

MODEL_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt", ".model", ".jinja", ".yaml", ".py"}
"""What a model directory is loaded from; logs, resume points and pictures beside it say nothing of its replies."""
NO_MODEL = ("checkpoint-", "runs", "logs", "gallery", ".")


def digests_behind(settings: Any, cache: Path) -> dict[str, str]:
    """`content PATH` -> SHA-256 for every option of a component that names a file or folder of this machine.

    A file is read once: its digest is kept in `cache` under its size and time.
    """
    known = read_json(cache) if cache.exists() else {}
    before = len(known)
    found = {f"content {path}": _digest(path, known) for path in sorted(set(_paths(settings)))}
    if len(known) > before:
        write_json(cache, known)
    return found


def _paths(value: Any, inside: bool = False) -> Iterator[Path]:
    """The paths among the options of components, which `to_plain` writes as {"id", "options"}."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, inside or key == "options")
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, inside)
    elif inside and isinstance(value, str) and value and len(value) < 4096 and "\n" not in value and "\x00" not in value:
        path = Path(value)
        try:
            there = path.exists() and (path.is_absolute() or len(path.parts) > 1 or path.is_file())
        except OSError:  # a text that is no path
            there = False
        if there:
            yield path


def _digest(path: Path, known: dict[str, str]) -> str:
    files = [path] if path.is_file() else sorted(_model_files(path))
    lines = [f"{file.relative_to(path) if file != path else file.name} {_file_digest(file, known)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _model_files(folder: Path) -> Iterator[Path]:
    """Those of the folder and of the folders in it, as a pipeline has them."""
    for entry in folder.iterdir():
        if entry.is_file() and entry.suffix in MODEL_SUFFIXES:
            yield entry
        elif entry.is_dir() and not entry.name.startswith(NO_MODEL):
            yield from (file for file in entry.iterdir() if file.is_file() and file.suffix in MODEL_SUFFIXES)


def _file_digest(path: Path, known: dict[str, str]) -> str:
    stat = path.stat()
    name = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    if name not in known:
        with path.open("rb") as file:
            known[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[name]
