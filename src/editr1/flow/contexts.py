"""Which tasks an iteration trains on: a pure function of (seed, iteration), so that it resumes and splits over processes.

Groups are keyed by task id, never by instruction text: two tasks that share their words are two groups.

Encodings of tasks lie on disk, so that a task is encoded once a run and the text encoders can leave the memory: one safetensors file a
task, named by a hash of all that the encoding depends on (the editor's settings, the source picture's content, the words and the size),
but for the bytes of the checkpoint: whoever replaces one under the same path deletes the folder. Rows are stored alone and unpadded; the
adapter's `collate` pads them to a batch.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from editr1.config import Component, load
from editr1.editors.base import Conditioning, FlowEditor
from editr1.errors import ConfigError, DataError
from editr1.flow.config import Config
from editr1.schema import EditTask, ImageRef, PreferencePair, Principle, Source, derive_seed, stable_id
from editr1.store import Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """c = (x_ref, q) with its principles; the picture is opened when it is needed."""

    task: EditTask
    principles: tuple[Principle, ...]
    run: Run
    pair: PreferencePair | None = None
    """Two edits of it and which of them a person preferred, where training is from pairs."""

    @property
    def id(self) -> str:
        return self.task.id

    def source(self) -> Source:
        """x_ref, RGB; several pictures where the task has several."""
        return self.run.images.source_of(self.task)

    def further_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of the source pictures beside the first, whose tokens only samples of equal sizes can batch."""
        return tuple(self._size(ref) for ref in self.task.further)

    def preferred(self) -> list[Image.Image]:
        """[winner, loser], RGB."""
        assert self.pair is not None
        return [self.run.images.get(side.image) for side in (self.pair.winner, self.pair.loser)]

    def aspect(self) -> float:
        """Width over height of the first source."""
        width, height = self._size(self.task.source)
        return width / height

    def _size(self, ref: ImageRef) -> tuple[int, int]:
        """(width, height); a foreign table may not name them."""
        return (ref.width, ref.height) if ref.width else self.run.images.get(ref).size


def read_contexts(run: Run, held_out: float, pairs: bool = False) -> tuple[list[Context], list[Context]]:
    """(training, held-out) contexts of the run's principles, split by a hash of the source picture.

    By the source and not by the task, so that no held-out picture was seen with other words. `pairs`: those of `07_pairs`, one a pair
    that is no tie; of held-out ones each task once, for the policy edits it. Raises DataError for none.
    """
    if pairs:
        found = [row for row in run.read("07_pairs") if row.label != "same"]
        contexts = [Context(row.task, row.principles, run, row) for row in found]
    else:
        contexts = [Context(row.task, row.principles, run) for row in run.read("02_principles")]
    if not contexts and pairs:
        raise DataError("07_pairs holds no pair with a winner")
    if not contexts:
        raise DataError("02_principles is empty: editor RL trains on decomposed tasks; run `editr1 decompose` first")
    parts: tuple[list[Context], list[Context]] = ([], [])
    for context in contexts:
        share = int(stable_id("held-out", context.task.source.digest), 16) / 16**16
        parts[share < held_out].append(context)
    if not parts[0]:
        raise DataError(f"all {len(contexts)} tasks are held out: lower evaluation.held_out or add tasks")
    return parts[0], list({context.id: context for context in parts[1]}.values())


def choose_contexts(num_tasks: int, num_contexts: int, *, seed: int, iteration: int) -> list[int]:
    """Indices of the iteration's tasks: walks through a fresh permutation each epoch, without repeats inside an iteration.

    >>> sorted(choose_contexts(4, 2, seed=0, iteration=0) + choose_contexts(4, 2, seed=0, iteration=1))
    [0, 1, 2, 3]
    """
    if num_contexts > num_tasks:
        raise ConfigError(f"{num_contexts} contexts an iteration but only {num_tasks} training tasks: lower contexts or add tasks")
    per_epoch = num_tasks // num_contexts  # ours: a ragged rest is left out this epoch, the next permutation picks it up
    epoch, place = divmod(iteration, per_epoch)
    generator = torch.Generator().manual_seed(derive_seed(seed, "contexts", epoch))
    order = torch.randperm(num_tasks, generator=generator).tolist()
    return order[place * num_contexts : (place + 1) * num_contexts]


def size_of(context: Context, config: Config) -> tuple[int, int]:
    """(height, width) that is asked of the editor for a task, before it snaps them: the source's shape at the recipe's area."""
    if not config.keep_aspect:
        return config.height, config.width
    area, aspect = config.height * config.width, context.aspect()
    return round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)


def check_enough(tasks: Sequence[Context], held_out: Sequence[Context], config: Config) -> None:
    """Raises ConfigError where an iteration would have too few tasks; warns where evaluations would have none."""
    if config.evaluation.every and not held_out:
        logger.warning("edit-rl: no source picture of %d tasks is held out, so nothing is evaluated: raise evaluation.held_out", len(tasks))
    choose_contexts(len(tasks), config.contexts, seed=config.seed, iteration=0)


def fitting(editor: FlowEditor, contexts: Sequence[Context], config: Config) -> FlowEditor:
    """The editor. Raises ConfigError for a task whose shape or number of source pictures it does not take, before any is sampled."""
    most = getattr(editor, "max_sources", None)
    for context in contexts:
        editor.plan(*size_of(context, config))
        if most is not None and len(context.task.sources) > most:
            raise ConfigError(f"{editor.name} reads up to {most} source picture(s), task {context.id} has {len(context.task.sources)}")
    return editor


def share_of_process(items: Sequence[int], rank: int, world: int) -> list[int]:
    """This process' contiguous part; whole groups stay on one process. Raises ConfigError when it does not divide."""
    if len(items) % world:
        raise ConfigError(f"{len(items)} contexts do not divide over {world} processes: make contexts a multiple of {world}")
    size = len(items) // world
    return list(items[rank * size : (rank + 1) * size])


ENCODERS = "encoders"
"""Option of an editor that can be loaded without its text encoders; such an editor also has `release_encoders()`."""


@dataclass(frozen=True)
class EncodingCache:
    """The encodings of one run's tasks in `folder`."""

    folder: Path
    config: Config

    def path(self, context: Context) -> Path:
        """Where the encoding of a task lies, whether or not it exists."""
        height, width = size_of(context, self.config)
        editor = json.dumps([self.config.editor.id, self.config.editor.options], sort_keys=True, default=str)
        sources = (ref.digest for ref in context.task.sources)
        return self.folder / f"{stable_id(editor, *sources, context.task.instruction, str(height), str(width))}.safetensors"

    def missing(self, contexts: Sequence[Context]) -> list[Context]:
        """Tasks whose encoding is not there yet, each once: people's pairs share theirs."""
        return [context for path, context in {self.path(context): context for context in contexts}.items() if not path.exists()]

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
