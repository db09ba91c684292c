"""MMRB2, editing part: 1,000 pairs; a judge of pairs is asked in both orders and each order counts as a trial.

    edit.json with images/, input_images/    what the repository's `benchmark/build_from_hf.py --subset edit` builds
    edit/test-*.parquet                       the dataset that it downloads, HF rl-research/multimodal-rewardbench-2

edit.json is {"pairs": [...]} with id, prompt_content and response_a/b.response_content (lists of ["text", ...] and ["image", path]),
chosen ("A" | "B"), human_annotations (three whole numbers 1 to 6, >= 4 means A), prompt_source, prompt_metadata. Parquet rows have
pair_id, prompt_text, prompt_images, response_a/b_images and the same under JSON. Layout: facebookresearch/MMRB2 at 7ff0552 (CC BY-NC).

Some instructions speak of several source pictures. Our judges see one: such a pair is unscored and counted, and everything is also
printed for the rest alone, as the benchmark does for reward models of one picture.

Protocols: `mmrb2-edit/pairwise/...` for judges of pairs, `mmrb2-edit/pointwise/{half,strict,non-tied}` for judges of scores and
`mmrb2-edit/single-image/pointwise/...` for the pairs of one source, `mmrb2-edit/human/...` for the raters' own agreement, the ceiling.

# mmrb2_judgements: stored judgements of judges of pairs, as the repository's `generate_judgements` writes them.

    <judge>.json    {pair id: {"forward": [{"judgement": "A", ...}], "reverse": [{"judgement": "B", ...}]}}
    edit.json       the labels: beside it, or named with --data

In `reverse` the responses stand in the other order, so "B" there is the first response. The script drops an answer that is missing or null
(`mmrb2-edit/judgements/as-published`); here it is wrong in the share of right trials and half a credit in the pair's.
Source: facebookresearch/MMRB2 at 1a09882, evaluate/compute_scores (CC BY-NC).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from editr1.bench.base import JudgedEdit, JudgedPair, Part, Stored, headline, refuse_doubles, require_columns, require_folder
from editr1.errors import DataError
from editr1.measure.metrics import pairwise_metrics, pairwise_outcomes
from editr1.measure.rows import Pair, PairBench, expect_count, opener, read_json, read_rows
from editr1.schema import Label, Metric

FILE = "edit.json"
RESPONSES = ("response_a", "response_b")
FIELDS = ("id", "prompt_content", *RESPONSES, "chosen")
PICTURES = ("prompt_images", "response_a_images", "response_b_images")
COLUMNS = ("pair_id", "prompt_text", *PICTURES, "chosen", "human_annotations")
DOWNLOAD = (
    "git clone https://github.com/facebookresearch/MMRB2, then in its benchmark folder: "
    "python build_from_hf.py --subset edit --output-dir DIR   (needs edit.json, images/ and input_images/)"
)
NUM_ROWS = 1000
FIRST_A = 4  # a rating of 4 to 6 prefers A
SINGLE, SEVERAL = "single-image", "several-images"
_PLACE = re.compile(r"<image_\d+>")


@dataclass(frozen=True, slots=True)
class Row(Pair):
    """A pair about one prompt; its category is `single-image`, or `several-images` for a prompt or a response of more than one."""

    votes: tuple[Label, ...] = ()


@dataclass(frozen=True)
class MMRB2Edit(PairBench):
    """The pairs. Make one with `build`."""

    rows: tuple[Row, ...]
    name: str = "mmrb2_edit"

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        found = self.accuracy("mmrb2_edit", "mmrb2-edit/pointwise", judged)
        single = [row for row in self.rows if row.category == SINGLE]
        if len(single) < len(self.rows):
            found += self.accuracy("mmrb2_single_image", f"mmrb2-edit/{SINGLE}/pointwise", judged, single)
        return [*found, *human_ceiling(self.rows)]

    def pair_metrics(self, judged: Mapping[str, JudgedPair], seed: int = 0) -> list[Metric]:
        """What a judge of pairs is measured against: the raters themselves."""
        return human_ceiling(self.rows)


def build(root: Path | str | None = None) -> MMRB2Edit:
    """The benchmark from a local copy. Raises DataError that says what to download, or names the pair that is not as published."""
    folder = require_folder(root, "mmrb2_edit", DOWNLOAD)
    if (folder / FILE).is_file():
        rows = read_file(folder / FILE)
    elif any(folder.rglob("*.parquet")):
        rows = _read_table(folder)
    else:
        raise DataError(f"mmrb2_edit: no {FILE} and no .parquet file in {folder}; {DOWNLOAD}")
    refuse_doubles([row.key for row in rows], "mmrb2_edit")
    expect_count(len(rows), NUM_ROWS, "mmrb2_edit")
    return MMRB2Edit(tuple(rows))


def read_file(path: Path) -> list[Row]:
    """The pairs of an `edit.json`. Raises DataError naming the pair for anything that is not as published."""
    content = read_json(path)
    pairs = content.get("pairs") if isinstance(content, dict) else None
    if not isinstance(pairs, list) or not pairs:
        raise DataError(f"{path}: expected a JSON object with a list 'pairs'; {DOWNLOAD}")
    return [_row(pair, path.parent, f"{path}, pair {i}") for i, pair in enumerate(pairs)]


def _row(pair: Any, folder: Path, where: str) -> Row:
    if not isinstance(pair, dict):
        raise DataError(f"{where}: expected a JSON object")
    if "prompt_content" not in pair and "response_a" in pair:
        raise DataError(f"{where} has no prompt_content: this is the repository's file of responses alone; {DOWNLOAD}")
    require_columns(pair, FIELDS, where)
    texts, sources = _content(pair["prompt_content"], where)
    a, b = (_content(pair[name].get("response_content") if isinstance(pair[name], dict) else None, where)[1] for name in RESPONSES)
    label, votes = _label(pair["chosen"], where), _votes(pair.get("human_annotations", []), where)
    key, text, kind = str(pair["id"]), " ".join(texts), _kind([len(group) for group in (sources, a, b)], where)
    prompt = _prompt(pair.get("prompt_source"), pair.get("prompt_metadata"), text)
    load = opener([(sources, a, b)], 0, partial(_only, where), folder, where, resize=False)
    return Row(key, (f"{key}/a", f"{key}/b"), text, label, prompt, kind, load, votes=votes)


def _content(parts: Any, where: str) -> tuple[list[str], list[str]]:
    """Texts and picture paths of a list of ["text", ...] and ["image", path]."""
    if not isinstance(parts, list) or not all(isinstance(p, list) and len(p) == 2 and all(isinstance(x, str) for x in p) for p in parts):
        raise DataError(f"{where}: expected a list of ['text', ...] and ['image', path], found {str(parts)[:80]}")
    return [text for kind, text in parts if kind == "text"], [path for kind, path in parts if kind == "image"]


def _read_table(folder: Path) -> list[Row]:
    import pyarrow.compute

    table = read_rows(folder, COLUMNS, "mmrb2_edit", "edit", "test")
    # Lengths come from the offsets: no picture is read to count them.
    counts = [pyarrow.compute.list_value_length(table.data.column(name)).to_pylist() for name in PICTURES]
    rows = []
    for i, pair in enumerate(table.remove_columns(list(PICTURES))):
        where = f"mmrb2_edit: row {i}"
        text = " ".join(_PLACE.sub(" ", pair["prompt_text"] or "").split())
        prompt = _prompt(pair.get("prompt_source"), _from_json(pair.get("prompt_metadata"), where), text)
        chosen = pair["chosen"].upper() if isinstance(pair["chosen"], str) else pair["chosen"]
        votes = _votes(_from_json(pair["human_annotations"], where), where)
        kind = _kind([count[i] or 0 for count in counts], where)
        load = opener(table, i, partial(_only_of_row, where), folder, where, resize=False)
        key, label = str(pair["pair_id"]), _label(chosen, where)
        rows.append(Row(key, (f"{key}/a", f"{key}/b"), text, label, prompt, kind, load, votes=votes))
    return rows


def _from_json(text: Any, where: str) -> Any:
    """The content of a cell of JSON text; a cell that is no text stands for itself."""
    if not isinstance(text, str):
        return text or []
    try:
        return json.loads(text) if text else []
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: a cell that should be JSON is not: {error}") from error


def _only_of_row(where: str, row: Mapping[str, Any]) -> list[Any]:
    return _only(where, [row[name] for name in PICTURES])


def _only(where: str, pictures: Sequence[Sequence[Any]]) -> list[Any]:
    """The one source and the one edit of each side, as paths inside the folder or image cells of a table."""
    if any(len(group) != 1 for group in pictures):
        found = " and ".join(str(len(group)) for group in pictures)
        raise DataError(f"{where}: source, a and b are {found} pictures; a judge here sees one each")
    return [group[0] for group in pictures]


def _kind(counts: Sequence[int], where: str) -> str:
    if min(counts) < 1:
        raise DataError(f"{where}: expected a source picture and a picture in each response, found {', '.join(map(str, counts))}")
    return SINGLE if max(counts) == 1 else SEVERAL


def _label(chosen: Any, where: str) -> Label:
    if chosen not in ("A", "B"):
        raise DataError(f"{where}: chosen is {chosen!r}, expected A or B")
    return "a" if chosen == "A" else "b"


def _votes(ratings: Any, where: str) -> tuple[Label, ...]:
    if not isinstance(ratings, list) or not all(type(rating) is int and 1 <= rating <= 6 for rating in ratings):
        raise DataError(f"{where}: human_annotations {str(ratings)[:80]}, expected whole numbers 1 to 6")
    return tuple("a" if rating >= FIRST_A else "b" for rating in ratings)


def _prompt(source: Any, metadata: Any, text: str) -> str:
    """What pairs about one prompt share: its place in the benchmark that it comes from, or its text."""
    number = metadata.get("id") if isinstance(metadata, dict) else None
    return f"{source}/{number}" if number is not None else text


def human_ceiling(rows: Sequence[Row]) -> list[Metric]:
    """How often one rater agrees with the label, and how often all raters agree with each other."""
    voted = [row for row in rows if row.votes]
    single = [float(vote == row.label) for row in voted for vote in row.votes]
    unanimous = [float(len(set(row.votes)) == 1) for row in voted]
    return [
        Metric(f"mmrb2_{name.replace('-', '_')}", fmean(shares) if shares else None, n=len(shares), protocol=f"mmrb2-edit/human/{name}")
        for name, shares in (("single-rater", single), ("unanimous", unanimous))
    ]


mmrb2_edit = Part(build)

# --- stored judgements ----------------------------------------------------------------------------------

ORDERS = ("forward", "reverse")
SAID: dict[str, Label] = {"A": "a", "B": "b"}


def _is_judgements(path: Path) -> bool:
    """Whether a file holds judgements: a JSON object whose values have a list `forward` or `reverse`."""
    if path.suffix != ".json" or not path.is_file():
        return False
    rows = read_json(path)
    first = next(iter(rows.values()), None) if isinstance(rows, dict) else None
    return isinstance(first, dict) and any(isinstance(first.get(order), list) for order in ORDERS)


def _read_judgements(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judge a file. Raises DataError without `edit.json`, for a judgement of no pair of it, and for another layout."""
    return [_judgements(path, data or path.with_name(FILE)) for path in paths]


def _judgements(path: Path, labels: Path) -> Stored:
    if not labels.is_file():
        raise DataError(f"{path} holds judgements of MMRB2, but {labels} with the labels is missing; name it with --data FILE")
    rows = read_file(labels)
    judged = {key: _judged(key, row, f"{path}, {key}") for key, row in read_json(path).items()}
    strangers = sorted(judged.keys() - {row.key for row in rows})
    if strangers:
        raise DataError(
            f"{path}: {len(strangers)} judgements are of no pair of {labels.name} (first: {strangers[0]}); is it another task's?"
        )
    expect_count(len(judged), len(rows), str(path))
    items = [row.comparison() for row in rows]
    metrics = [*pairwise_metrics("mmrb2_edit", items, judged), _as_published(rows, judged)]
    columns = {"published": "mmrb2-edit/judgements/as-published"}
    columns |= {kind: f"mmrb2-edit/pairwise/{kind}" for kind in ("mean-of-orders", "both-right", "consistency")}
    return Stored(path.stem, "mmrb2_judgements", metrics, pairwise_outcomes(items, judged), headline(metrics, columns))


def _judged(key: str, row: Any, where: str) -> JudgedPair:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with forward and reverse")
    forward, reverse = (_said(row.get(order), f"{where}, {order}") for order in ORDERS)
    return JudgedPair(key, forward, None if reverse is None else "b" if reverse == "a" else "a")


def _said(answers: Any, where: str) -> Label | None:
    """The first answer's side by place; None where there is none."""
    if answers is None or answers == []:
        return None
    if not isinstance(answers, list) or not isinstance(answers[0], dict):
        raise DataError(f"{where}: expected a list of objects with 'judgement'")
    said = answers[0].get("judgement")
    return SAID.get(said) if isinstance(said, str) else None


def _as_published(rows: Sequence[Row], judged: dict[str, JudgedPair]) -> Metric:
    """Share of right answers among those that are there, each order a trial."""
    answers = [(row.label, said) for row in rows if (found := judged.get(row.key)) for said in (found.forward, found.reverse) if said]
    value = sum(label == said for label, said in answers) / len(answers) if answers else None
    missing = 2 * len(rows) - len(answers)
    return Metric("mmrb2_as_published", value, n=len(answers), num_unscored=missing, protocol="mmrb2-edit/judgements/as-published")


mmrb2_judgements = Part(recognise=_is_judgements, read_stored=_read_judgements)
