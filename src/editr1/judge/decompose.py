"""Reads and checks a decomposition: JSON, categories, quotas, duplicates, and questions that are no yes/no questions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editr1.errors import DataError
from editr1.judge.answers import normalised
from editr1.judge.claims import is_taken_back
from editr1.judge.objects import Contradiction, object_arrays, read_loose_object
from editr1.judge.parse import answer_of
from editr1.schema import CATEGORIES, Category, Principle, category_from

Bounds = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Quotas:
    """Smallest and largest number of principles, a category. Defaults: paper, section 3.1."""

    follow: Bounds = (3, 4)
    keep: Bounds = (3, 4)
    quality: Bounds = (2, 3)

    def of(self, category: Category) -> Bounds:
        """The bounds of one category."""
        return {"follow": self.follow, "keep": self.keep, "quality": self.quality}[category]


DEFAULT_QUOTAS = Quotas()


MAX_QUESTION_CHARS = 400  # ours: one fact fits; longer questions bundle several

# A yes/no question starts with one of these, perhaps behind a clause that ends in a comma ("Apart from the hat, is ...").
_OPENERS = (
    "am are can could did do does had has have is might must shall should was were will would "
    "aren't can't couldn't didn't don't doesn't hadn't hasn't haven't isn't shouldn't wasn't weren't won't wouldn't"
)
_YES_NO = re.compile(rf"(?:^|[,:;]\s+)(?:{'|'.join(_OPENERS.split())})\b", re.IGNORECASE)
_OPEN_QUESTION = re.compile(r"^(?:what|which|who|whom|whose|where|when|why|how)\b(?![^,]*,)", re.IGNORECASE)


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
    parsed = parse_principles(value if isinstance(value, str) else json.dumps(value), quotas=None, questions_in_english=False)
    if isinstance(parsed, BadDecomposition):
        raise DataError(f"{where}: principles are unusable: {parsed.problem}")
    return parsed


def _last_array(text: str) -> tuple[str, ...] | BadDecomposition:
    """The objects of the last array that asks questions: an earlier one never stands in for one that is cut or taken back."""
    answer = text if _is_json_array(text) else answer_of(normalised(text))
    if answer is None:
        return BadDecomposition("it ends inside its thinking, before any answer")
    arrays = list(object_arrays(answer))
    asking = [array for array in arrays if any("question" in source.lower() for source in array.objects)] or arrays
    if not asking:
        return BadDecomposition("the JSON array is cut short" if "[" in answer else "there is no JSON array of objects in it")
    last = asking[-1]
    tail = answer[last.end :]
    if not (last.opened and last.closed) or tail.rfind("{") > tail.rfind("}"):
        return BadDecomposition("the JSON array is cut short")
    return BadDecomposition("it takes its last array back") if is_taken_back(tail) else last.objects


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
    try:
        return Principle(" ".join(question.split()), category_from(str(row.get("category", ""))))
    except ValueError as error:
        return BadDecomposition(f"is wrong: {error}")


def _over_quota(principles: Sequence[Principle], quotas: Quotas) -> str:
    counts = Counter(principle.category for principle in principles)
    wrong = []
    for category in CATEGORIES:
        low, high = quotas.of(category)
        if not low <= counts[category] <= high:
            wrong.append(f"{counts[category]} {category} questions in place of {low} to {high}")
    return " and ".join(wrong) and "it has " + " and ".join(wrong)
