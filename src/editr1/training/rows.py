"""What the reward model is trained on, read from a run's tables. A row is rendered when the trainer asks for it: pictures live for a batch.

SFT    one row a quadruple whose traces passed the inspector: prompt -> the trace that the selector kept
GCPO   two adjacent rows a human pair, the preferred edit first
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from editr1.errors import DataError
from editr1.judge.answers import normalised
from editr1.judge.parse import answer_of, own_blocks, render
from editr1.judge.prompts import labels, render_score, request_text, score_traits
from editr1.schema import Candidate, EditTask, Judgement, PreferencePair, Principle, Quadruple, Trace, derive_seed
from editr1.store import Run, held_out_share, is_held_out, preference_pairs, with_inspections, with_traces
from editr1.text import without_control_tokens
from editr1.vlm.base import ChatRequest, request_images, to_messages

Target = Literal["trace", "verdicts", "reasoning", "score"]
Source = Literal["inspected", "uninspected", "rationales"]
Difficulty = Literal["random", "hard"]
RATIONALES = "07_rationales"
WINDOW = 8  # ours: batches whose rows are sorted by length together


@dataclass(frozen=True, slots=True)
class Lesson:
    """One supervised example."""

    request: ChatRequest
    completion: str


class Lessons(Protocol):
    """A list of lessons that are made when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Lesson: ...


@dataclass(frozen=True, slots=True)
class Selected:
    """A quadruple with the trace that the selector kept."""

    task: EditTask
    principles: tuple[Principle, ...]
    candidate: Candidate
    trace: Trace


@dataclass(frozen=True)
class SelectedTraces:
    """The SFT set of a run: `Lessons` whose completion is cut to what the student is meant to write."""

    run: Run
    rows: Sequence[Selected]
    prompt_id: str
    target: Target = "trace"

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self) -> list[int]:
        """Characters of each lesson's principles and completion: what differs between the rows of a batch."""
        return [sum(len(p.question) for p in row.principles) + len(completion(row.trace, row.principles, self.target)) for row in self.rows]

    def __getitem__(self, index: int) -> Lesson:
        row = self.rows[index]
        source, edited = self.run.images.source_of(row.task), self.run.images.get(row.candidate.image)
        request = render_score(self.prompt_id, source, edited, row.task.instruction, row.principles)
        return Lesson(request, completion(row.trace, row.principles, self.target))


def read_selected(run: Run, held_out_share: float = 0.0, difficulty: Difficulty | None = None, inspected: bool = True) -> list[Selected]:
    """Every quadruple with the trace that the inspector kept, in the order of the tasks, without those of held-out tasks.

    difficulty: only tasks of one half. inspected: False takes any trace that parsed, drawn by the quadruple's id, and asks no inspector.
    Raises DataError when the tables do not fit together or no trace is left.
    """
    found: Iterator[tuple[Quadruple, Trace | None]]
    if inspected:
        found = ((edit, None if kept.chosen is None else traces[kept.chosen]) for edit, traces, kept in with_inspections(run))
    else:
        found = ((edit, _any_parsed(edit, traces)) for edit, traces in with_traces(run))
    rows = [
        Selected(quadruple.task, quadruple.principles, quadruple.candidate, trace)
        for quadruple, trace in found
        if trace and not is_held_out(quadruple.task.id, held_out_share) and difficulty in (None, quadruple.task.difficulty)
    ]
    if not rows:
        which = f" of {difficulty} tasks" if difficulty else ""
        raise DataError(f"{run.dir} holds no trace{which} to learn: nothing to train on; look at 05_inspections/dropped.jsonl")
    return rows


def _any_parsed(quadruple: Quadruple, traces: Sequence[Trace]) -> Trace | None:
    whole = len(quadruple.principles)
    parsed = [trace for trace in traces if isinstance(trace.outcome, Judgement) and len(trace.outcome.verdicts) == whole]
    return random.Random(derive_seed(0, "uninspected", quadruple.id)).choice(parsed) if parsed else None


@dataclass(frozen=True, slots=True)
class Rationale:
    """A row of `07_rationales`: for both edits of a human pair one trace each, from which the people's choice can be told."""

    pair_id: str
    winner: Trace
    loser: Trace


def read_rationales(run: Run, difficulty: Difficulty | None = None, max_pairs: int | None = None) -> list[Selected]:
    """Two rows a pair whose rationales were kept, the preferred edit first. Raises DataError when there is none.

    max_pairs: only pairs among the first so many of the training split, kept or not.
    """
    pairs = {pair.id: pair for pair in read_pairs(run, limit=max_pairs)}
    rows: list[Selected] = []
    for rationale in run.read(RATIONALES, Rationale):
        pair = pairs.get(rationale.pair_id)
        if pair is not None and difficulty in (None, pair.task.difficulty):
            both = ((pair.winner, rationale.winner), (pair.loser, rationale.loser))
            rows += [Selected(pair.task, pair.principles, edit, trace) for edit, trace in both]
    if not rows:
        raise DataError(f"no rationale in {run.dir / RATIONALES} can be learnt; look at its dropped.jsonl")
    return rows


def completion(trace: Trace, principles: Sequence[Principle], target: Target) -> str:
    """What the student writes: the whole trace, or the part of it that its variant of the reward model states.

    `trace` is T+V of the paper's ablation, `verdicts` V, `reasoning` T, `score` the scorer without principles.
    Raises DataError for a trace that holds no judgement; the selector never keeps one.
    """
    if not isinstance(trace.outcome, Judgement):
        raise DataError(f"the kept trace of {trace.quadruple_id} did not parse ({trace.outcome.code}); run the stage inspect again")
    if target == "trace":
        return trace.text
    score_line = render(Judgement((), trace.outcome.score), ())
    if target == "score":
        return score_line
    if target == "verdicts":
        blocks = own_blocks(answer_of(normalised(trace.text)) or "")
        style: Literal["lines", "json"] = "lines" if not blocks or blocks[-1].lines else "json"
        return render(trace.outcome, labels(principles), [p.question for p in principles], style=style)
    return "\n".join(filter(None, [_without_verdicts(trace.text), score_line]))


def _without_verdicts(text: str) -> str:
    """The reasoning of a trace. JSON verdicts are cut out; of `F1 seen, wanted -> yes` only the label goes, for there the reasoning itself
    says what it concludes, and the label alone belongs to the principles that this student is not shown."""
    plain = normalised(text)
    block = own_blocks(answer_of(plain) or "")[-1]
    before = plain[: block.start].rstrip()
    if not block.lines:
        return before
    lines = (line.strip() for line in plain[block.start : block.end].split("\n"))
    # The blank before the first word stays: a word-level tokenizer knows " style" and not "style".
    return "\n".join(filter(None, [before, *(line.removeprefix(line.split(" ", 1)[0]) for line in lines)]))


def mixed(
    lessons: Lessons,
    replay: Callable[[int], Lesson] | None,
    replay_every: int,
    batch_size: int,
    num_batches: int,
    seed: int,
    lengths: Sequence[int] | None = None,
) -> MixedLessons:
    """`num_batches` batches in training order: `lessons` reshuffled every epoch, every `replay_every`-th batch from `replay`.

    lengths: length of each lesson in any unit. With them, rows of like length share a batch: each WINDOW batches are cut from
        their rows in order of length and shuffled as batches, which spares padding.
    """
    rng = random.Random(seed)
    fresh = _batches(epochs(range(len(lessons)), rng), batch_size, lengths, rng)
    order: list[tuple[bool, int]] = []
    for batch in range(1, num_batches + 1):
        replayed = replay is not None and batch % replay_every == 0
        order += [(True, len(order) + i) for i in range(batch_size)] if replayed else [(False, index) for index in next(fresh)]
    return MixedLessons(lessons, replay, order)


def _batches(stream: Iterator[int], batch_size: int, lengths: Sequence[int] | None, rng: random.Random) -> Iterator[list[int]]:
    """Batches from a stream of rows, of like length where lengths are known."""
    while True:
        rows = [next(stream) for _ in range(batch_size * (WINDOW if lengths else 1))]
        if lengths:
            rows.sort(key=lengths.__getitem__)
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        yield from rng.sample(batches, len(batches))


@dataclass(frozen=True)
class MixedLessons:
    """Lessons in a fixed order, from two places."""

    lessons: Lessons
    replay: Callable[[int], Lesson] | None
    order: Sequence[tuple[bool, int]]
    """(from replay, index) of each row."""

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Lesson:
        from_replay, row = self.order[index]
        return self.replay(row) if from_replay and self.replay else self.lessons[row]


def lesson_row(lesson: Lesson, template: Mapping[str, bool]) -> dict[str, Any]:
    """The lesson as the columns that TRL's SFTTrainer reads: only the completion is learnt. template: arguments of the chat template."""
    return {
        **({"chat_template_kwargs": dict(template)} if template else {}),
        "prompt": to_messages(lesson.request),
        "completion": [{"role": "assistant", "content": without_control_tokens(lesson.completion, own=True)}],
        "images": request_images(lesson.request),
    }


@dataclass(frozen=True)
class PairRows:
    """Human pairs as adjacent rows, winner first, in training order; row i belongs to pair number i // 2."""

    run: Run
    pairs: Sequence[PreferencePair]
    order: Sequence[int]
    """Index into `pairs` of the pair that comes at each place; a pair comes back in every epoch."""
    prompt_id: str

    def __len__(self) -> int:
        return 2 * len(self.order)

    def pair(self, index: int) -> PreferencePair:
        """That of row `index`."""
        return self.pairs[self.order[index // 2]]

    def request(self, index: int) -> ChatRequest:
        """The question of row `index`, with its pictures."""
        pair = self.pair(index)
        sides = (pair.a, pair.b) if pair.label == "same" else (pair.winner, pair.loser)
        source, edited = self.run.images.source_of(pair.task), self.run.images.get(sides[index % 2].image)
        return render_score(self.prompt_id, source, edited, pair.task.instruction, pair.principles)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The columns that GRPOTrainer and the reward function read."""
        request, pair = self.request(index), self.pair(index)
        return {
            "prompt": to_messages(request),
            "images": request_images(request),
            "pair": index // 2,
            "side": "wl"[index % 2],
            "same": pair.label == "same",
            "labels": labels(pair.principles),
            "needs_verdicts": score_traits(self.prompt_id).demands_verdicts,
            "prompt_text": request_text(request),
        }


def pair_rows(run: Run, pairs: Sequence[PreferencePair], prompt_id: str, num_pairs: int, seed: int) -> PairRows:
    """`num_pairs` pairs in training order, reshuffled every epoch. Raises DataError when there is none."""
    if not pairs:
        raise DataError(f"there is no pair with a preference in {run.dir / '07_pairs'}; label some, or import them")
    return PairRows(run, pairs, list(itertools.islice(epochs(range(len(pairs)), random.Random(seed)), num_pairs)), prompt_id)


def held_out_rows(run: Run, prompt_id: str, limit: int) -> PairRows:
    """The first `limit` held-out pairs with a preference. Raises DataError when there is none."""
    pairs = [pair for pair in preference_pairs(run, "held_out") if pair.label != "same"][:limit]
    if not pairs:
        raise DataError(f"{run.dir / '07_pairs'} holds no pair out of training; set pairs.held_out_share, or gcpo.held_out.every=0")
    return PairRows(run, pairs, list(range(len(pairs))), prompt_id)


def read_pairs(run: Run, with_same: bool = False, limit: int | None = None, unseen_share: float | None = None) -> list[PreferencePair]:
    """The training split of the pairs that people decided; "same" only when asked for (the paper leaves it out).

    limit: only the first so many. unseen_share: only pairs of tasks that SFT with this `held_out_share` left out. Raises DataError where
    that leaves none, because it does not exceed the share that the pairs themselves hold out.
    """
    if unseen_share is not None and unseen_share <= (held_out := held_out_share(run)):
        raise DataError(
            f"unseen_share = {unseen_share:g} leaves no pair to train on: {held_out:g} of the tasks measure (pairs.held_out_share); "
            "set it, and sft.held_out_share, to more than that"
        )
    asked = (pair for pair in preference_pairs(run, "train") if with_same or pair.label != "same")
    found = (pair for pair in asked if unseen_share is None or is_held_out(pair.task.id, unseen_share))
    return list(itertools.islice(found, limit))


def epochs(members: Sequence[int], rng: random.Random) -> Iterator[int]:
    """All of them in random order, again and again."""
    while True:
        yield from rng.sample(members, len(members))
