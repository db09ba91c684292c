"""Encodings of tasks on disk, so that a task is encoded once a run and the text encoders can leave the memory.

One safetensors file a task, named by a hash of all that the encoding depends on: the editor's settings, the source picture's
content, the words and the size. Rows are stored alone and unpadded; the adapter's `collate` pads them to a batch.

Not in the hash: the bytes of the checkpoint. Whoever replaces a checkpoint under the same path deletes the folder.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from editr1.config import Component, load
from editr1.editors.base import Conditioning, FlowEditor
from editr1.errors import ConfigError
from editr1.flow.config import Config
from editr1.flow.contexts import Context, size_of
from editr1.schema import stable_id

ENCODERS = "encoders"
"""Option of an editor that can be loaded without its text encoders; such an editor also has `release_encoders()`."""


class EncodingCache:
    """The encodings of one run's tasks in `folder`."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config
        self._editor_id = json.dumps([config.editor.id, config.editor.options], sort_keys=True, default=str)

    def path(self, context: Context) -> Path:
        """Where the encoding of a task lies, whether or not it exists."""
        height, width = size_of(context, self.config)
        sources = (ref.digest for ref in context.task.sources)
        return self.folder / f"{stable_id(self._editor_id, *sources, context.task.instruction, str(height), str(width))}.safetensors"

    def missing(self, contexts: Sequence[Context]) -> list[Context]:
        """Tasks whose encoding is not there yet."""
        return [context for context in contexts if not self.path(context).exists()]

    def fill(self, editor: FlowEditor, contexts: Sequence[Context], *, rank: int = 0, world: int = 1) -> None:
        """Encodes this process' share of what is missing, one task at a time, so that no row depends on its neighbours."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for context in tqdm(self.missing(contexts)[rank::world], desc="encode", unit="task", disable=rank > 0):
            plan = editor.plan(*size_of(context, self.config))
            _write(editor.encode([context.source()], [context.task.instruction], plan), self.path(context))

    def read(self, editor: FlowEditor, contexts: Sequence[Context]) -> Conditioning:
        """One row a task, as `editor.encode` would give them; what is missing is encoded and kept."""
        if missing := self.missing(contexts):
            self.fill(editor, missing)
        device = next(editor.transformer.parameters()).device
        return editor.collate([_read(self.path(context), device) for context in contexts])


def without_encoders(editor: Component) -> Component:
    """The same editor, loaded without text encoders. Raises ConfigError for one that cannot be."""
    if ENCODERS not in inspect.signature(load("editors", editor.id)).parameters:
        raise ConfigError(
            f"editor {editor.id!r} has no option {ENCODERS!r}, so its encodings need not be kept: set cache_encodings to false"
        )
    return dataclasses.replace(editor, options={**editor.options, ENCODERS: False})


def _write(cond: Conditioning, path: Path) -> None:
    """Tensors as they are; plain values (sizes) as JSON in the header. Written beside and renamed."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in cond.items() if isinstance(value, torch.Tensor)}
    plain = {name: value for name, value in cond.items() if not isinstance(value, torch.Tensor)}
    partial = path.with_suffix(f".{os.getpid()}.partial")  # two processes may meet at one task; both write the same bytes
    save_file(tensors, partial, metadata={"plain": json.dumps(plain)})
    os.replace(partial, path)


def _read(path: Path, device: torch.device) -> Conditioning:
    with safe_open(path, framework="pt", device=str(device)) as file:
        plain = {name: _tuples(value) for name, value in json.loads(file.metadata()["plain"]).items()}
        return {name: file.get_tensor(name) for name in file.keys()} | plain  # noqa: SIM118  (no mapping: it only has keys())


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were: sizes are compared when samples share a batch."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
