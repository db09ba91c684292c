"""Decomposes tasks into principles with a VLM: ask, check, show the fault and ask again, give up with a reason (paper, section 3.1).

`parse_principles` reads and checks an answer: JSON, categories, quotas, duplicates, and questions that are no yes/no questions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from editr1.errors import DataError
from editr1.judge.answers import Contradiction, normalised, object_arrays, read_loose_object
from editr1.judge.claims import is_taken_back
from editr1.judge.parse import answer_of, without_asides
from editr1.judge.prompts import DEFAULT_QUOTAS, NUM_SHOWN, Quotas, render_decompose
from editr1.schema import CATEGORIES, Category, Principle, Source, derive_seed, pictures_of, stable_id
from editr1.vlm.base import VLM, Sampling

MAX_QUESTION_CHARS = 400  # ours: one fact fits; longer questions bundle several

# A yes/no question starts with one of these, perhaps behind a clause that ends in a comma ("Apart from the hat, is ...").
_OPENERS = (
    "am are can could did do does had has have is might must shall should was were will would "
    "aren't can't couldn't didn't don't doesn't hadn't hasn't haven't isn't shouldn't wasn't weren't won't wouldn't"
)
_YES_NO = re.compile(rf"(?:^|[,:;]\s+)(?:{'|'.join(_OPENERS.split())})\b", re.IGNORECASE)
_OPEN_QUESTION = re.compile(r"^(?:what|which|who|whom|whose|where|when|why|how)\b(?![^,]*,)", re.IGNORECASE)


# The paper's long names (section 3.1), and spellings that models use for them.
_ALIASES: dict[str, Category] = {
    "instruction following": "follow",
    "following": "follow",
    "feature preservation": "keep",
    "preservation": "keep",
    "image quality": "quality",
}


@dataclass(frozen=True, slots=True)
class BadDecomposition:
    """Why an answer is no decomposition; `problem` is shown to the model that is asked to mend it."""

    problem: str


def parse_principles(
    text: str, quotas: Quotas | None = DEFAULT_QUOTAS, *, questions_in_english: bool = True
) -> tuple[Principle, ...] | BadDecomposition:
    """The principles of the last JSON array in `text`, ordered follow, keep, quality; or what is wrong with it.

    Args:
        text: the reply of the decomposer.
        quotas: smallest and largest number a category; None accepts any number of at least one principle.
        questions_in_english: check that each question is an English yes/no question. Switch off for other languages.

    >>> parse_principles('[{"question": "Is it red?", "category": "Instruction Following"}]', quotas=None)
    (Principle(question='Is it red?', category='follow'),)
    """
    sources = _last_array(text)
    if isinstance(sources, BadDecomposition):
        return sources
    found: list[Principle] = []
    for number, source in enumerate(sources, 1):
        principle = _principle(source)
        if isinstance(principle, BadDecomposition):
            return BadDecomposition(f"entry {number} {principle.problem}")
        found.append(principle)
    problem = check_principles(found, quotas, questions_in_english=questions_in_english)
    if problem:
        return BadDecomposition(problem)
    return tuple(sorted(found, key=lambda principle: CATEGORIES.index(principle.category)))


def stated_principles(value: Any, where: str) -> tuple[Principle, ...] | None:
    """The principles of a user's row: a JSON array, as text or as values; None for none. Raises DataError for what is no such array."""
    if not value:
        return None
    parsed = parse_principles(value if isinstance(value, str) else json.dumps(value, default=str), quotas=None, questions_in_english=False)
    if isinstance(parsed, BadDecomposition):
        raise DataError(f"{where}: principles are unusable: {parsed.problem}")
    return parsed


def _last_array(text: str) -> tuple[str, ...] | BadDecomposition:
    """The objects of the last array that asks questions: an earlier one never stands in for one that is cut or taken back."""
    answer = text if _is_json_array(text) else answer_of(normalised(text))
    if answer is None:
        return BadDecomposition("it ends inside its thinking, before any answer")
    shown = without_asides(answer)
    arrays = list(object_arrays(shown))
    asking = [array for array in arrays if any("question" in source.lower() for source in array.objects)] or arrays
    if not asking:
        return BadDecomposition("the JSON array is cut short" if "[" in shown else "there is no JSON array of objects in it")
    last = asking[-1]
    tail = shown[last.end :]
    if not (last.opened and last.closed) or tail.rfind("{") > tail.rfind("}"):
        return BadDecomposition("the JSON array is cut short")
    withdrawn = is_taken_back(answer, last.end)
    return BadDecomposition("it takes its last array back, or says that it was shown no picture") if withdrawn else last.objects


def _is_json_array(text: str) -> bool:
    """Whether the whole text is one array: nothing in it is a draft or a quotation then, whatever its strings say."""
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def check_principles(principles: Sequence[Principle], quotas: Quotas | None = DEFAULT_QUOTAS, *, questions_in_english: bool = True) -> str:
    """What is wrong with a set of principles, in one clause; empty when nothing is.

    >>> check_principles([Principle("Is it red?", "follow"), Principle("is it  red ?", "keep")], None)
    "the question 'is it  red ?' is asked twice"
    """
    if not principles:
        return "it holds no principle"
    seen: set[str] = set()
    for principle in principles:
        question = principle.question
        if question_key(question) in seen:
            return f"the question {question!r} is asked twice"
        seen.add(question_key(question))
        if len(question) > MAX_QUESTION_CHARS:
            return f"the question {question[:60]!r}... is longer than {MAX_QUESTION_CHARS} characters"
        if questions_in_english and not is_yes_no(question):
            return f"{question!r} cannot be answered with yes or no"
    return _over_quota(principles, quotas) if quotas else ""


def is_yes_no(question: str) -> bool:
    """Whether an English question asks for yes or no.

    >>> is_yes_no("Apart from the hat, is the man unchanged?"), is_yes_no("What colour is the hat?"), is_yes_no("The hat is red.")
    (True, False, False)
    """
    stripped = question.strip()
    return stripped.endswith("?") and bool(_YES_NO.search(stripped)) and not _OPEN_QUESTION.match(stripped)


def question_key(question: str) -> str:
    """The question without case, blanks and punctuation, for the search for duplicates."""
    return "".join(char for char in question.lower() if char.isalnum())


def _principle(source: str) -> Principle | BadDecomposition:
    row = read_loose_object(source)
    question = str(row.get("question", "")).strip() if row else ""
    if not row or not question:
        return BadDecomposition("has no 'question'")
    if isinstance(row["question"], Contradiction) or isinstance(row.get("category"), Contradiction):
        return BadDecomposition("gives a key twice, with different values")
    category = " ".join(re.split(r"[\s_-]+", str(row.get("category", "")).strip().lower()))
    try:
        return Principle(" ".join(question.split()), _ALIASES.get(category) or cast(Category, category))
    except ValueError as error:
        return BadDecomposition(f"is wrong: {error}")


def _over_quota(principles: Sequence[Principle], quotas: Quotas) -> str:
    counts = Counter(principle.category for principle in principles)
    wrong = []
    for category in CATEGORIES:
        low, high = getattr(quotas, category)
        if not low <= counts[category] <= high:
            wrong.append(f"{counts[category]} {category} questions in place of {low} to {high}")
    return " and ".join(wrong) and "it has " + " and ".join(wrong)


# --- asking -----------------------------------------------------------------------------------------

MAX_REMEMBERED = 10_000  # ours: tasks; a service that runs for months must not grow
MAX_REPAIRS = 2  # ours: who fails three times fails for a reason that a fourth call does not cure


@dataclass(frozen=True, slots=True)
class Rules:
    """What a decomposition must look like, and how it is asked for."""

    quotas: Quotas | None = DEFAULT_QUOTAS
    """paper, section 3.1; None accepts any number."""
    questions_in_english: bool = True
    """Check the form of the questions; switch off for other languages."""
    num_exemplars: int = NUM_SHOWN
    """paper, section 3.1: 4 of a pool of 60, drawn anew for each task."""
    max_repairs: int = MAX_REPAIRS
    sampling: Sampling = field(default_factory=Sampling)
    """ours: with a temperature, so that a repair is not the same answer again."""


@dataclass(frozen=True, slots=True)
class Decomposition:
    """What came out for one task."""

    principles: tuple[Principle, ...] = ()
    """Empty when none of the answers was usable."""
    problem: str = ""
    """What was wrong with the last answer; empty when it was right."""
    num_repairs: int = 0
    num_tokens: int = 0
    """Generated tokens of all answers."""
    seconds: float = 0.0
    answer: str = ""
    """The last answer, for a person to look at."""


def decompose(vlm: VLM, tasks: Mapping[str, tuple[Source, str]], seed: int, rules: Rules | None = None) -> dict[str, Decomposition]:
    """One decomposition a task: one call for all of them, then one for all that need a repair, and so on.

    tasks: (source, instruction) by an id, from which the seeds of its requests are derived.
    Raises BackendError when the model's machine fails.
    """
    rules = rules or Rules()
    made = {key: Decomposition() for key in tasks}
    for attempt in range(1 + rules.max_repairs):
        open_keys = [key for key, found in made.items() if not found.principles]
        if not open_keys:
            break
        requests = [
            render_decompose(
                *tasks[key],
                sampling=rules.sampling,
                seed=derive_seed(seed, "decompose", key, attempt),
                quotas=rules.quotas or DEFAULT_QUOTAS,
                num_exemplars=rules.num_exemplars,
                previous=made[key].answer,
                problem=made[key].problem,
            )
            for key in open_keys
        ]
        for key, reply in zip(open_keys, vlm.chat(requests), strict=True):
            parsed = parse_principles(reply.text, rules.quotas, questions_in_english=rules.questions_in_english)
            found = ((), parsed.problem) if isinstance(parsed, BadDecomposition) else (parsed, "")
            spent = (made[key].num_tokens + reply.num_tokens, made[key].seconds + reply.seconds)
            made[key] = Decomposition(*found, attempt, *spent, reply.text)
    return made


class Decomposer:
    """Principles for (source, instruction), remembered: equal tasks are asked about once."""

    def __init__(self, vlm: VLM, rules: Rules | None = None) -> None:
        self.vlm = vlm
        self._rules = rules or Rules()
        self._known: dict[str, Decomposition] = {}

    def decompose(self, tasks: Sequence[tuple[Source, str]], seed: int = 0) -> list[Decomposition]:
        """One decomposition a (source, instruction), in their order. Failures are not remembered: another seed may succeed."""
        keys = [_key(source, instruction) for source, instruction in tasks]
        known = {key: found for key in keys if (found := self._known.get(key))}
        made = decompose(self.vlm, {key: task for key, task in zip(keys, tasks, strict=True) if key not in known}, seed, self._rules)
        self._known.update({key: decomposition for key, decomposition in made.items() if decomposition.principles})
        for key in list(self._known)[: max(0, len(self._known) - MAX_REMEMBERED)]:  # the oldest
            self._known.pop(key, None)  # another thread may have been faster
        return [(known | made)[key] for key in keys]


def _key(source: Source, instruction: str) -> str:
    seen = ((hashlib.blake2b(p.tobytes(), digest_size=16).hexdigest(), str(p.size), p.mode) for p in pictures_of(source))
    return stable_id(*(word for words in seen for word in words), instruction)
