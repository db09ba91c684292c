"""What a study is: the section `study` of a recipe.

A cell is one reward model: a training stage (`sft` or `gcpo`), with the settings in which it differs from the recipe's section of
that stage. All cells of a seed share a run directory and so its data and its held-out pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from editr1.errors import ConfigError, nearest

DATA = "data"
"""The pseudo cell that makes what the cells of a seed share."""


@dataclass(frozen=True)
class Cell:
    """One reward model."""

    stage: Literal["sft", "gcpo"]
    prompt_id: str
    """The question, in training and in judging."""
    set: tuple[str, ...] = ()
    """Overrides of the recipe, as on a command line: `sft.target=score`."""
    after: str | None = None
    """The cell whose checkpoint this one starts from; None = the recipe's own `model`."""
    first: tuple[str, ...] = ()
    """Data stages that only this cell needs, run before its training; their `set` is the cell's."""
    minutes: float = 5.0
    """About how long it takes on one core: for the plan and the first guess of the time left."""
    about: str = ""
    """What the cell is, for the table."""


@dataclass(frozen=True)
class Judging:
    """How every cell is measured: point-wise scores of the same held-out pairs."""

    num_pairs: int = 400
    """Held-out pairs, the first ones of the table; those labelled "same" among them are no part of an accuracy."""
    num_traces: int = 4
    """K of avg@K."""
    temperature: float = 1.0
    max_tokens: int = 160
    batch_size: int = 256
    """Traces sampled together."""


@dataclass(frozen=True)
class Claim:
    """What the table should show, fixed before it is made: for every step (a, b) the cell b is more accurate than a."""

    id: str
    measure: str
    """What is claimed, in words."""
    steps: tuple[tuple[str, str], ...]
    min_gain: float = 0.0
    """Smallest gain that counts, in [0, 1]: every gain's whole 95 % interval lies above it."""
    p_below: float | None = None
    """Above every step's p: exact McNemar's, or see `one_trace`. Not adjusted: a claim needs all its steps. None = no test is promised."""
    stricter: bool = False
    """Also: the mean score of b is lower."""
    one_trace: bool = False
    """Gain and p are those of one trace an edit, averaged over the K traces, with the p of the sign-flip test by task: McNemar wants
    one answer a pair, and K of them say more. False = of the mean of the K traces."""
    max_data_share: float | None = None
    """Also: b trains on at most this share of the rows that a trains on."""


@dataclass(frozen=True)
class Config:
    """The study."""

    cells: dict[str, Cell]
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    per_seed: tuple[str, ...] = ()
    """Overrides with `{seed}` in them, so that every seed has data of its own."""
    data: tuple[str, ...] = ("tasks", "decompose", "generate", "score", "inspect", "pairs")
    """Stages that run once a seed, in this order."""
    data_minutes: float = 4.0
    """About how long they take on one core."""
    also_compare: tuple[tuple[str, str], ...] = ()
    """Paired comparisons beside those of the claims."""
    judging: Judging = field(default_factory=Judging)
    jobs: int = 2
    """Cells trained at once; the cores are divided among them."""

    def __post_init__(self) -> None:
        if not self.cells or not self.seeds or self.jobs < 1:
            raise ValueError("a study needs at least one cell, one seed and one job")
        if DATA in self.cells:
            raise ValueError(f"{DATA!r} cannot be the name of a cell")
        used = {cell.after for cell in self.cells.values() if cell.after} | {name for step in self.comparisons for name in step}
        if unknown := sorted(used - self.cells.keys()):
            raise ValueError(f"there is no cell {unknown[0]!r}; {nearest(unknown[0], self.cells)}")
        for name in self.cells:
            self.chain(name)

    @property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """Every (a, b) that is tested, once."""
        steps = [step for claim in self.claims for step in claim.steps]
        return tuple(dict.fromkeys([*steps, *self.also_compare]))

    def chain(self, name: str) -> tuple[str, ...]:
        """The cell with all that it starts from, the first one first. Raises ValueError for a circle."""
        chain = [name]
        while (before := self.cells[chain[0]].after) is not None:
            if before in chain:
                raise ValueError(f"cells start from each other in a circle: {' after '.join(chain)}")
            chain.insert(0, before)
        return tuple(chain)

    def minutes(self, name: str) -> float:
        """About how long a cell takes on one core."""
        return self.data_minutes if name == DATA else self.cells[name].minutes

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The named cells with those that they start from, in the recipe's order; all for no name.

        Raises ConfigError for an unknown one.
        """
        for name in names:
            if name not in self.cells:
                raise ConfigError(f"--cells: there is no cell {name!r}; {nearest(name, self.cells)}")
        needed = {cell for name in names or self.cells for cell in self.chain(name)}
        return tuple(name for name in self.cells if name in needed)
