"""verl-omni: a custom reward function, against a judge inside its Ray pool or against `editr1 serve`.

    reward.custom_reward_function.path=pkg://editr1.integrations.verl_omni
    reward.custom_reward_function.name=compute_score

The source picture must travel with the data: `python -m editr1.integrations.verl_omni IN.parquet OUT.parquet` copies it into
`extra_info.source_image`. An unscored edit is asked about again, in both modes, and then raises: verl-omni's score is a number, and
none would be true.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

from editr1.config import Component, create
from editr1.errors import DataError, EditR1Error, UnscoredError
from editr1.integrations._client import Edit, RewardClient, Score, category_scores, to_picture, to_principles, to_source
from editr1.judge.decompose import Decomposer
from editr1.judge.item import PersistentJudge, RewardItem
from editr1.judge.rrm import RewardModel
from editr1.vlm.base import Sampling


async def compute_score(
    data_source: str,
    solution_image: Any,
    ground_truth: Any,
    extra_info: dict[str, Any] | None,
    reward_router_address: str | None = None,
    model_name: str | None = None,
    server_url: str | None = None,
    **options: Any,
) -> dict[str, float]:
    """The reward of one generated image: `score` in [0, 10], the categories' shares in [0, 1], `parsed` = 1.

    Args:
        data_source: name of the data set; not read.
        solution_image: the edit, uint8 [3, H, W].
        ground_truth: the instruction, where `extra_info` has none.
        extra_info: `source_image` (encoded bytes, or a list of them), `instruction`, and optionally `principles` (rows of question and
            category).
        reward_router_address: host:port of the judge in verl-omni's pool (mode 1).
        model_name: its model id (mode 1).
        server_url: address of `editr1 serve` (mode 2).
        options: `token` (mode 2); `prompt_id`, `num_traces`, `temperature`, `max_tokens` (mode 1).

    Raises UnscoredError for an edit without a score, DataError for a row without source or instruction.
    """
    edit = _edit(solution_image, ground_truth, extra_info or {})
    if server_url:
        client = RewardClient(server_url, options.get("token"))
        score = (await asyncio.to_thread(client.score, [edit]))[0]
    elif reward_router_address and model_name:
        judge = _judge(reward_router_address, model_name, **{key: value for key, value in options.items() if key in _JUDGE_OPTIONS})
        item = RewardItem(edit.source, edit.edited, edit.instruction, edit.principles)
        reward = (await asyncio.to_thread(judge.score, [item]))[0]
        if reward.value is None:
            raise UnscoredError(f"the edit is unscored ({reward.reason}); no number stands in for it")
        score = Score(reward.value, reward.category_means)
    else:
        raise DataError("compute_score needs server_url, or reward_router_address with model_name; see the verl-omni how-to page")
    return {"score": score.value, **category_scores(score), "parsed": 1.0}


def _edit(solution_image: Any, ground_truth: Any, extra_info: dict[str, Any]) -> Edit:
    instruction = extra_info.get("instruction") or ground_truth
    if not isinstance(instruction, str) or not instruction.strip():
        raise DataError("the row has no instruction: put it into extra_info.instruction or ground_truth")
    if extra_info.get("source_image") is None:
        raise DataError(
            "the row has no extra_info.source_image; convert the data: python -m editr1.integrations.verl_omni IN.parquet OUT.parquet"
        )
    principles = extra_info.get("principles")
    rows = json.loads(principles) if isinstance(principles, str) else principles
    return Edit(to_source(extra_info["source_image"]), to_picture(solution_image), instruction, to_principles(rows))


_JUDGE_OPTIONS = ("prompt_id", "num_traces", "temperature", "max_tokens")


@cache
def _judge(
    address: str, model: str, prompt_id: str = "tv", num_traces: int = 1, temperature: float = 0.7, max_tokens: int = 2048
) -> PersistentJudge:
    vlm = create("vlm", Component("openai_api", {"model": model, "base_url": f"http://{address}/v1", "api_key": "none"}))
    return PersistentJudge(RewardModel(vlm, prompt_id, num_traces, Sampling(temperature, max_tokens=max_tokens), Decomposer(vlm)))


# --- data


def attach_sources(table_in: Path, table_out: Path, image_column: str = "images") -> int:
    """Copies each row's first picture into `extra_info.source_image` as encoded bytes; returns the number of rows.

    `image_column` holds lists of {bytes, path}, as verl's preprocessing writes them; a path is read below the table's folder.
    A cell may also be the bytes or the path itself. Raises DataError for a row without a picture, and for what is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from editr1.pictures import decode_image
    from editr1.store import read_inside

    try:
        rows = pq.read_table(table_in).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{table_in} cannot be read as Parquet ({error})") from error
    for number, row in enumerate(rows):
        pictures = row.get(image_column)
        if not pictures:
            raise DataError(f"{table_in}: row {number} has no picture in column {image_column!r}")
        first = pictures[0] if isinstance(pictures, list) else pictures
        cell = first if isinstance(first, dict) else {"bytes" if isinstance(first, bytes) else "path": first}
        data = cell.get("bytes") or read_inside(table_in.parent, cell.get("path") or "")
        decode_image(data, f"{table_in}: row {number}")
        row["extra_info"] = {**(row.get("extra_info") or {}), "source_image": data}
    pq.write_table(pa.Table.from_pylist(rows), table_out)
    return len(rows)


def main() -> None:
    """The converter's command line."""
    parser = argparse.ArgumentParser(description="Add the source picture to verl-omni's extra_info.")
    parser.add_argument("table_in", type=Path)
    parser.add_argument("table_out", type=Path)
    parser.add_argument("--image-column", default="images")
    args = parser.parse_args()
    try:
        print(f"{args.table_out}: {attach_sources(args.table_in, args.table_out, args.image_column)} rows")  # noqa: T201
    except EditR1Error as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
