"""What a judge is, of single edits (`judge.rrm.RewardModel` is one) or of pairs; and judges that put questions and read the replies.

Questions of published judges are read from their own files: a text told again in other words is another judge. A file is Python that
assigns strings, or has functions that return them. It is read as data (its syntax tree): no line of it runs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jinja2
from PIL import Image

from editr1.bench.base import OVERALL, JudgedPair, PartedReward
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from editr1.schema import MAX_SCORE, FailureCode, Reward, Source, derive_seed
from editr1.vlm.base import VLM, ChatReply, ChatRequest, Sampling


@dataclass(frozen=True, slots=True)
class PairItem:
    """Two edits to compare, with their pictures in memory."""

    id: str
    source: Source
    a: Image.Image
    b: Image.Image
    instruction: str


@runtime_checkable
class ComparesPairs(Protocol):
    """A judge of pairs."""

    def compare(self, items: Sequence[PairItem], seed: int = 0) -> list[JudgedPair]:
        """One JudgedPair an item, in their order; an answer without a readable choice is None."""
        ...


def render(name: str, **values: Any) -> str:
    """The prompt `texts/<name>.md` with its values; text from outside stands as a JSON string, so that it reads as data."""
    quoted = {key: json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value for key, value in values.items()}
    text = (files("editr1.bench.judges") / "texts" / f"{name}.md").read_text("utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return template.render(**quoted)


@dataclass(frozen=True, slots=True)
class Scale:
    """Both ends of the numbers that a judge gives; higher is better."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a scale from {self.low:g} to {self.high:g} is none; expected the lower end first")

    def convert(self, values: Sequence[float]) -> tuple[float, ...] | FailureCode:
        """The values on 0 to 10; OUT_OF_RANGE when one lies outside: it is not clamped, for it was no answer to the question.

        >>> Scale(0, 25).convert((24, 22)), Scale(1, 4).convert((2.5,)), Scale(0, 25).convert((26, 20))
        ((9.6, 8.8), (5.0,), 'OUT_OF_RANGE')
        """
        if not all(self.low <= value <= self.high for value in values):
            return "OUT_OF_RANGE"
        return tuple((value - self.low) * MAX_SCORE / (self.high - self.low) for value in values)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one edit in one request."""

    name: str
    """Tells the questions of a judge apart; seeds follow from it."""
    parts: tuple[str | Image.Image, ...]
    system: str = ""


Read = Callable[[Sequence[str]], Mapping[str, float] | FailureCode]
"""The sub-scores on 0 to 10, `overall` among them, that the replies to all questions of a pass state, or why they state none."""


@dataclass(frozen=True, slots=True)
class AskingJudge:
    """Asks all questions `num_passes` times and averages the passes that were readable."""

    vlm: VLM
    sampling: Sampling
    ask: Callable[[RewardItem], Sequence[Question]]
    read: Read
    num_passes: int = 1
    texts: str = ""
    """Names the contents of the published files that the questions come from; empty where the wording is ours."""

    def __post_init__(self) -> None:
        if self.num_passes < 1:
            raise ConfigError(f"num_passes is {self.num_passes}; expected at least 1")

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One PartedReward an item; unscored when no pass was readable. Raises BackendError when the machine fails."""
        requests = [self._requests(item, item.id or str(index), seed) for index, item in enumerate(items)]
        replies = iter(self.vlm.chat([request for of_item in requests for request in of_item]))
        return [self._reward([next(replies) for _ in of_item]) for of_item in requests]

    def _requests(self, item: RewardItem, item_id: str, seed: int) -> list[ChatRequest]:
        questions = self.ask(item)
        return [
            ChatRequest(asked.parts, asked.system, self.sampling, derive_seed(seed, item_id, asked.name, number))
            for number in range(self.num_passes)
            for asked in questions
        ]

    def _reward(self, replies: Sequence[ChatReply]) -> PartedReward:
        size = len(replies) // self.num_passes
        outcomes = [self._outcome(replies[start : start + size]) for start in range(0, len(replies), size)]
        passes = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        shown = next((number for number, outcome in enumerate(outcomes) if not isinstance(outcome, str)), 0) * size
        means = _means(passes)
        codes = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
        return PartedReward(
            value=means.get(OVERALL),
            num_valid=len(passes),
            num_traces=self.num_passes,
            reason=None if passes else "REFUSED" if "REFUSED" in codes else codes.most_common(1)[0][0],
            num_tokens=sum(reply.num_tokens for reply in replies),
            seconds=sum(reply.seconds for reply in replies),
            answer="\n\n".join(reply.text for reply in replies[shown : shown + size]),
            scores=tuple(None if isinstance(outcome, str) else outcome[OVERALL] for outcome in outcomes),
            parts=means,
        )

    def _outcome(self, replies: Sequence[ChatReply]) -> Mapping[str, float] | str:
        return "REFUSED" if any(reply.refused for reply in replies) else self.read([reply.text for reply in replies])


def _means(passes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each sub-score over the passes that state it: some have one only now and then, as for text in the picture."""
    stated = {name: [found[name] for found in passes if name in found] for found in passes for name in found}
    return {name: math.fsum(values) / len(values) for name, values in stated.items()}


# --- texts of published judges, read from their own files ---------------------------------------------


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
