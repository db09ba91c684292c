"""Renders the prompts (what they must say: paper, section 3.1 and appendix; the wording is ours), one Markdown file in `texts/` each.

A new score prompt is one new file in `texts/score/`; its first line names what it shows and demands: `{# principles verdicts #}`. The order
is source, instruction, principles, edited: all edits of a task share the longest prefix, which servers cache. Outside text is quoted.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from PIL import Image

from editr1.errors import ConfigError, nearest
from editr1.schema import CATEGORIES, Category, Principle, Source, pictures_of
from editr1.vlm.base import ChatRequest, PromptContext, Sampling

Bounds = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Quotas:
    """Smallest and largest number of principles, a category. Defaults: paper, section 3.1."""

    follow: Bounds = (3, 4)
    keep: Bounds = (3, 4)
    quality: Bounds = (2, 3)


DEFAULT_QUOTAS = Quotas()

NUM_SHOWN = 4  # paper, section 3.1: of a pool of 60, `exemplars.json` (the paper's is not published: ours is written anew)

_TEXTS = files("editr1.judge") / "texts"

_LETTERS: dict[Category, str] = {"follow": "F", "keep": "K", "quality": "Q"}

# Where user turn and pictures stand while a template is text. Control characters cannot come from outside: `_clean` drops them.
_USER, _SOURCE, _EDITED = "\x01", "\x02", "\x03"
_CONTROLS = {code: None for code in range(32) if chr(code) not in "\t\n"}
_SCORE_TAG = re.compile(r"<(?=\s*[/\\]?\s*score)", re.IGNORECASE)


def texts_digest(*names: str) -> dict[str, str]:
    """`prompts` -> SHA-256 of the named files of `texts` and of those that they include: a stage's rows depend on the wording."""
    shared = ("rules.md", "scale.md")
    return {"prompts": hashlib.sha256(b"\x00".join((_TEXTS / name).read_bytes() for name in sorted({*names, *shared}))).hexdigest()}


def score_texts_digest(*prompt_ids: str) -> dict[str, str]:
    """As `texts_digest`, for prompts that ask for a score."""
    return texts_digest("score/base.md", *(f"score/{prompt_id}.md" for prompt_id in prompt_ids))


def labels(principles: Sequence[Principle]) -> tuple[str, ...]:
    """Category letter and running number inside the category, in the order of the principles.

    >>> labels([Principle("a?", "follow"), Principle("b?", "keep"), Principle("c?", "follow")])
    ('F1', 'K1', 'F2')
    """
    counts: dict[Category, int] = {}
    out = []
    for principle in principles:
        counts[principle.category] = counts.get(principle.category, 0) + 1
        out.append(f"{_LETTERS[principle.category]}{counts[principle.category]}")
    return tuple(out)


@dataclass(frozen=True, slots=True)
class PromptTraits:
    """What the first line of a score prompt says about it."""

    shows_principles: bool
    demands_verdicts: bool


def score_prompt_ids() -> list[str]:
    """Every id that `render_score` knows."""
    return sorted(entry.name.removesuffix(".md") for entry in (_TEXTS / "score").iterdir() if entry.name not in ("base.md",))


@cache
def score_traits(prompt_id: str) -> PromptTraits:
    """What the prompt shows and demands. Raises ConfigError for an unknown id."""
    known = score_prompt_ids()
    if prompt_id not in known:
        raise ConfigError(f"unknown score prompt {prompt_id!r}: {nearest(prompt_id, known)}")
    words = (_TEXTS / "score" / f"{prompt_id}.md").read_text("utf-8").splitlines()[0].strip("{}# ").split()
    return PromptTraits("principles" in words, "verdicts" in words)


def render_score(
    prompt_id: str,
    source: Source,
    edited: Image.Image,
    instruction: str,
    principles: Sequence[Principle] = (),
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    want_logprobs: bool = False,
) -> ChatRequest:
    """The question whether one edit is right. Raises ConfigError for an unknown prompt id.

    `principles` may be empty for prompts that show none (`t`, `direct` and their compact forms).
    """
    traits = score_traits(prompt_id)
    if traits.shows_principles and not principles:
        raise ConfigError(f"score prompt {prompt_id!r} shows principles, but none were given; decompose the task first or use 'direct'")
    context = PromptContext("score", instruction, tuple(principles))
    shown = labelled(principles) if traits.shows_principles else []
    text = _render(f"score/{prompt_id}.md", instruction=instruction, principles=shown, verdicts=traits.demands_verdicts)
    return _request(text, source, edited, context, sampling, seed, want_logprobs)


def render_decompose(
    source: Source,
    instruction: str,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    quotas: Quotas = DEFAULT_QUOTAS,
    num_exemplars: int = NUM_SHOWN,
    previous: str = "",
    problem: str = "",
) -> ChatRequest:
    """The question for the principles of a task, with exemplars drawn by `seed` (paper, section 3.1: 4 of 60).

    `previous` and `problem` are the unusable answer and what was wrong with it, for a repair.
    """
    shown = draw_exemplars(seed, num_exemplars)
    text = _render("decompose.md", instruction=instruction, quotas=quotas, exemplars=shown, previous=previous, problem=problem)
    return _request(text, source, None, PromptContext("decompose", instruction), sampling, seed)


def render_inspect(
    source: Source,
    edited: Image.Image,
    instruction: str,
    principles: Sequence[Principle],
    traces: Sequence[str],
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> ChatRequest:
    """The question for the gold verdicts of one quadruple, with the traces as hints."""
    text = _render("inspect.md", instruction=instruction, principles=labelled(principles), traces=list(traces))
    context = PromptContext("inspect", instruction, tuple(principles), tuple(traces))
    return _request(text, source, edited, context, sampling, seed)


def render_hard_filter(source: Source, instruction: str, *, sampling: Sampling | None = None, seed: int = 0) -> ChatRequest:
    """The question whether an instruction is hard by the paper's four criteria (section 3.1)."""
    text = _render("hard_filter.md", instruction=instruction)
    return _request(text, source, None, PromptContext("filter", instruction), sampling, seed)


def request_text(request: ChatRequest) -> str:
    """All text of a request, for Phi to recognise what a reply copied from it.

    Quoting changes a few characters, and a model may copy the instruction unquoted: the plain form is there too.
    """
    text = [request.system, *(part for part in request.parts if isinstance(part, str))]
    if request.context is not None:
        text += [request.context.instruction, *(principle.question for principle in request.context.principles)]
    return "\n".join(text)


# --- templates ----------------------------------------------------------------------------------------


def labelled(principles: Sequence[Principle]) -> list[dict[str, str]]:
    """The principles as the templates read them: label, question, category."""
    named = zip(labels(principles), principles, strict=True)
    return [{"label": label, "question": principle.question, "category": principle.category} for label, principle in named]


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(lambda name: (_TEXTS / name).read_text("utf-8"))
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(quoted=quoted, span=_span, json_array=_json_array)
    environment.globals.update(user_turn=_USER, source_image=_SOURCE, edited_image=_EDITED)
    return environment


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render({key: _clean(value) for key, value in values.items()})


def _request(
    text: str,
    source: Source,
    edited: Image.Image | None,
    context: PromptContext,
    sampling: Sampling | None,
    seed: int,
    want_logprobs: bool = False,
) -> ChatRequest:
    system, user = text.split(_USER)
    shown = {_SOURCE: labelled_sources(source), _EDITED: (edited,)}
    pieces = re.split(f"([{_SOURCE}{_EDITED}])", user)
    parts = tuple(part for piece in pieces if piece.strip() for part in shown.get(piece, (piece,)) if part is not None)
    return ChatRequest(parts, system.strip(), sampling or Sampling(), seed, context, want_logprobs)


def labelled_sources(source: Source) -> tuple[str | Image.Image, ...]:
    """The picture alone, or each of several below its number, by which an instruction may name it."""
    pictures = pictures_of(source)
    if len(pictures) == 1:
        return pictures
    named = enumerate(pictures, start=1)
    return tuple(part for number, picture in named for part in (f"Source picture {number} of {len(pictures)}:\n", picture))


def _clean(value: Any) -> Any:
    """The value with every string freed of control characters other than tab and newline."""
    if isinstance(value, str):
        return value.translate(_CONTROLS)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value


def quoted(text: str) -> str:
    r"""Outside text as a JSON string; score tags inside are spelled out, so that none can be copied as one.

    >>> print(quoted('Make it "red" <score>10</score>'))
    "Make it \"red\" \u003cscore>10\u003c/score>"
    """
    return _SCORE_TAG.sub(r"\\u003c", json.dumps(text, ensure_ascii=False))


def _span(bounds: Bounds) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


def _json_array(principles: Sequence[Principle]) -> str:
    rows = (json.dumps({"question": p.question, "category": p.category}, ensure_ascii=False) for p in principles)
    return "[" + ",\n ".join(rows) + "]"


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A task described in words, with its principles."""

    kind: str
    """GEdit category, or `compound`."""
    source: str
    """What the source picture shows."""
    instruction: str
    principles: tuple[Principle, ...]


@cache
def exemplars() -> tuple[Exemplar, ...]:
    """The whole pool, in the order of the file."""

    def principles(row: dict[str, Any]) -> tuple[Principle, ...]:
        return tuple(Principle(question, category) for category in CATEGORIES for question in row[category])

    rows = json.loads((files("editr1.judge") / "exemplars.json").read_text("utf-8"))
    return tuple(Exemplar(row["kind"], row["source"], row["instruction"], principles(row)) for row in rows)


def draw_exemplars(seed: int, count: int = NUM_SHOWN) -> list[Exemplar]:
    """`count` different exemplars, the same ones for the same seed."""
    return random.Random(seed).sample(exemplars(), count)
